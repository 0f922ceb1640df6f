package ocispec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxMappings is the kernel's bound on the lines of an ID map
// (user_namespaces(7)).
const maxMappings = 340

func checkLinux(s *specs.Spec) error {
	l := s.Linux
	if l == nil {
		return errors.New("linux: missing, a container without namespaces is not one")
	}
	checks := []func(*specs.Spec) error{
		checkNamespaces, checkUserNamespace, checkTimeOffsets, checkSysctls, checkPaths, checkDevices, checkSeccomp,
	}
	for _, check := range checks {
		if err := check(s); err != nil {
			return err
		}
	}
	if p := l.Personality; p != nil && p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
		return fmt.Errorf("linux.personality.domain: %q is neither LINUX nor LINUX32", p.Domain)
	}
	return validateResources("linux.resources", l.Resources)
}

func checkNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range s.Linux.Namespaces {
		at := fmt.Sprintf("linux.namespaces[%d]", i)
		switch ns.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return fmt.Errorf("%s.type: %q is no namespace", at, ns.Type)
		}
		if seen[ns.Type] {
			return fmt.Errorf("%s.type: %s is given twice", at, ns.Type)
		}
		seen[ns.Type] = true
		if ns.Path != "" && !path.IsAbs(ns.Path) {
			return fmt.Errorf("%s.path: %q is not an absolute path", at, ns.Path)
		}
	}
	return nil
}

// checkUserNamespace: a new user namespace needs both maps, any other has none.
func checkUserNamespace(s *specs.Spec) error {
	l := s.Linux
	if err := checkMappings("linux.uidMappings", l.UIDMappings); err != nil {
		return err
	}
	if err := checkMappings("linux.gidMappings", l.GIDMappings); err != nil {
		return err
	}
	user := namespace(s, specs.UserNamespace)
	given := len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0
	switch {
	case user == nil && given:
		return errors.New("linux.uidMappings: needs a user namespace")
	case user != nil && user.Path == "" && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0):
		return errors.New("linux.uidMappings: a new user namespace needs uidMappings and gidMappings")
	}
	return nil
}

func checkMappings(at string, list []specs.LinuxIDMapping) error {
	if len(list) > maxMappings {
		return fmt.Errorf("%s: more than %d entries", at, maxMappings)
	}
	for i, m := range list {
		if m.Size == 0 {
			return fmt.Errorf("%s[%d].size: must be more than 0", at, i)
		}
		const end = 1 << 32
		if uint64(m.ContainerID)+uint64(m.Size) > end || uint64(m.HostID)+uint64(m.Size) > end {
			return fmt.Errorf("%s[%d]: reaches beyond the largest ID", at, i)
		}
		for _, o := range list[:i] {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) || overlap(m.HostID, o.HostID, m.Size, o.Size) {
				return fmt.Errorf("%s[%d]: overlaps another entry", at, i)
			}
		}
	}
	return nil
}

func overlap(a, b, aSize, bSize uint32) bool {
	return uint64(a) < uint64(b)+uint64(bSize) && uint64(b) < uint64(a)+uint64(aSize)
}

func checkTimeOffsets(s *specs.Spec) error {
	offsets := s.Linux.TimeOffsets
	if len(offsets) == 0 {
		return nil
	}
	ns := namespace(s, specs.TimeNamespace)
	if ns == nil || ns.Path != "" {
		return errors.New("linux.timeOffsets: needs a new time namespace")
	}
	for clock, o := range offsets {
		if clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("linux.timeOffsets: %q is neither monotonic nor boottime", clock)
		}
		if o.Nanosecs >= 1_000_000_000 {
			return fmt.Errorf("linux.timeOffsets.%s.nanosecs: a second or more", clock)
		}
	}
	return nil
}

// ipcSysctls are the parameters of an IPC namespace outside fs.mqueue
// (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// checkSysctls lets through only parameters that belong to a namespace of the
// container: any other would change the host.
func checkSysctls(s *specs.Spec) error {
	for key := range s.Linux.Sysctl {
		at := "linux.sysctl." + key
		name, err := SysctlName(key)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		var needs specs.LinuxNamespaceType
		switch {
		case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
			needs = specs.IPCNamespace
		case strings.HasPrefix(name, "net."):
			needs = specs.NetworkNamespace
		case name == "kernel.domainname":
			needs = specs.UTSNamespace
		case name == "kernel.hostname":
			return fmt.Errorf("%s: use hostname", at)
		default:
			return fmt.Errorf("%s: belongs to no namespace, it would change the host", at)
		}
		if !hasNamespace(s, needs) {
			return fmt.Errorf("%s: needs a %s namespace of its own", at, needs)
		}
	}
	return nil
}

