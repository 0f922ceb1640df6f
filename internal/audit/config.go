// Package audit judges configurations: what a workload's own words, or those of
// another engine's container, leave open between it and the host.
//
//	a record of ours ─┐
//	docker inspect   ─┤          rules             report.Report
//	podman inspect   ─┼▶ Config ──────▶ findings ─────────────────▶ terminal, JSON
//	config.json      ─┘    ▲
//	                Facts ─┘ what a configuration does not say: the engine's defaults
//
// A parser turns one kind of text into a Config, in which everything is either said,
// with the place where it is, or not said. A rule looks at a Config and never at the
// text. What is not said is unknown, and unknown is never a pass.
//
// How much an open door matters is its consequence on a shared kernel, weighed by
// the boundary: a privileged container in a tenant's machine loses a line of defence
// and not the host.
//
// All is pure: nothing here looks at the machine but what it is given.
package audit

import (
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Kind is whose words a configuration is written in.
type Kind string

// The kinds of configurations.
const (
	Bulkhead Kind = "bulkhead" // a workload of ours
	Docker   Kind = "docker"   // docker inspect
	Podman   Kind = "podman"   // podman inspect
	OCI      Kind = "oci"      // config.json of the OCI runtime specification
)

// Kinds are all of them.
var Kinds = []Kind{Bulkhead, Docker, Podman, OCI}

// Boundary is what lies between a workload and the host's kernel.
type Boundary int

// The boundaries. Where nothing is said the host's kernel is taken to be shared:
// that is the worst.
const (
	SharedKernel Boundary = iota // the host's kernel serves the workload
	UserKernel                   // a kernel that is a process, gVisor's
	TenantVM                     // the kernel of a machine that several workloads share
	OwnVM                        // the kernel of a machine of its own
)

func (b Boundary) String() string {
	return [...]string{"container", "gvisor", "tenant", "vm"}[b]
}

// machine reports whether a virtual machine is around the workload.
func (b Boundary) machine() bool { return b == TenantVM || b == OwnVM }

// Said is one statement of a configuration. The zero value is that it says nothing.
type Said[T any] struct {
	Value T
	Known bool
	// From is where it is written, or what lets it be known.
	From []report.Evidence
	// Why says why it is not known, if there is a better reason than silence.
	Why string
}

func said[T any](v T, from ...report.Evidence) Said[T] {
	return Said[T]{Value: v, Known: true, From: from}
}

func unsaid[T any](why string, from ...report.Evidence) Said[T] {
	return Said[T]{Why: why, From: from}
}

// Namespace is whose a namespace is.
type Namespace struct {
	Host bool
	// Of names the other container whose it is, or the path that it is found at.
	Of string
}

// Filter is what is filtered of system calls.
type Filter struct {
	// Off tells that every call passes.
	Off bool
	// Name describes it: "the engine's default". Without one it may be "".
	Name string
	// Families are those of socketFamilies that a program can make sockets of.
	Families Said[[]string]
}

// Mount is a directory or file of the host inside the workload.
type Mount struct {
	Source, Target   string
	ReadOnly, Shared bool
	From             report.Evidence
}

// KernelMount is a mount of procfs or sysfs.
type KernelMount struct {
	Usual    string // where it usually is, /proc or /sys
	Target   string
	ReadOnly bool
	From     report.Evidence
}

// Device is a device of the host inside the workload.
type Device struct {
	Path  string // on the host, or inside where that is not said
	Block bool   // known to be a block device
	From  report.Evidence
}

// Port is one that the host publishes.
type Port struct {
	// Host is the host's address, "" for all.
	Host, Port string
	From       report.Evidence
}

// Sysctl is one kernel parameter that is set.
type Sysctl struct {
	Name, Value string
	From        report.Evidence
}

// Limit is how much of something a workload may use. "" is no limit.
type Limit string

// Config is what is known of one workload.
type Config struct {
	Kind Kind
	// Name, Image and Command describe it. Target is how the command line names it, or
	// the file in which it is; Label is what a report calls it, where that differs.
	Name, Image, Command, Target, Label string

	Boundary Boundary
	// BoundaryFrom is what says so, Guess why it may be another.
	BoundaryFrom report.Evidence
	Guess        string
	// OurSandbox tells that gVisor is set up by Bulkhead, without options of others.
	OurSandbox bool
	// Emulated tells that the machine's processor is a program.
	Emulated Said[bool]
	// Monitor is how the process that is the machine is confined.
	Monitor Said[Monitor]

	Privileged      Said[bool]
	Caps            Said[[]string] // the bounding set
	Ambient         []string
	NoNewPrivileges Said[bool]
	// Root tells that the first process begins as user 0, User what is written.
	Root Said[bool]
	User string

	PID, Net, IPC, UTS Said[Namespace]
	// UserNS is Host also where a namespace of its own maps the host's root.
	UserNS Said[Namespace]

	Seccomp Said[Filter]
	// LSM is the profile of AppArmor or the label of SELinux, "" for none.
	LSM Said[string]
	// Masked and ReadOnly are the paths that are hidden and protected. Writable are
	// mounts of sysfs that are not read-only.
	Masked, ReadOnly Said[[]string]
	Writable         []report.Evidence
	// Cgroups are mounts of cgroups that are not read-only.
	Cgroups []report.Evidence
	// Kernel are mounts of procfs and sysfs beside those at /proc and /sys.
	Kernel []KernelMount

	Sysctls Said[[]Sysctl]
	Mounts  Said[[]Mount]
	// SharedRoot is where it says that mounts made in the root appear on the host.
	SharedRoot []report.Evidence
	Devices    Said[[]Device]
	// DeviceRules are rules that let a workload use any device, a disk or memory.
	DeviceRules Said[[]string]

	Memory, CPU, PIDs Said[Limit]
	ReadOnlyRoot      Said[bool]
	Ports             Said[[]Port]
}

// Monitor is what confines the process that runs a virtual machine.
type Monitor struct {
	Root     bool // it is the host's root
	Filtered bool // its system calls are
	Jailed   bool // it has a root directory of its own
	// SharedUser names the other machine whose monitor has the same user.
	SharedUser string
}

// confined reports whether the workload's root is not the host's.
func (c *Config) confined() bool {
	return c.UserNS.Known && !c.UserNS.Value.Host && c.UserNS.Value.Of == ""
}

// reachable returns the capabilities that some program of the workload can come to
// hold. One that is not root has only ambient ones after execve(2), unless it may
// gain others from a file (capabilities(7), "Transformation of capabilities").
func (c *Config) reachable() []string {
	if c.Root.Known && !c.Root.Value && c.NoNewPrivileges.Known && c.NoNewPrivileges.Value {
		return c.Ambient
	}
	return c.Caps.Value
}

// noCaps says why capabilities that are written down are out of reach, "" if they
// are not.
func (c *Config) noCaps() string {
	if c.Caps.Known && len(c.Caps.Value) > 0 && len(c.reachable()) == 0 {
		return "out of reach of a user other than root with no_new_privs"
	}
	return ""
}

// capName is the kernel's name of a capability, however it is written.
func capName(s string) string {
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "CAP_") {
		s = "CAP_" + s
	}
	return s
}
