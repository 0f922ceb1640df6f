package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
)

// What the program hands over to itself when it moves to a network namespace of
// its own.
const (
	workingDirectory = "BULKHEAD_BENCH_DIR"
	kernelError      = "BULKHEAD_BENCH_KERNEL_ERROR"
)

// enterNamespace moves the program to a network namespace with nothing but
// loopback, in which all contenders have their bridges and rules, and returns the
// working directory. What needs the machine's network is done before: with
// machines, Debian's kernel is fetched.
func enterNamespace(machines bool) (dir string, err error) {
	if os.Geteuid() != 0 {
		return "", errors.New("run as root: most peers need it, and all must run alike")
	}
	nettest.Isolate(func() {
		if err := prepare(machines); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	})
	return os.Getenv(workingDirectory), nil
}

func prepare(machines bool) error {
	dir, err := os.MkdirTemp("/var/tmp", "bulkhead-bench.")
	if err != nil {
		return err
	}
	// Root of a user namespace must reach the root file system below it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	os.Setenv(workingDirectory, dir)
	if !machines {
		return nil
	}
	if _, err := exec.LookPath(qemuProgram); err != nil {
		return nil // findGuests says so
	}
	f := newField(dir, "")
	e, err := f.findBulkhead(context.Background())
	if err == nil {
		err = fetchKernel(context.Background(), e)
	}
	if err != nil {
		os.Setenv(kernelError, lastLine([]byte(err.Error())))
	}
	return nil
}

// notFetched tells why there is no kernel of Debian's.
func notFetched() error {
	if text := os.Getenv(kernelError); text != "" {
		return errors.New(text)
	}
	return nil
}