// SysctlName returns the dotted form of a parameter's name. As with sysctl(8),
// whichever of "." and "/" comes first separates the parts, and the other then
// stands for itself: net.ipv4.conf.eth0/1.forwarding is net/ipv4/conf/eth0.1/forwarding.
// The dotted form writes a dot inside a part as "/".
func SysctlName(key string) (string, error) {
	name := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		name = strings.NewReplacer("/", ".", ".", "/").Replace(key)
	}
	for _, part := range strings.Split(name, ".") {
		if part == "" || part == "/" || part == "//" {
			return "", errors.New("not the name of a kernel parameter")
		}
	}
	return name, nil
}

func checkPaths(s *specs.Spec) error {
	l := s.Linux
	for _, p := range []struct {
		property string
		list     []string
	}{{"linux.maskedPaths", l.MaskedPaths}, {"linux.readonlyPaths", l.ReadonlyPaths}} {
		for i, v := range p.list {
			if !path.IsAbs(v) {
				return fmt.Errorf("%s[%d]: %q is not an absolute path", p.property, i, v)
			}
		}
		if len(p.list) > 0 && !hasNamespace(s, specs.MountNamespace) {
			return fmt.Errorf("%s: needs a mount namespace of its own", p.property)
		}
	}
	switch l.RootfsPropagation {
	case "", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable":
		return nil
	}
	return fmt.Errorf("linux.rootfsPropagation: %q is no propagation", l.RootfsPropagation)
}

// checkSeccomp refuses notifications that nobody could ever answer: whoever
// answers them gets the listener from a process that the filter already holds,
// and that process has to write to say so.
func checkSeccomp(s *specs.Spec) error {
	f := s.Linux.Seccomp
	if f == nil {
		return nil
	}
	if f.DefaultAction == specs.ActNotify {
		return errors.New("linux.seccomp: SCMP_ACT_NOTIFY cannot be used as default action")
	}
	for _, c := range f.Syscalls {
		if c.Action == specs.ActNotify && slices.Contains(c.Names, "write") {
			return errors.New("linux.seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall")
		}
	}
	return nil
}

func checkDevices(s *specs.Spec) error {
	for i, d := range s.Linux.Devices {
		at := fmt.Sprintf("linux.devices[%d]", i)
		switch d.Type {
		case "b", "c", "u":
			if d.Major < 0 || d.Major > 0xfff || d.Minor < 0 || d.Minor > 0xfffff {
				return fmt.Errorf("%s: %d:%d is no device number", at, d.Major, d.Minor)
			}
		case "p":
		default:
			return fmt.Errorf("%s.type: %q is not one of c, b, u, p", at, d.Type)
		}
		if !path.IsAbs(d.Path) {
			return fmt.Errorf("%s.path: %q is not an absolute path", at, d.Path)
		}
	}
	return nil
}

// validateResources checks what would otherwise be passed over or reach the
// kernel as another number. What a machine cannot enforce is found where the
// cgroups are made.
func validateResources(at string, r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	for i, d := range r.Devices {
		switch d.Type {
		case "", "a", "b", "c":
		default:
			return fmt.Errorf("%s.devices[%d].type: %q is not one of a, b, c", at, i, d.Type)
		}
		if strings.Trim(d.Access, "rwm") != "" {
			return fmt.Errorf("%s.devices[%d].access: %q is not made of r, w, m", at, i, d.Access)
		}
	}
	if m := r.Memory; m != nil {
		for _, v := range []struct {
			name  string
			value *int64
		}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}} {
			if v.value != nil && *v.value < -1 {
				return fmt.Errorf("%s.memory.%s: %d is negative", at, v.name, *v.value)
			}
		}
	}
	for key := range r.Unified {
		if key == "" || strings.ContainsAny(key, "/") || strings.HasPrefix(key, "cgroup.") {
			return fmt.Errorf("%s.unified: %q is not a controller's file", at, key)
		}
	}
	return nil
}
