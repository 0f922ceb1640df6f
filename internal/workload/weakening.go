package workload

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Weakening is one way in which a workload is less confined than by default.
type Weakening struct {
	// Flag is the option that asks for it, as on the command line.
	Flag string `json:"flag"`
	// What is different, and Why it matters: half a sentence each.
	What string `json:"what"`
	Why  string `json:"why"`
}

// String is the line that listings show: "--pid host: sees every process …".
func (w Weakening) String() string { return w.Flag + ": " + w.What + "; " + w.Why }

// DefaultCapabilities are those that a workload's first process has when
// nothing is asked: Podman's default.
var DefaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Weakenings lists every way in which s asks for less isolation than the
// default, in a fixed order. Nothing that makes a workload stricter is listed.
func (s Spec) Weakenings() []Weakening {
	var out []Weakening
	add := func(flag, what, why string) { out = append(out, Weakening{flag, what, why}) }
	s.namespaceWeakenings(add)
	s.Security.weakenings(add)
	for _, d := range s.Devices {
		add("--device "+d.Source, "can use the host's device "+d.Source+" ("+d.Permissions+")",
			"a driver in the host's kernel, and what the device holds, is within reach")
	}
	for _, m := range s.Mounts {
		m.weakenings(add)
	}
	s.Resources.weakenings(add)
	return out
}

func (s Spec) namespaceWeakenings(add func(flag, what, why string)) {
	if s.Namespaces.HostUser {
		add("--userns host", "root inside is root on the host",
			"whoever breaks out, or reaches a host file, does so as the host's root")
	}
	if s.Namespaces.HostPID {
		add("--pid host", "sees every process of the host",
			"command lines, environments and signals of others are within reach")
	}
	if s.Namespaces.HostIPC {
		add("--ipc host", "shares the host's System V and POSIX shared memory",
			"memory of other programs can be read and written")
	}
	if s.Namespaces.HostUTS {
		add("--uts host", "shares the host's name", "the host's name can be seen, and changed with CAP_SYS_ADMIN")
	}
	if s.Network == "host" {
		add("--network host", "uses the host's network directly",
			"services on loopback and abstract sockets of the host are within reach")
	}
}

func (s Security) weakenings(add func(flag, what, why string)) {
	for _, c := range s.CapAdd {
		if c == "ALL" {
			add("--cap-add ALL", "holds every capability", "most kernel interfaces for administrators are open")
		} else if !slices.Contains(DefaultCapabilities, c) {
			add("--cap-add "+c, "holds "+c, capabilityRisk(c))
		}
	}
	switch s.Seccomp {
	case "":
	case "unconfined":
		add("--security-opt seccomp=unconfined", "may try every system call", "the whole of the kernel can be attacked")
	default:
		add("--security-opt seccomp=FILE", "has a system call filter of its own", "it may allow more than the default does")
	}
	switch s.AppArmor {
	case "":
	case "unconfined":
		add("--security-opt apparmor=unconfined", "runs without an AppArmor profile", "a second line of defence is missing")
	default:
		add("--security-opt apparmor="+s.AppArmor, "has an AppArmor profile of its own", "it may allow more than the default does")
	}
	if s.NewPrivileges {
		add("--security-opt no-new-privileges=false", "programs may gain privileges when executed",
			"a setuid program in the image can be a step upwards")
	}
	for _, p := range s.Unmask {
		what := p + " is not masked"
		if p == "ALL" {
			what = "nothing below /proc and /sys is masked or read-only"
		}
		add("--security-opt unmask="+p, what, "kernel settings or secrets of the host may be readable or writable")
	}
}

// capabilityRisk says what a capability opens, for those that matter most.
func capabilityRisk(name string) string {
	switch name {
	case "CAP_SYS_ADMIN":
		return "it opens mounts, namespaces and hundreds of other kernel interfaces"
	case "CAP_SYS_MODULE":
		return "with the host's user namespace it loads code into the kernel"
	case "CAP_SYS_PTRACE":
		return "it reads and changes the memory of other processes it can see"
	case "CAP_SYS_RAWIO", "CAP_BPF", "CAP_PERFMON":
		return "with the host's user namespace it reaches the kernel's memory"
	case "CAP_DAC_READ_SEARCH":
		return "with the host's user namespace it opens files of the host by handle"
	case "CAP_NET_RAW":
		return "it forges packets of others on the same network"
	case "CAP_NET_ADMIN":
		return "it opens the kernel's network configuration, a rich source of kernel bugs"
	case "CAP_MKNOD":
		return "it makes device files"
	}
	return "it is not among the default capabilities"
}

// controlSockets are sockets whose owner can start anything on the host.
var controlSockets = []string{"docker.sock", "containerd.sock", "crio.sock", "podman.sock", "libvirt-sock"}

// hostTrees are directories whose content makes or breaks the host.
var hostTrees = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
	"/var", "/var/lib", "/var/run",
}

func (m Mount) weakenings(add func(flag, what, why string)) {
	if m.Type != "bind" {
		return
	}
	flag := "--volume " + m.Source + ":" + m.Target
	source := path.Clean(m.Source)
	state := strings.HasPrefix(source, "/run/bulkhead") || strings.HasPrefix(source, "/var/lib/bulkhead")
	switch {
	case slices.Contains(controlSockets, path.Base(source)) || state:
		add(flag, "reaches a container engine of the host", "whoever can ask an engine can do anything on the host")
	case slices.Contains(hostTrees, source) || under(source, "/proc") || under(source, "/sys") || under(source, "/etc") || under(source, "/dev"):
		how := "can change"
		if m.ReadOnly {
			how = "can read"
		}
		add(flag, how+" "+source+" of the host", "it holds what the host runs on, and its secrets")
	}
	if m.Propagation != "" && strings.HasSuffix(m.Propagation, "shared") {
		add(flag, "mounts made inside appear on the host", "a mount can cover the host's files")
	}
}

// under reports whether p lies below dir.
func under(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }

func (r Resources) weakenings(add func(flag, what, why string)) {
	if r.Pids != nil && *r.Pids < 0 {
		add("--pids-limit -1", "may start any number of processes", "a fork bomb takes the host down")
	}
	if r.OOMScoreAdj != nil && *r.OOMScoreAdj < 0 {
		add(fmt.Sprintf("--oom-score-adj %d", *r.OOMScoreAdj), "is spared when memory runs out", "the kernel kills the host's own processes first")
	}
}
