package meter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
)

// A feature is tried by try, in a process of its own.
type feature struct {
	name string
	call string // what is told where all of it worked
	try  func(t *trial) error
}

// trial is what a feature has to work with.
type trial struct {
	dir     string
	program string
	again   func(flags uintptr) error // the same feature, in namespaces of its own
	inside  bool                      // that is where this is
}

// failure is a call that did not do what it is for, and how it ended.
type failure struct{ call, errno string }

func (f *failure) Error() string { return f.call + ": " + f.errno }

// at is what came of a call, nil for success.
func at(call string, err error) error {
	var earlier *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &earlier):
		return err
	}
	return &failure{call, ending(err)}
}

// wrong is a call that succeeded without doing what it is for.
func wrong(call string) error { return &failure{call, Wrong} }

// ending is how an error is told.
func ending(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return clean(err.Error())
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return "E" + strconv.Itoa(int(errno))
}

// FeatureNames are all features, in the order of a Result.
func FeatureNames() (all []string) {
	for _, f := range features {
		all = append(all, f.name)
	}
	return all
}

// maxAnswer bounds what the process of a feature tells: a line for the call, one
// for how it ended.
const maxAnswer = 1024

// ask has a process of its own try a feature. With flags of clone(2) it is root in
// namespaces that are made for it, a user namespace among them.
func (f *feature) ask(dir, program string, flags uintptr) Feature {
	// The process is killed when the thread ends that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "feature", "-dir", dir, fmt.Sprintf("-inside=%t", flags != 0), f.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL, Cloneflags: flags}
	start := "clone"
	if flags != 0 {
		start = "clone(CLONE_NEWUSER) with a map"
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := capped.Buffer{Max: maxAnswer}
	cmd.Stdout = &out
	// Without these it would open /dev/null, which need not be there.
	cmd.Stdin, cmd.Stderr = strings.NewReader(""), io.Discard
	err := cmd.Run()
	answer := Feature{Name: f.name, Call: f.call, Errno: Wrong}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		answer.Errno = Hangs
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		answer.Errno = unix.SignalName(exit.Sys().(syscall.WaitStatus).Signal())
	case errors.As(err, &exit):
	case err != nil:
		answer.Call, answer.Errno = start, ending(err)
	default:
		call, rest, ok := strings.Cut(out.String(), "\n")
		if errno, ok2 := strings.CutSuffix(rest, "\n"); ok && ok2 {
			answer.Call, answer.Errno = clean(call), clean(errno)
		}
	}
	return answer
}

// Try tries one feature in this process, which should end then, and writes for the
// process that asked what came of it.
func Try(out io.Writer, name, dir string, inside bool) error {
	for i := range features {
		if f := &features[i]; f.name == name {
			call, errno := f.here(dir, inside)
			_, err := fmt.Fprintf(out, "%s\n%s\n", call, errno)
			return err
		}
	}
	return fmt.Errorf("no feature %q", name)
}

func (f *feature) here(dir string, inside bool) (call, errno string) {
	runtime.LockOSThread() // for good: what a thread is must not come to another goroutine
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	t := &trial{dir: dir, program: self(), inside: inside}
	t.again = func(flags uintptr) error {
		a := f.ask(dir, t.program, flags)
		if a.Works() {
			return nil
		}
		return &failure{a.Call, a.Errno}
	}
	err := at(f.call, f.try(t))
	var failed *failure
	if errors.As(err, &failed) {
		return failed.call, failed.errno
	}
	return f.call, ""
}

// nested is a feature that needs namespaces, of a user namespace that is made for
// it. Nothing of what it does is seen outside of them.
func nested(flags uintptr, try func(t *trial) error) func(t *trial) error {
	return func(t *trial) error {
		if t.inside {
			return try(t)
		}
		return t.again(unix.CLONE_NEWUSER | flags)
	}
}
