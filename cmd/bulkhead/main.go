// Command bulkhead runs OCI images behind the boundary that they deserve. This
// package is the command line only: each file holds one command, which checks
// its flags, asks the engine or the image store, and writes the answer. What
// the words mean is in the packages below internal.
package main

import (
	"context"
	"io"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
)

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, host: runspec.LocalHost()}
	os.Exit(a.main(context.Background(), os.Args[1:]))
}

// app is what every command needs: the standard streams, the global flags, and
// the way to the machine.
type app struct {
	in       *os.File
	out, err io.Writer
	host     runspec.Host

	root  string // --root
	debug bool   // --debug
}
