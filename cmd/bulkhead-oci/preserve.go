package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/inherit"
)

// preserved says how many descriptors from 3 on go on to the process: what --preserve-fds
// asks for, after the first listening. Each must have come from the caller: in the place
// of one that did not, the process would find none, or take another for it.
func (c *command) preserved(listening int) (int, error) {
	n, err := c.flags.number("preserve-fds", 0)
	if err != nil || n < 0 {
		return 0, errors.Join(err, usagef("--preserve-fds: want a number from 0 on"))
	}
	for i := range listening + n {
		if !inherit.Has(3 + i) {
			return 0, fmt.Errorf("descriptor %d is to be preserved, but was not passed to this command", 3+i)
		}
	}
	return listening + n, nil
}

// listening is how many sockets a service manager passes on by this command, see
// sd_listen_fds(3): LISTEN_FDS, if LISTEN_PID is this process.
func listening() (int, error) {
	text := os.Getenv("LISTEN_FDS")
	if text == "" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxListening {
		return 0, fmt.Errorf("LISTEN_FDS: %q is no number of descriptors", text)
	}
	return n, nil
}

// maxListening is more than any service has.
const maxListening = 1000

// withListening tells a container's first process of the sockets that it gets. The
// specification given is not changed.
func withListening(spec *specs.Spec, n int) *specs.Spec {
	if n == 0 {
		return spec
	}
	told, process := *spec, *spec.Process
	process.Env = append(slices.Clone(process.Env), "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	told.Process = &process
	return &told
}
