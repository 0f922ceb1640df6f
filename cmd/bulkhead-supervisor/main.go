// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-supervisor owns one workload, or the machine of one tenant:
// see package supervisor. It is started by bulkhead, one for each workload that runs, and is small: it
// imports no registry, network or command line package.
package main

import (
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/gvisor"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/runtime"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/supervisor"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
)

func main() {
	reach := func(socket string) boundary.Host { return wire.Host{Dir: socket} }
	os.Exit(supervisor.Main(container.Boundary{}, gvisor.Boundary{}, vm.Boundary{Reach: reach}, runtime.Boundary{}))
}
