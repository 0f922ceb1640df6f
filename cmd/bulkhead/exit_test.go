package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// TestInterruptibleTwice: a command that has done one thing can do another, and one
// that a signal has ended does no more.
func TestInterruptibleTwice(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	for range 2 {
		ctx, stop := interruptible(cmd)
		if err := ctx.Err(); err != nil {
			t.Fatal(err)
		}
		stop()
	}
	ctx, stop := interruptible(cmd)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	stop()
	ctx, stop = interruptible(cmd)
	defer stop()
	if ctx.Err() == nil || interrupted(cmd) != 143 {
		t.Errorf("after a signal: %v, exit code %d, want 143", ctx.Err(), interrupted(cmd))
	}
}

// TestExitOfSignals: a command that a signal ends exits as a shell says that it did, with
// several names, too, of which it takes no other up.
func TestExitOfSignals(t *testing.T) {
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		for _, words := range [][]string{{"one"}, {"one", "two"}} {
			cmd := &cobra.Command{}
			cmd.SetContext(t.Context())
			ctx, stop := interruptible(cmd)
			a, calls := &app{err: io.Discard}, 0
			err := a.each(words, func(string) error {
				calls++
				if err := syscall.Kill(os.Getpid(), sig); err != nil {
					t.Fatal(err)
				}
				<-ctx.Done()
				return fmt.Errorf("stop: %w", ctx.Err())
			})
			cause := context.Cause(ctx)
			stop()
			if code, say := explain(err, cmd); code != want || say != nil || calls != 1 {
				t.Errorf("%v, %d names: exit code %d, %v, after %d of them; want %d", sig, len(words), code, say, calls, want)
			}
			// Whoever follows a file, or waits for a lock, returns the cause.
			if code, say := explain(fmt.Errorf("read log: %w", cause), cmd); code != want || say != nil {
				t.Errorf("%v as the cause: exit code %d, %v; want %d", sig, code, say, want)
			}
		}
	}
	if code, _ := explain(context.Canceled, nil); code != 130 {
		t.Errorf("without a signal: exit code %d, want 130", code)
	}
}

// TestCIDFileCannotBeWritten: whoever waits for the file hears that there is none, and which
// workload there is, however that ended.
func TestCIDFileCannotBeWritten(t *testing.T) {
	name := os.Getenv("CIDFILE_CHILD")
	if name == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCIDFileCannotBeWritten$", "-test.count=1")
		cmd.Env = append(os.Environ(), "CIDFILE_CHILD="+filepath.Join(t.TempDir(), "id"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{}); err != nil {
		t.Fatal(err)
	}
	id := workload.NewID()
	broken := errors.New("broken")
	for _, ended := range []error{nil, exitStatus(3), broken} {
		err := withCIDFile(name, func(made func(workload.ID)) error { made(id); return ended })
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), string(id)) || advice.Fix(err) == "" {
			t.Errorf("with %v: got %v, want the names of the file and the workload", ended, err)
		}
		if code, _ := explain(err, &cobra.Command{Annotations: map[string]string{runsProgram: "1"}}); code != exitOurs {
			t.Errorf("with %v: exit code %d, want %d", ended, code, exitOurs)
		}
		if ended == broken && !errors.Is(err, broken) { //nolint:errorlint // of the table
			t.Errorf("%v was lost", broken)
		}
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what is left of the file: %v", err)
		}
	}
}
