// Package runspec turns what a person typed after `bulkhead run` or
// `bulkhead create`, and the config of the image, into a workload.Spec.
//
// It happens in two steps, so that a mistyped flag is reported before an image
// is pulled: Options.Check validates the flags alone and returns a Request;
// Request.Spec adds the image. Both are pure but for what they ask of Host.
// Every value is checked here, once; what reaches the engine is complete and in
// range. Errors are advice: one sentence, then how to fix it.
package runspec

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Host is what the translation may ask of the machine it runs on. Tests put
// fixed answers here.
type Host struct {
	LookupEnv func(name string) (string, bool)
	// ReadFile returns a whole file of at most limit bytes, an error when it is
	// longer.
	ReadFile func(name string, limit int64) ([]byte, error)
	Stat     func(name string) (fs.FileInfo, error)
	Getwd    func() (string, error)
	Hostname func() (string, error)
	CPUs     int  // processors that a workload could use
	SELinux  bool // the host enforces or logs SELinux policy
	// Cgroups tells what limits it can enforce.
	Cgroups func() (cgroup.Features, error)
	NewID   func() workload.ID
	// Boundaries are the names that --boundary takes.
	Boundaries []string
	// Runtime finds a registered runtime, and the boundary that it makes.
	Runtime func(name string) (r workload.Runtime, boundary string, err error)
	// Runsc finds the one of the boundary gvisor.
	Runsc func() (workload.Runtime, error)
}

// LocalHost answers for this machine, where workloads may name boundaries.
func LocalHost(boundaries ...string) Host {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return Host{
		LookupEnv:  os.LookupEnv,
		ReadFile:   readFile,
		Stat:       os.Stat,
		Getwd:      os.Getwd,
		Hostname:   os.Hostname,
		CPUs:       runtime.NumCPU(),
		SELinux:    err == nil,
		Cgroups:    func() (cgroup.Features, error) { return cgroup.Probe(cgroup.Options{}) },
		NewID:      workload.NewID,
		Boundaries: boundaries,
	}
}

// readFile reads name, which may be a pipe, up to limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return b, nil
}

// bad returns the error for a flag's value: what is wrong with it, how to fix
// it.
func bad(flag, value, wrong, fix string) error {
	return advice.New(fmt.Sprintf("%s %q: %s", flag, value, wrong), fix)
}
