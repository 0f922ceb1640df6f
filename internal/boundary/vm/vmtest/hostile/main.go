// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command hostile is the first process of a guest that does not do what it
// should. It boots as the real agent does and then misbehaves in one way: the
// tests of package vm look what the host makes of it. It is no part of the
// product.
package main

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/agent"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/pid1"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/mounts"
)

// mode is how it misbehaves, set by the linker: see misbehave.
var mode = ""

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == pid1.AgentArgument && os.Getppid() == 1:
		err = misbehave()
	case mode == "exit":
		os.Exit(3) // as the first process: the kernel gives up
	default:
		err = pid1.Init()
	}
	if err != nil {
		os.Stderr.WriteString("hostile: " + err.Error() + "\n")
		os.Exit(1)
	}
}

// elsewhen is far from any time at which a test runs, and what the kernel takes
// for a time.
var elsewhen = map[string]time.Time{
	"past": time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC), "future": time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
}

// misbehave is the agent.
func misbehave() error {
	switch mode {
	case "panic":
		return crash()
	case "dies":
		os.Exit(7)
	case "silent":
		for { // an empty select would be taken for a deadlock
			time.Sleep(time.Hour)
		}
	case "chatter": // on the console, and the host never gets an answer
		flood("/dev/console")
	case "nonsense":
		return pid1.Run(pid1.NewMachine(), func(_ context.Context, conn io.ReadWriteCloser) error {
			for junk := make([]byte, 32<<10); ; {
				rand.Read(junk)
				if _, err := conn.Write(junk); err != nil {
					return err
				}
			}
		})
	case "past", "future": // begins in another time
		if err := syscall.Settimeofday(&syscall.Timeval{Sec: elsewhen[mode].Unix()}); err != nil {
			return err
		}
	case "deaf": // greets, and then answers nothing
		return pid1.Run(pid1.NewMachine(), func(ctx context.Context, conn io.ReadWriteCloser) error {
			s, err := protocol.Guest(ctx, conn, protocol.Hello{Kernel: "deaf", Agent: "hostile"})
			if err != nil {
				return err
			}
			for {
				if _, err := s.Accept(); err != nil {
					return err
				}
			}
		})
	}
	go watch()
	return serve()
}

// serve is what the real agent does.
func serve() error {
	const runDir = "/run/bulkhead/workloads"
	release, err := mounts.Release()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return err
	}
	machine := pid1.NewMachine()
	expendable := 0
	a := agent.New(agent.Config{
		Guest: machine, Boundary: container.Boundary{}, RunDir: runDir, Init: pid1.InitProgram,
		Kernel: release, Version: "hostile", OOMScoreAdj: &expendable,
		Log: func(line string) { pid1.Log("%s", line) },
	})
	return pid1.Run(machine, func(ctx context.Context, conn io.ReadWriteCloser) error {
		return a.Serve(ctx, conn)
	})
}

// watch waits for a workload's program of one of these names and does what it
// says. Nothing tells of a new process, so it looks again and again.
func watch() {
	for ; ; time.Sleep(50 * time.Millisecond) {
		names, _ := filepath.Glob("/proc/[0-9]*/comm")
		for _, name := range names {
			comm, _ := os.ReadFile(name)
			switch strings.TrimSpace(string(comm)) {
			case "do-panic":
				crash() //nolint:errcheck // it does not return
			case "do-exit":
				os.Exit(7)
			case "do-chatter":
				flood("/dev/console")
			}
		}
	}
}

// crash lets the kernel panic (Documentation/admin-guide/sysrq.rst).
func crash() error { return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) }

// flood writes to a file for ever, and what would take over a terminal.
func flood(name string) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	for text := strings.Repeat("\x1b[2J\x1b]0;owned\x07 all work and no play\n", 64); ; {
		f.WriteString(text) //nolint:errcheck // again
	}
}
