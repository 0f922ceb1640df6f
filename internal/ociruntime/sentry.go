package ociruntime

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// sentry leaves out what gVisor does not look at, so that what it is told is what
// is in force, and has file systems in memory made in the stage, where files can
// be copied to and from.
func sentry(spec *specs.Spec, s workload.Spec) error {
	spec.Linux.CgroupsPath, spec.Linux.Resources = "", nil
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Sysctl = s.Security.Sysctls
	spec.Mounts = hidden(spec.Mounts)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Type == "tmpfs" && slices.ContainsFunc(s.Mounts, func(u workload.Mount) bool { return u.Target == m.Destination }) {
			m.Options = append(slices.Clone(m.Options), container.StagedOption)
		}
	}
	return answers(spec.Linux.Seccomp)
}

// hidden leaves out mounts that a later one covers. gVisor would mount them on top,
// as it goes by the length of paths and not by their order.
func hidden(mounts []specs.Mount) []specs.Mount {
	var out []specs.Mount
	for n, m := range mounts {
		if !slices.ContainsFunc(mounts[n+1:], func(later specs.Mount) bool {
			return strings.HasPrefix(path.Clean(m.Destination), strings.TrimSuffix(path.Clean(later.Destination), "/")+"/")
		}) {
			out = append(out, m)
		}
	}
	return out
}

// answers has the filter of system calls answer as it says. runsc gives EPERM whatever
// the errno, but a program that tries a call and has another way goes it only on
// ENOSYS: glibc makes no thread where clone3 fails otherwise. What waits for a tracer
// gets ENOSYS in gVisor where there is none. One that there is could let such a call
// pass, but gVisor asks no filter again after a tracer's stop: with ptrace it could do
// so by any call that the filter allows.
func answers(f *specs.LinuxSeccomp) error {
	if f == nil {
		return nil
	}
	var err error
	if f.DefaultAction, f.DefaultErrnoRet, err = answer(f.DefaultAction, f.DefaultErrnoRet); err != nil {
		return err
	}
	f.Syscalls = slices.Clone(f.Syscalls)
	for i := range f.Syscalls {
		rule := &f.Syscalls[i]
		if rule.Action, rule.ErrnoRet, err = answer(rule.Action, rule.ErrnoRet); err != nil {
			return fmt.Errorf("%w, for %s", err, strings.Join(rule.Names, ", "))
		}
	}
	return nil
}

// answer is the action by which gVisor answers with an errno.
func answer(action specs.LinuxSeccompAction, errno *uint) (specs.LinuxSeccompAction, *uint, error) {
	switch {
	case errno == nil || action != specs.ActErrno || *errno == uint(syscall.EPERM):
		return action, errno, nil
	case *errno == uint(syscall.ENOSYS):
		return specs.ActTrace, nil, nil
	}
	return "", nil, fmt.Errorf("%w: a filter of system calls that answers with errno %d behind gvisor, which has EPERM and ENOSYS only", workload.ErrUnsupported, *errno)
}

// keepTmp keeps the image's /tmp: gVisor would cover an empty one, or none, by a file
// system of its own, and nothing in it would be copied, exported or listed. Nor would
// it be read-only with the root: then an empty one that is takes its place.
func keepTmp(spec *specs.Spec, root *os.File) {
	if slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return path.Clean(m.Destination) == "/tmp" }) {
		return
	}
	m := specs.Mount{Destination: "/tmp", Type: "bind", Source: container.StageRoot + "/tmp", Options: []string{"rbind", "rprivate"}}
	if spec.Root.Readonly {
		m.Options = append(m.Options, "ro")
	}
	switch own, covered := tmpOf(root); {
	case own:
	case covered && spec.Root.Readonly:
		m = specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "mode=1777"}}
	default:
		return
	}
	spec.Mounts = append(spec.Mounts, m)
}

// tmpOf tells whether an image has a directory /tmp, and otherwise whether gVisor would
// cover what there is: nothing, or a link to nothing or to an empty directory.
func tmpOf(root *os.File) (own, covered bool) {
	if fd, err := at.InRoot(int(root.Fd()), "/tmp", false); err == nil {
		defer at.Close(fd)
		if st, err := at.Fstat(fd); err == nil && at.IsDir(st) {
			return true, false
		}
	}
	fd, err := at.InRoot(int(root.Fd()), "/tmp", true)
	if err != nil {
		return false, true
	}
	defer at.Close(fd)
	dir, err := at.OpenDir(fd, ".")
	if err != nil {
		return false, false // gVisor lets a file be
	}
	f := os.NewFile(uintptr(dir), "tmp")
	defer f.Close()
	names, err := f.Readdirnames(1)
	return false, err != nil || len(names) == 0
}
