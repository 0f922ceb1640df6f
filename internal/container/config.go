package container

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

// Config is what Create needs.
type Config struct {
	// ID names the container; it shows in its session keyring's name.
	ID string
	// Dir is a directory of the container's own, mode 0700, for its FIFOs and
	// the place where its root is put together. It must exist.
	Dir string
	// Bundle is the directory that a relative root path refers to.
	Bundle string
	// Spec says what to make. It is not changed.
	Spec *specs.Spec
	// Layers, when set, is the root file system instead of Spec.Root.Path.
	Layers *Layers
	// User, when set, replaces Spec.Process.User: a name or number, with an
	// optional group after a colon, looked up in the root's own /etc/passwd and
	// /etc/group. Supplementary groups of the user are added.
	User string
	// Cgroup is the container's cgroup, prepared by the caller; nil leaves the
	// container in the caller's.
	Cgroup *cgroup.Manager
	// Stdio are the standard streams where there is no terminal; nil is
	// /dev/null. They stay the caller's.
	Stdio [3]*os.File
	// PreserveFDs is how many descriptors from 3 on stay open (LISTEN_FDS).
	PreserveFDs int
	// KillWithParent sends SIGKILL to the first process when the calling
	// process dies. A help, not a guarantee: the workload can clear it.
	KillWithParent bool
	// NoNewKeyring leaves the container in the caller's session keyring.
	NoNewKeyring bool
	// MadeDirs are sources of bind mounts that the caller makes before it starts the
	// container: WriteProgram takes one that is missing for an empty directory.
	MadeDirs []string
	// Detached is for a caller that ends before the container does.
	Detached bool
	// Late leaves the program to SetProgram: arguments and environment of
	// Spec.Process are not looked at.
	Late bool
	// Hooks runs the spec's hooks of one stage; nil when there are none.
	Hooks func(stage HookStage, pid int) error
	// ReportDenied, when set, is told of system calls that the filter denied. It
	// runs in a goroutine of its own until the last process of the filter ends.
	ReportDenied func(seccomp.Denied)
	// Listener takes over the listener of a seccomp filter with SCMP_ACT_NOTIFY
	// (seccomp_unotify(2)) before the container's program starts.
	Listener func(fd *os.File, pid int) error
}

// Layers are the directories of an overlay root file system.
type Layers struct {
	// Lower are the read-only layers, lowest first, with their owners as in the
	// image. They share one parent directory.
	Lower []string
	// Upper and Work are the writable layer and overlay's work directory, on one
	// file system, owned by root inside.
	Upper, Work string
	// Volatile skips writing the upper layer back when the root is unmounted,
	// which takes milliseconds. After a crash of the machine its contents are
	// undefined, so it is for workloads that are removed when they end.
	Volatile bool
}

// HookStage is a moment at which hooks run.
type HookStage int

// The moments within Create, runtime-spec config.md#posix-platform-hooks.
const (
	CreateRuntime   HookStage = iota // prestart and createRuntime
	CreateContainer                  // before pivot_root, in the container's namespaces
)
