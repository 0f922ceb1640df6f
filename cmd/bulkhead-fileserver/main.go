// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-fileserver answers the file system requests of one virtual
// machine for one volume. It is started by package fileserver, which confines
// it: its root directory is the volume, its standard input is the stream that
// the requests come over.
//
//	bulkhead-fileserver [--read-only] [--file NAME] --id-base N --id-count N
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver/serve"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// memoryLimit makes the collector work harder before the cgroup's limit is
// reached: what 2^18 nodes, 16 requests and the runtime need, doubled.
const memoryLimit = 192 << 20

type stream struct {
	*bufio.Reader
	*os.File
}

func (s stream) Read(b []byte) (int, error) { return s.Reader.Read(b) }

func run() error {
	var o serve.Options
	var base, count uint64
	f := flag.NewFlagSet("bulkhead-fileserver", flag.ContinueOnError)
	f.BoolVar(&o.ReadOnly, "read-only", false, "refuse every change")
	f.StringVar(&o.File, "file", "", "serve this file of the root directory, not the directory")
	f.Uint64Var(&base, "id-base", 0, "ID in the guest of ID 0 on the host")
	f.Uint64Var(&count, "id-count", 0, "how many IDs there are")
	if err := f.Parse(os.Args[1:]); err != nil {
		return err
	}
	if base+count > 1<<32-1 || count == 0 {
		return fmt.Errorf("IDs %d to %d: there are no such IDs", base, base+count)
	}
	o.IDBase, o.IDCount = uint32(base), uint32(count)
	debug.SetMemoryLimit(memoryLimit)
	syscall.Umask(0) // the guest applies its own
	var err error
	if o.Root, err = serve.OpenRoot("/"); err != nil {
		return err
	}
	in := os.NewFile(0, "stream")
	return serve.Serve(stream{bufio.NewReaderSize(in, 64<<10), in}, o)
}
