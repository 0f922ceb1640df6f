package runtimespec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// minimumKernel is the baseline: mount_setattr with ID maps under overlay,
// openat2, clone3, pidfds.
var minimumKernel = seccomp.KernelVersion{Major: 6, Minor: 1}

// Kernel is the version of the kernel that runs.
func Kernel() (seccomp.KernelVersion, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return seccomp.KernelVersion{}, os.NewSyscallError("uname", err)
	}
	return seccomp.ParseKernelVersion(unix.ByteSliceToString(u.Release[:]))
}

// CheckHost wants what every boundary wants that makes containers: Linux 6.1, root
// and a cgroup file system. The error wraps workload.ErrUnsupported where one is
// missing.
func CheckHost(boundary string) error {
	v, err := Kernel()
	if err != nil {
		return err
	}
	if err := checkKernel(v); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: the boundary %s needs root in this version", workload.ErrUnsupported, boundary)
	}
	lay, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if lay.Mode == cgroup.ModeNone {
		return fmt.Errorf("%w: no cgroup file system is mounted", workload.ErrUnsupported)
	}
	return nil
}

// checkKernel refuses kernels before Linux 6.1.
func checkKernel(v seccomp.KernelVersion) error {
	if v.Major < minimumKernel.Major || v.Major == minimumKernel.Major && v.Minor < minimumKernel.Minor {
		return fmt.Errorf("%w: Linux %d.%d is older than 6.1, whose mount and ID-mapping calls containers are made with", workload.ErrUnsupported, v.Major, v.Minor)
	}
	return nil
}

// InitTarget is where --init's program is mounted: in /dev, which is ours, so
// that no image can have something there.
const InitTarget = "/dev/init"

// AddInit puts bulkhead-init above the workload's own program.
func AddInit(spec *specs.Spec, program string) error {
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("%w: --init needs the program bulkhead-init: %w", workload.ErrUnsupported, err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: InitTarget, Type: "bind", Source: program, Options: []string{"bind", "ro", "nosuid", "nodev", "rprivate"},
	})
	spec.Process.Args = append([]string{InitTarget}, spec.Process.Args...)
	return nil
}

// MakeSources makes missing directories that -v names, as Docker does. What
// exists may be anything, a single file too.
func MakeSources(s workload.Spec) error {
	for _, m := range s.Mounts {
		if m.Type != "bind" || !m.CreateSource {
			continue
		}
		if _, err := os.Stat(m.Source); !errors.Is(err, fs.ErrNotExist) {
			continue // an error shows again, with its step, when the source is opened
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return fmt.Errorf("mount source: %w", err)
		}
	}
	return nil
}

// NotTheirs names paths of the writable layer that are made for the workload and
// not by it: mount points.
func NotTheirs(s workload.Spec, p boundary.Prepared) func(string) bool {
	points := map[string]bool{"/dev": true, "/proc": true, "/sys": true}
	for target := range p.Files {
		points[path.Clean(target)] = true
	}
	for _, m := range s.Mounts {
		points[path.Clean(m.Target)] = true
	}
	for _, d := range s.Devices {
		points[path.Clean(d.Target)] = true
	}
	return func(name string) bool { return points[name] || strings.HasPrefix(name, "/dev/") }
}

// overflowUser is who owns what has no ID in a user namespace, see
// user_namespaces(7).
const overflowUser = 65534

// UserInside maps user IDs of the host to those of a workload whose range of count
// IDs begins at base.
func UserInside(s workload.Spec, base, count uint32) func(uid uint32) uint32 {
	return func(uid uint32) uint32 {
		switch {
		case s.Namespaces.HostUser:
			return uid
		case uid-base < count: // also false below base
			return uid - base
		}
		return overflowUser
	}
}
