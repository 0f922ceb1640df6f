// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead runs OCI images behind the boundary that they deserve. This
// package is the command line only: each file holds one command, which checks
// its flags, asks the engine or the image store, and writes the answer. What
// the words mean is in the packages below internal.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/inherit"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

func main() {
	trace.Main()
	if err := inherit.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead:", err)
		os.Exit(1)
	}
	os.Exit(newApp(boundaries()...).main(context.Background(), os.Args[1:]))
}

// app is what every command needs: the standard streams, the global flags, and
// the way to the machine.
type app struct {
	in         *os.File
	out, err   io.Writer
	host       runspec.Host
	boundaries []boundary.Boundary

	root  string // --root
	debug bool   // --debug
}

// newApp returns an app on the standard streams.
func newApp(boundaries ...boundary.Boundary) *app {
	var names []string
	for _, b := range boundaries {
		names = append(names, b.Name())
	}
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, host: runspec.LocalHost(names...), boundaries: boundaries}
	a.host.Runtime, a.host.Runsc = a.lookUpRuntime, a.findRunsc
	return a
}
