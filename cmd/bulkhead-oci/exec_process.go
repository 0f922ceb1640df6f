package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/ocispec"
)

var execOptions = []option{
	{name: "process", short: "p", value: "FILE", help: "read the process as JSON from FILE; flags about it are then ignored"},
	{name: "tty", short: "t", help: "give it a terminal"},
	{name: "detach", short: "d", help: "do not wait for it"},
	{name: "console-socket", value: "SOCKET", help: "send the terminal's master there"},
	{name: "pidfd-socket", value: "SOCKET", help: "send a descriptor of the process there"},
	{name: "pid-file", value: "FILE", help: "write its process ID there"},
	{name: "cwd", value: "DIR", help: "its working directory"},
	{name: "env", short: "e", value: "NAME=VALUE", help: "add to its environment"},
	{name: "user", short: "u", value: "UID[:GID]", help: "its user and group"},
	{name: "additional-gids", short: "g", value: "GID", help: "add a supplementary group"},
	{name: "cap", short: "c", value: "CAP", help: "add a capability"},
	{name: "no-new-privs", help: "execve cannot gain privileges"},
	{name: "apparmor", value: "PROFILE", help: "its AppArmor profile"},
	{name: "process-label", value: "LABEL"},
	{name: "preserve-fds", value: "N", help: "leave N descriptors after standard error open"},
	{name: "cgroup", value: "[CONTROLLER:]PATH", help: "a cgroup below the container's to run in"},
	{name: "ignore-paused", help: "do it even if the container is paused: it waits until then"},
}

// execProcess makes the process that exec asks for: the one of --process, with what
// it leaves to the container's own, or that one with what the flags change.
func (c *command) execProcess(own *specs.Process) (*specs.Process, error) {
	if c.flags.given("process-label") {
		return nil, &ocispec.UnsupportedError{Property: "process.selinuxLabel"}
	}
	if name := c.flags.last("process", ""); name != "" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		p, err := ocispec.ReadProcess(f)
		if err != nil {
			return nil, fmt.Errorf("process in %s: %w", name, err)
		}
		if own != nil {
			complete(p, own)
		}
		return p, ocispec.ValidateProcess(p)
	}
	if len(c.args) < 2 {
		return nil, usagef("exec: want the operands ID COMMAND [ARG…], or --process FILE")
	}
	if own == nil {
		return nil, errors.New("the container's configuration has no process to take the rest from, use --process")
	}
	p := *own
	p.Args = c.args[1:]
	p.Terminal = c.flags.on("tty")
	p.ConsoleSize = nil
	p.Cwd = c.flags.last("cwd", p.Cwd)
	p.ApparmorProfile = c.flags.last("apparmor", p.ApparmorProfile)
	p.Env = append(slices.Clone(p.Env), c.flags["env"]...)
	if c.flags.on("no-new-privs") {
		p.NoNewPrivileges = true
	}
	if err := setUser(&p, c.flags); err != nil {
		return nil, err
	}
	addCapabilities(&p, c.flags["cap"])
	return &p, ocispec.ValidateProcess(&p)
}

// complete gives a process what it does not name of what confines and schedules the
// container's own, as runc does (libcontainer, newInitConfig; for the umask
// setns_init_linux.go, for the out-of-memory score bootstrapData). noNewPrivileges is
// not among it: a process that leaves it out has named it as false.
func complete(p, own *specs.Process) {
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = own.ApparmorProfile
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = own.Rlimits
	}
	if p.User.Umask == nil {
		p.User.Umask = own.User.Umask
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = own.OOMScoreAdj
	}
	if p.Scheduler == nil {
		p.Scheduler = own.Scheduler
	}
	if p.IOPriority == nil {
		p.IOPriority = own.IOPriority
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = own.ExecCPUAffinity
	}
}

// setUser sets the user as the flags say. A user other than the container's
// does not inherit its groups.
func setUser(p *specs.Process, flags values) error {
	if s := flags.last("user", ""); s != "" {
		uid, gid, hasGroup := strings.Cut(s, ":")
		n, err := parseUserID("user", uid)
		if err != nil {
			return err
		}
		p.User.UID, p.User.AdditionalGids = n, nil
		if hasGroup {
			if p.User.GID, err = parseUserID("user", gid); err != nil {
				return err
			}
		}
	}
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	for _, s := range flags["additional-gids"] {
		n, err := parseUserID("additional-gids", s)
		if err != nil {
			return err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, n)
	}
	return nil
}

// parseUserID excludes the largest number, which the kernel takes as "leave
// unchanged".
func parseUserID(flag, s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, usagef("exec --%s: %q is not an ID", flag, s)
	}
	return uint32(n), nil
}

// addCapabilities adds names to the sets that let the process use them. One
// that the process would inherit too becomes ambient, so that it survives the
// execve of a user who is not root.
func addCapabilities(p *specs.Process, names []string) {
	if len(names) == 0 {
		return
	}
	var caps specs.LinuxCapabilities
	if p.Capabilities != nil {
		caps = *p.Capabilities
	}
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
		*set = append(slices.Clone(*set), names...)
	}
	for _, name := range names {
		if slices.Contains(caps.Inheritable, name) {
			caps.Ambient = append(slices.Clone(caps.Ambient), name)
		}
	}
	p.Capabilities = &caps
}

// warnCapabilities tells of capabilities that the process will not have, which
// is no error (config.md, capabilities): the kernel does not know them, or they
// are ambient without being inheritable and permitted (capabilities(7)).
func (c *command) warnCapabilities(caps *specs.LinuxCapabilities) {
	if caps == nil {
		return
	}
	known, told := container.KnownCapabilities(), map[string]bool{}
	for _, set := range [][]string{caps.Bounding, caps.Effective, caps.Inheritable, caps.Permitted, caps.Ambient} {
		for _, name := range set {
			if !slices.Contains(known, name) && !told[name] {
				told[name] = true
				c.log.Warnf("the kernel knows no capability %s", printable(name))
			}
		}
	}
	for _, name := range caps.Ambient {
		if !slices.Contains(caps.Inheritable, name) || !slices.Contains(caps.Permitted, name) {
			c.log.Warnf("can't raise ambient capability %s: it is not both inheritable and permitted", printable(name))
		}
	}
}
