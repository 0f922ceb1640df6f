package comparing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
)

// patience is how long one command of a way may take. Emulated machines are slow.
const patience = 3 * time.Minute

// What is kept of what a command prints, and of its errors, in bytes.
const (
	maxOutput = 4 << 20
	maxErrors = 64 << 10
)

// prepared is a command of a program on the host, which speaks English, and dies
// with this program.
func prepared(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that it removes what it made
	return cmd
}

// output runs a command and returns what it prints.
func output(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return outputOf(ctx, prepared(ctx, args...), ordinary{})
}

// ordinary starts commands as ordinary children.
type ordinary struct{}

func (ordinary) launch(cmd *exec.Cmd) error { return cmd.Start() }

// launcher starts commands.
type launcher interface{ launch(cmd *exec.Cmd) error }

// outputOf runs a command. Its error is what the command said last.
func outputOf(ctx context.Context, cmd *exec.Cmd, l launcher) (string, error) {
	out, stderr := &capped.Buffer{Max: maxOutput}, &capped.Buffer{Max: maxErrors}
	cmd.Stdout, cmd.Stderr = out, stderr
	err := l.launch(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	return out.String(), failure(ctx, cmd, err, stderr.String())
}

// failure makes an error of how a command ended.
func failure(ctx context.Context, cmd *exec.Cmd, err error, said string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s did not end within %v", words(cmd), patience)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for _, line := range lines {
		// Our own errors come first, and advice after them.
		if strings.HasPrefix(line, "bulkhead: ") && !strings.HasPrefix(line, "bulkhead: warning") {
			return fmt.Errorf("%s: %s", words(cmd), line)
		}
	}
	if last := lines[len(lines)-1]; last != "" {
		return fmt.Errorf("%s: %s", words(cmd), last)
	}
	return fmt.Errorf("%s: %w", words(cmd), err)
}

// words are the beginning of a command line.
func words(cmd *exec.Cmd) string {
	name := cmd.Path[strings.LastIndexByte(cmd.Path, '/')+1:]
	for _, a := range cmd.Args[1:] {
		if !strings.HasPrefix(a, "-") && !strings.Contains(a, "/") {
			return name + " " + a
		}
	}
	return name
}

// wait lets time go by, but for an end of the context.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// draining is how long is waited, after the end of a command, for what it has
// written. That is in the pipes by then; only what it left running keeps them open.
const draining = time.Second

// timed runs a command and returns how long it took from its start to its first
// output and to its end. What the command leaves running is not waited for.
func timed(ctx context.Context, cmd *exec.Cmd, l launcher) (first, end time.Duration, err error) {
	out, w, err := os.Pipe()
	if err != nil {
		return 0, 0, err
	}
	defer out.Close()
	errs, we, err := os.Pipe()
	if err != nil {
		w.Close()
		return 0, 0, err
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = w, we
	start := time.Now()
	err = l.launch(cmd)
	w.Close()
	we.Close()
	if err != nil {
		return 0, 0, err
	}
	heard := make(chan time.Duration, 1)
	said := make(chan string, 1)
	go func() {
		stderr := &capped.Buffer{Max: maxErrors}
		_, _ = io.Copy(stderr, errs) // until its end, or the deadline
		said <- stderr.String()
	}()
	go func() {
		var b [32 << 10]byte
		n, err := out.Read(b[:])
		at := time.Since(start)
		for err == nil {
			_, err = out.Read(b[:])
		}
		if n == 0 {
			at = -1
		}
		heard <- at
	}()
	err = cmd.Wait()
	end = time.Since(start)
	until := time.Now().Add(draining)
	if e := errors.Join(out.SetReadDeadline(until), errs.SetReadDeadline(until)); e != nil {
		return 0, 0, e
	}
	first = <-heard
	stderr := <-said
	switch {
	case err != nil:
		return 0, 0, failure(ctx, cmd, err, stderr)
	case first < 0:
		return 0, end, errSilent
	}
	return first, end, nil
}

// errSilent tells that a program ended well without a word.
const errSilent = errNone("the program prints nothing")
