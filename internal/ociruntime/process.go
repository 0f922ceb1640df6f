package ociruntime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/orphan"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Exec runs another process in the workload, with the workload's own
// capabilities and filter.
func (i *instance) Exec(ctx context.Context, p workload.Process, stdio boundary.Stdio) (boundary.Process, error) {
	if i.first == nil || i.first.Signal(0) != nil {
		return nil, workload.ErrNotRunning
	}
	caps, err := runtimespec.Capabilities(i.spec.Security)
	if err != nil {
		return nil, err
	}
	spec := runtimespec.Process(i.spec, p, caps)
	spec.ApparmorProfile = i.oci.Process.ApparmorProfile
	if err := i.account(func(root *os.File) error { return container.Account(root, i.oci.Linux, spec, p.User) }); err != nil {
		return nil, err
	}
	name := "exec" + strconv.FormatUint(i.logs.Add(1), 10)
	process, pid, inside := name+".json", name+".pid", name+".inside"
	defer func() {
		for _, f := range []string{process, pid, inside} {
			os.Remove(filepath.Join(i.dir, f))
		}
	}()
	if err := writeJSON(i.dir, process, spec); err != nil {
		return nil, notRunning(err)
	}
	args := []string{"exec", "--process", inStage(process), "--detach", "--pid-file", inStage(pid)}
	if i.runtime.Sentry {
		args = append(args, "--internal-pid-file", inStage(inside))
	}
	term, err := i.console(p)
	if err != nil {
		return nil, err
	}
	defer term.close()
	if term != nil {
		args, stdio = append(args, "--console-socket", inStage(term.name)), boundary.Stdio{}
	}
	if err := i.ownPipes(stdio, spec.User.UID); err != nil {
		return nil, err
	}
	x := &executed{i: i}
	if x.p, err = i.leave(ctx, stdio, append(args, containerID), pid); err != nil {
		if i.first.Signal(0) != nil {
			return nil, workload.ErrNotRunning // meanwhile
		}
		return nil, named(err, spec.Args[0])
	}
	i.executes(x.p)
	if i.runtime.Sentry {
		x.inside, err = readPid(filepath.Join(i.dir, inside))
	}
	if err == nil {
		x.terminal, err = term.take(ctx)
	}
	if err != nil {
		x.p.Signal(syscall.SIGKILL)
		return nil, err
	}
	return x, nil
}

// leave runs a command that leaves a process behind, whose ID it writes to the file
// pid, and keeps that process. On error there is none.
func (i *instance) leave(ctx context.Context, stdio boundary.Stdio, args []string, pid string) (*orphan.Process, error) {
	p, err := func() (*orphan.Process, error) {
		i.leaving.RLock()
		defer i.leaving.RUnlock()
		if _, err := i.run(ctx, stdio, args...); err != nil {
			return nil, err
		}
		p, err := i.taken(pid)
		if err == nil {
			i.keep(p)
		}
		return p, err
	}()
	var program *programError // that there is none to run is what the runtime says itself
	if err != nil && !errors.As(err, &program) && !errors.Is(err, errPaused) && !errors.Is(err, workload.ErrNotRunning) {
		i.killStrays()
	}
	return p, err
}

// becoming is how long a process may take from its runtime's word that it runs to its
// program.
const becoming = time.Second

// executes waits until a process runs its program: crun says so a moment earlier, and
// whoever looked then would see crun. Nothing tells of an execve of others.
func (i *instance) executes(p *orphan.Process) {
	own, err := os.Stat(i.runtime.Program)
	for end := time.Now().Add(becoming); err == nil && !i.runtime.Sentry && time.Now().Before(end); time.Sleep(time.Millisecond) {
		still := false
		err = p.While(func(pid int) error {
			fi, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
			still = err == nil && os.SameFile(own, fi)
			return err
		})
		if !still {
			return
		}
	}
}

// keep remembers a process for Delete to wait for, and forgets those that have
// ended: a supervisor may see thousands.
func (i *instance) keep(p *orphan.Process) {
	i.mu.Lock()
	defer i.mu.Unlock()
	others := []*orphan.Process{p}
	for _, o := range i.others {
		select {
		case <-o.Ended():
		default:
			others = append(others, o)
		}
	}
	i.others = others
}

// executed is a process made by Exec: itself, or with gVisor one of the host's
// that ends as it does.
type executed struct {
	i        *instance
	p        *orphan.Process
	inside   int // its ID in gVisor
	terminal boundary.Terminal
	ended    boundary.Ending
}

func (e *executed) Wait(ctx context.Context) (workload.Exit, error) {
	return e.ended.Once(func() (workload.Exit, error) {
		exit, err := e.i.runtime.wait(ctx, e.p)
		if err == nil && e.i.runtime.Sentry && exit.Code == gaveUp && e.i.endsWithin(farewell) {
			exit.Signal, exit.Code = int(syscall.SIGKILL), 128+int(syscall.SIGKILL)
		}
		return exit, err
	})
}

// gaveUp is the status of a runsc that could not wait to the end: of a process
// whose sandbox was killed, for want of memory perhaps. The sandbox has ended by
// then, or will within farewell.
const (
	gaveUp   = 128
	farewell = time.Second
)

// endsWithin tells whether the first process has ended, or does in time.
func (i *instance) endsWithin(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-i.first.Ended():
		return true
	case <-timer.C:
		return false
	}
}

func (e *executed) Signal(ctx context.Context, sig syscall.Signal) error {
	if !e.i.runtime.Sentry {
		return notRunning(e.p.Signal(sig))
	}
	if err := e.p.Signal(0); err != nil {
		return notRunning(err)
	}
	err := e.i.orLater(ctx, func(ctx context.Context) error { return e.i.killInside(ctx, e.inside, sig) })
	if err != nil && e.p.Signal(0) != nil {
		return workload.ErrNotRunning // meanwhile
	}
	return err
}

// killInside signals a process by its ID in gVisor.
func (i *instance) killInside(ctx context.Context, pid int, sig syscall.Signal) error {
	_, err := i.run(ctx, boundary.Stdio{}, "kill", "--pid", strconv.Itoa(pid), containerID, strconv.Itoa(int(sig)))
	return err
}

func (e *executed) Terminal() boundary.Terminal { return e.terminal }

// PID is its ID on the host; in gVisor it has none there.
func (e *executed) PID() int {
	if e.i.runtime.Sentry {
		return 0
	}
	return e.p.Pid()
}
