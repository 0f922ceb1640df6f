// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-agent is the first process of a guest, and its own child
// that serves the host: package pid1 draws both. It lies in the initramfs as
// /init, in a whole system as the last program that its shutdown runs, and does
// nothing anywhere else.
package main

import (
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/pid1"
)

// version is set by the linker.
var version = "unknown"

func main() {
	var err error
	switch {
	case pid1.IsShutdown():
		pid1.Shutdown()
	case len(os.Args) > 1 && os.Args[1] == pid1.AgentArgument && os.Getppid() == 1:
		err = serve()
	default:
		err = pid1.Init()
	}
	if err != nil {
		os.Stderr.WriteString("bulkhead-agent: " + err.Error() + "\n")
		os.Exit(1)
	}
}
