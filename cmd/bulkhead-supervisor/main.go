// Command bulkhead-supervisor owns one workload: see package supervisor. It is
// started by bulkhead, one for each workload that runs, and is small: it
// imports no registry, network or command line package.
package main

import (
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/supervisor"
)

func main() {
	os.Exit(supervisor.Main())
}
