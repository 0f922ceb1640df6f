// Package runtimespec says what a workload means as a container: its OCI runtime
// specification with the hardened defaults, whatever then makes the container,
// and its limits and figures as those of a cgroup.
package runtimespec

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// defaultCapabilities are Podman's: what is left of Docker's without
// AUDIT_WRITE, MKNOD and NET_RAW.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",
	"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// maskedPaths is the union of what runc, containerd, moby and Podman mask.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware",
	"/sys/fs/selinux",
}

// thermalThrottle is masked for each processor (moby's GHSA-6fw5-f8r9-fgfm):
// it tells neighbours what others compute.
const thermalThrottle = "/sys/devices/system/cpu/cpu*/thermal_throttle"

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

const defaultShmSize = 64 << 20

// Of turns a workload into an OCI runtime specification. It is pure
// but for looking at the devices and mount sources that s names.
func Of(s workload.Spec, p boundary.Prepared, kernel seccomp.KernelVersion) (*specs.Spec, error) {
	caps, err := Capabilities(s.Security)
	if err != nil {
		return nil, err
	}
	out := &specs.Spec{
		Version:  specs.Version,
		Hostname: s.Hostname,
		Root:     &specs.Root{Readonly: s.ReadOnlyRoot},
		Linux: &specs.Linux{
			CgroupsPath: p.Cgroup,
			Namespaces:  namespaces(s),
			Sysctl:      sysctls(s, p),
		},
	}
	if s.Namespaces.HostUTS {
		out.Hostname = ""
	}
	if !s.Namespaces.HostUser {
		out.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: p.IDBase, Size: p.IDCount}}
		out.Linux.GIDMappings = out.Linux.UIDMappings
	}
	out.Process = Process(s, s.Process, caps)
	out.Mounts, err = mounts(s, p)
	if err != nil {
		return nil, err
	}
	out.Linux.MaskedPaths, out.Linux.ReadonlyPaths = protectedPaths(s.Security.Unmask)
	if out.Linux.Resources, err = Resources(s.Resources); err != nil {
		return nil, err
	}
	if err := addDevices(out.Linux, s.Devices); err != nil {
		return nil, err
	}
	out.Linux.Seccomp, err = filter(s.Security, seccomp.Conditions{Caps: caps, Kernel: kernel})
	return out, err
}

// Capabilities applies --cap-drop and --cap-add to the default set.
func Capabilities(s workload.Security) ([]string, error) {
	set := slices.Clone(defaultCapabilities)
	known := container.KnownCapabilities()
	for _, list := range [][]string{s.CapDrop, s.CapAdd} {
		for _, c := range list {
			if !isAll(c) && !slices.Contains(known, capName(c)) {
				return nil, fmt.Errorf("capability %q is not one of Capabilities(7)", c)
			}
		}
	}
	if slices.ContainsFunc(s.CapAdd, isAll) {
		set = slices.Clone(known)
	}
	if slices.ContainsFunc(s.CapDrop, isAll) {
		set = nil
	}
	for _, c := range s.CapAdd {
		if !isAll(c) && !slices.Contains(set, capName(c)) {
			set = append(set, capName(c))
		}
	}
	set = slices.DeleteFunc(set, func(c string) bool {
		return slices.ContainsFunc(s.CapDrop, func(d string) bool { return !isAll(d) && capName(d) == c })
	})
	sort.Strings(set)
	return set, nil
}

func isAll(c string) bool { return strings.EqualFold(c, "all") }

func capName(c string) string {
	c = strings.ToUpper(c)
	if !strings.HasPrefix(c, "CAP_") {
		c = "CAP_" + c
	}
	return c
}

func namespaces(s workload.Spec) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.CgroupNamespace}}
	add := func(t specs.LinuxNamespaceType, host bool) {
		if !host {
			out = append(out, specs.LinuxNamespace{Type: t})
		}
	}
	add(specs.UserNamespace, s.Namespaces.HostUser)
	add(specs.PIDNamespace, s.Namespaces.HostPID)
	add(specs.IPCNamespace, s.Namespaces.HostIPC)
	add(specs.UTSNamespace, s.Namespaces.HostUTS)
	add(specs.NetworkNamespace, s.Network == "host")
	return out
}

// sysctls adds what makes up for NET_RAW and low ports, in a network namespace
// of the workload's own: ping without privilege, every port for every user.
func sysctls(s workload.Spec, p boundary.Prepared) map[string]string {
	out := map[string]string{}
	if s.Network != "host" {
		out["net.ipv4.ping_group_range"] = "0 2147483647"
		if !s.Namespaces.HostUser {
			out["net.ipv4.ping_group_range"] = fmt.Sprintf("0 %d", p.IDCount-1)
		}
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
	}
	for k, v := range s.Security.Sysctls {
		out[k] = v
	}
	return out
}

