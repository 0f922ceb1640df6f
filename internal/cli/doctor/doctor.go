// Package doctor looks at a machine and says what running workloads needs of
// it: what is there, what is missing and how to get it, and what could not be
// found out. The third answer is never counted as the first.
package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/user"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/mounts"
)

// Status is one of four answers.
type Status string

// The answers.
const (
	OK      Status = "ok"
	Missing Status = "missing"
	Warning Status = "warning" // it is there, but not as it should be
	Unknown Status = "could not tell"
)

// Result is the answer to one question.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Required tells that no workload runs without it; otherwise a flag or a
	// line of defence is lost.
	Required bool   `json:"required"`
	Detail   string `json:"detail"`
	Fix      string `json:"fix,omitempty"`
}

// Machine is what the questions are put to. Tests put answers here.
type Machine struct {
	UID      int
	StateDir string // an existing directory on the file system that state lies on
	Release  func() (string, error)
	ReadFile func(name string) ([]byte, error)
	ReadDir  func(name string) ([]os.DirEntry, error)
	Cgroups  func() (*cgroup.Layout, error)
	// IDRanges is how many workloads can have a range of host IDs.
	IDRanges func() (int, error)
	Overlay  func(dir string) error
	// UserNamespace makes one and calls use with it.
	UserNamespace func(use func(*os.File) error) error
	IDMapped      func(dir string, ns *os.File) error
	Space         func(dir string) (uint64, error)
	MaxFiles      func() (uint64, error)
	// Firewall finds what of other firewalls concerns networks; an error tells that
	// there is no nf_tables to ask.
	Firewall func() ([]bridge.Obstacle, error)
	// UserNetwork tells what is missing for the network "user".
	UserNetwork func() error
	// QEMU is the one that virtual machines would run in.
	QEMU         func() (path string, v qemu.Version, err error)
	Accelerators func() []qemu.Availability
	// GuestKernels are the kernels that are stored.
	GuestKernels func() ([]kernel.Kernel, error)
	// GVisor tells the version and place of the runsc that sandboxes are made by.
	GVisor func() (string, error)
}

// Local is this machine, with state in root, of which perhaps only a directory
// above exists. Nothing is made there.
func Local(root string) Machine {
	return Machine{
		UID: os.Geteuid(), StateDir: existing(root), Release: mounts.Release, ReadFile: os.ReadFile, ReadDir: os.ReadDir,
		Cgroups:  cgroup.Detect,
		IDRanges: func() (int, error) { return idrange.Open("", "/etc").Capacity() },
		Overlay:  mounts.Overlay,
		UserNamespace: func(use func(*os.File) error) error {
			return mounts.UserNamespace(int(idrange.Default.Base), idrange.Size, use)
		},
		IDMapped: mounts.IDMapped, Space: mounts.Space,
		MaxFiles: func() (uint64, error) {
			var r syscall.Rlimit
			err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
			return r.Max, err
		},
		Firewall:     func() ([]bridge.Obstacle, error) { return firewall(root) },
		UserNetwork:  user.Check,
		QEMU:         qemu.Installed,
		Accelerators: func() []qemu.Availability { return qemu.Accelerators(context.Background()) },
		GuestKernels: func() ([]kernel.Kernel, error) { return guestKernels(root) },
		GVisor:       func() (string, error) { return gVisor(root) },
	}
}

// existing returns dir, or the nearest directory above it that exists.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// Examine puts every question to m, in the order in which the answers help.
func Examine(m Machine) []Result {
	var out []Result
	for _, question := range []func(Machine) []Result{
		root, hostKernel, namespaces, ranges, cgroups, seccomp, appArmor, storage, capabilities, files, vulnerabilities, networks, tables, userNetwork, sandbox, machines,
	} {
		out = append(out, question(m)...)
	}
	return out
}

// Healthy reports whether everything required is there.
func Healthy(results []Result) bool {
	for _, r := range results {
		if r.Required && r.Status == Missing {
			return false
		}
	}
	return true
}

// ok, missing, warning and unknown make a Result.
func ok(name, detail string) Result { return Result{Name: name, Status: OK, Detail: detail} }

func missing(name, detail, fix string) Result {
	return Result{Name: name, Status: Missing, Detail: detail, Fix: fix}
}

func warning(name, detail, fix string) Result {
	return Result{Name: name, Status: Warning, Detail: detail, Fix: fix}
}

func unknown(name string, err error) Result {
	return Result{Name: name, Status: Unknown, Detail: err.Error(), Fix: "run doctor as root, on the machine itself and not in a container"}
}

// required marks a result.
func required(r Result) Result {
	r.Required = true
	return r
}

// refused tells an answer of the kernel from a failure to ask: with these the
// thing is not to be had.
func refused(err error) bool {
	for _, e := range []error{syscall.EINVAL, syscall.ENODEV, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENOSPC, syscall.EROFS, syscall.EUSERS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
