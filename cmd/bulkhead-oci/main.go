// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-oci is an OCI runtime: the command line by which
// containerd, Docker, Podman and CRI-O make containers. It makes them with
// package container, as hardened as the bundle's configuration asks for.
//
// One invocation is one short-lived process, so this program imports little:
// its start-up time is part of every container's.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	os.Exit(invoke(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// invoke performs one command line and returns the exit code.
func invoke(argv []string, stdin, stdout, stderr *os.File) int {
	self := filepath.Base(argv[0])
	c := &command{stdin: stdin, stdout: stdout, stderr: stderr}
	global, rest, err := parse(globalOptions, argv[1:], true)
	log, err2 := openLog(global, stderr)
	if err = errors.Join(err, err2); err != nil {
		(&logger{file: stderr}).Fail(stderr, err)
		return 1
	}
	c.global, c.log = global, log
	switch {
	case global.on("version"):
		writeVersion(stdout, self)
		return 0
	case global.on("help") || len(rest) == 0:
		writeHelp(stdout, self, nil)
		return 0
	}
	v := findVerb(rest[0])
	if v == nil && rest[0] == "help" {
		if v = findVerb(append(rest, "")[1]); v != nil || len(rest) == 1 {
			writeHelp(stdout, self, v)
			return 0
		}
		rest = rest[1:]
	}
	if v == nil {
		log.Fail(stderr, usagef("No help topic for '%s': no such command", rest[0]))
		return 3
	}
	code, err := c.perform(v, rest[1:], self)
	if err != nil {
		log.Fail(stderr, err)
		return max(v.failure, 1)
	}
	return code
}

func findVerb(name string) *verb {
	for _, v := range verbs() {
		if v.name == name {
			return &v
		}
	}
	return nil
}

// perform parses the verb's own arguments and runs it.
func (c *command) perform(v *verb, args []string, self string) (int, error) {
	var err error
	if c.flags, c.args, err = parse(v.options, args, v.command); err != nil && !v.raw {
		return 0, usagef("%s: %v", v.name, err)
	}
	if c.flags.on("help") {
		writeHelp(c.stdout, self, v)
		return 0, nil
	}
	if len(c.args) < v.least || v.most >= 0 && len(c.args) > v.most {
		return 0, usagef("%s: want the operands %s; see %s %s --help", v.name, orNone(v.operands), self, v.name)
	}
	root, err := stateRoot(c.global)
	if err != nil {
		return 0, err
	}
	c.store = store{root}
	// A signal ends what is under way in order, so that nothing half-made stays.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c.ctx = ctx
	c.release = func() {
		c.ctx = context.WithoutCancel(ctx) // stop ends ctx, and with it what still uses it
		stop()
	}
	return v.run(c)
}

func orNone(operands string) string {
	if operands == "" {
		return "none"
	}
	return operands
}

// stateRoot is --root as an absolute path.
func stateRoot(global values) (string, error) {
	if root := global.last("root", ""); root != "" {
		return filepath.Abs(root)
	}
	return defaultRoot, nil
}