// Process turns a process of the workload into the runtime spec's. Its user is
// looked up later, in the root file system.
func Process(s workload.Spec, p workload.Process, caps []string) *specs.Process {
	out := &specs.Process{
		Terminal: p.Terminal, Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		// A program that is executed as another user than root gets no
		// capabilities: there are no ambient ones.
		NoNewPrivileges: !s.Security.NewPrivileges,
		OOMScoreAdj:     s.Resources.OOMScoreAdj,
		User:            specs.User{AdditionalGids: p.Groups},
	}
	if out.Cwd == "" {
		out.Cwd = "/"
	}
	if p.Rows > 0 && p.Cols > 0 {
		out.ConsoleSize = &specs.Box{Height: uint(p.Rows), Width: uint(p.Cols)}
	}
	for _, l := range p.Rlimits {
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	return out
}

func mounts(s workload.Spec, p boundary.Prepared) ([]specs.Mount, error) {
	shm := s.Resources.ShmSize
	if shm == 0 {
		shm = defaultShmSize
	}
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	if s.Namespaces.HostIPC {
		for _, d := range []string{"/dev/mqueue", "/dev/shm"} {
			if _, err := os.Stat(d); err == nil {
				out = append(out, specs.Mount{Destination: d, Type: "bind", Source: d, Options: []string{"bind", "nosuid", "noexec", "nodev"}})
			}
		}
	} else {
		out = append(out,
			specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}})
	}
	for _, m := range s.Mounts {
		sm, err := userMount(s, m, slices.Contains(p.Shifted, m.Source))
		if err != nil {
			return nil, err
		}
		// A mount of the user's replaces one of ours at the same place.
		out = slices.DeleteFunc(out, func(o specs.Mount) bool { return path.Clean(o.Destination) == path.Clean(m.Target) })
		out = append(out, sm)
	}
	// After them, or a volume at /etc would hide the engine's files, and after a
	// tmpfs at /run, to which an image's resolv.conf may be a link.
	for _, target := range sortedKeys(p.Files) {
		if !slices.ContainsFunc(s.Mounts, func(m workload.Mount) bool { return path.Clean(m.Target) == path.Clean(target) }) {
			out = append(out, specs.Mount{Destination: target, Type: "bind", Source: p.Files[target], Options: []string{"bind", "nosuid", "nodev", "noexec"}})
		}
	}
	return out, nil
}

// userMount translates m. If shifted, the source shows owners of the workload's
// range already.
func userMount(s workload.Spec, m workload.Mount, shifted bool) (specs.Mount, error) {
	if !path.IsAbs(m.Target) {
		return specs.Mount{}, fmt.Errorf("mount target %q is not absolute", m.Target)
	}
	if m.Type == "tmpfs" {
		mode := m.TmpfsMode
		if mode == 0 {
			mode = 0o1777
		}
		options := []string{"nosuid", "nodev", fmt.Sprintf("mode=%o", mode)}
		if m.TmpfsSize > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.TmpfsSize))
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: append(options, flags(m)...)}, nil
	}
	if m.Type != "bind" {
		return specs.Mount{}, fmt.Errorf("%w: mount type %q", workload.ErrUnsupported, m.Type)
	}
	options, idmap := []string{"bind"}, "idmap"
	if m.Recursive {
		options, idmap = []string{"rbind"}, "ridmap"
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	options = append(options, propagation, "nodev")
	if !s.Namespaces.HostUser && !shifted {
		options = append(options, idmap)
	}
	if m.Recursive {
		// The plain options are those of the topmost mount alone (mount_setattr(2),
		// AT_RECURSIVE): what is mounted below it on the host would keep its own.
		options = append(options, "rnodev")
		if m.ReadOnly {
			options = append(options, "rro")
		}
		if m.NoExec {
			options = append(options, "rnoexec")
		}
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: append(options, flags(m)...)}, nil
}

func flags(m workload.Mount) []string {
	var out []string
	if m.ReadOnly {
		out = append(out, "ro")
	}
	if m.NoExec {
		out = append(out, "noexec")
	}
	return out
}

// protectedPaths leaves out what the user wants to see.
func protectedPaths(unmask []string) (masked, readonly []string) {
	if slices.ContainsFunc(unmask, isAll) {
		return nil, nil
	}
	masked = slices.Clone(maskedPaths)
	found, _ := filepath.Glob(thermalThrottle) // the pattern is well-formed
	masked = append(masked, found...)
	open := func(p string) bool {
		return slices.ContainsFunc(unmask, func(u string) bool { return path.Clean(u) == p })
	}
	return slices.DeleteFunc(masked, open), slices.DeleteFunc(slices.Clone(readonlyPaths), open)
}

// filter chooses the seccomp filter. Notify turns its refusals into reports.
func filter(s workload.Security, c seccomp.Conditions) (*specs.LinuxSeccomp, error) {
	switch s.Seccomp {
	case "":
		return seccomp.Default(c)
	case "unconfined":
		return nil, nil
	}
	return seccomp.ParseProfile([]byte(s.Seccomp), c)
}

// addDevices makes host devices visible and allowed.
func addDevices(l *specs.Linux, devices []workload.Device) error {
	for _, d := range devices {
		var st unix.Stat_t
		if err := unix.Stat(d.Source, &st); err != nil {
			return fmt.Errorf("device: %w", &os.PathError{Op: "stat", Path: d.Source, Err: err})
		}
		kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
		if kind == "" {
			return fmt.Errorf("device %s: not a device node", d.Source)
		}
		major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		mode := os.FileMode(st.Mode & 0o777)
		target, access := d.Target, d.Permissions
		if target == "" {
			target = d.Source
		}
		if access == "" {
			access = "rwm"
		}
		l.Devices = append(l.Devices, specs.LinuxDevice{Path: target, Type: kind, Major: major, Minor: minor, FileMode: &mode})
		l.Resources.Devices = append(l.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access})
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
