package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A container of Config.Late is made before it is known what it runs and who it
// is. All of its confinement is that of any other: what comes later is the
// arguments of one execve, and the name of its UTS namespace.

// SetProgram says what a container of Config.Late executes when it is started.
// The environment is completed as that of any other. The errors are those of
// Create about a program; the container may then be told of another. It is for the
// process that created the container, which starts it, too: the state file does not
// know of it.
func (c *Container) SetProgram(args, env []string) error {
	p := c.late
	if p == nil {
		return errors.New("the container has a program")
	}
	s := *p.proc.spec
	s.Args, s.Env = args, env
	if err := checkProcess(&s, false); err != nil {
		return err
	}
	s.Env = withHome(env, func() string { return p.home })
	program, err := p.view.findProgram(&s, s.Env)
	if err != nil {
		return err
	}
	if err := p.late.Set(program, args, s.Env); err != nil {
		return err
	}
	for i, d := range c.AfterStart {
		if d.Call == launch.Execve {
			d.What = strconv.Quote(program)
			c.AfterStart[i] = d
		}
	}
	p.release() // the first process has its own
	c.late = nil
	return nil
}

// SetHostname names a container that has not been started. It is for one with a
// UTS namespace of its own; of any other the error wraps workload.ErrUnsupported.
func (c *Container) SetHostname(name string) error {
	if c.Namespaces&unix.CLONE_NEWUTS == 0 {
		return fmt.Errorf("%w: the container has no UTS namespace of its own", workload.ErrUnsupported)
	}
	ns, err := c.openNamespace(specs.UTSNamespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends in the other namespace
		err := os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS))
		if err == nil {
			err = os.NewSyscallError("sethostname", unix.Sethostname([]byte(name)))
		}
		done <- err
	}()
	return <-done
}
