package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// commandTimeout bounds one command; all of them should take well under a
// second, but for the loading of images.
const commandTimeout = 90 * time.Second

// command runs a program to its end and returns what it wrote to its standard
// output. Output goes to a file, not a pipe: what a detached workload inherits
// would keep a pipe open.
func command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := os.CreateTemp("", "bench-out.")
	if err != nil {
		return "", err
	}
	defer out.Close()
	os.Remove(out.Name())
	errs, err := os.CreateTemp("", "bench-err.")
	if err != nil {
		return "", err
	}
	defer errs.Close()
	os.Remove(errs.Name())

	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, errs
	// A group of its own, so that a timeout ends the helpers too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, lastLine(contents(errs)))
	}
	return string(contents(out)), nil
}

func contents(f *os.File) []byte {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 64<<10))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

// lastLine is the end of an error message, which names the cause.
func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	if len(b) > 200 {
		b = b[:200]
	}
	return string(b)
}

// runner runs commands; command is the plain one.
type runner func(ctx context.Context, args ...string) (string, error)

// all runs commands one after the other and stops at the first error.
func (run runner) all(ctx context.Context, commands ...[]string) error {
	for _, c := range commands {
		if _, err := run(ctx, c...); err != nil {
			return err
		}
	}
	return nil
}
