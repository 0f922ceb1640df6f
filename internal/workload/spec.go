package workload

import "time"

// Spec is everything that was asked of a workload. It is written to disk
// before anything is made, and never changed by what happens later.
type Spec struct {
	ID       ID                `json:"id"`
	Name     string            `json:"name"`
	Created  time.Time         `json:"created"`
	Boundary string            `json:"boundary"` // "container", "gvisor", "vm", "runtime"
	Image    Image             `json:"image"`
	Process  Process           `json:"process"`
	Hostname string            `json:"hostname,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`

	ReadOnlyRoot bool `json:"readOnlyRoot,omitempty"`
	Init         bool `json:"init,omitempty"` // a reaping first process of ours above Process
	// Network is NetworkNone, NetworkHost, NetworkBridge or NetworkUser; with
	// NetworkBridge, Networks says which.
	Network  string       `json:"network"`
	Networks []Attachment `json:"networks,omitempty"`
	Ports    []Port       `json:"ports,omitempty"`
	// Exposed are ports such as "80/tcp" that the image or --expose says the
	// workload serves; for listings only.
	Exposed    []string    `json:"exposed,omitempty"`
	DNS        DNS         `json:"dns,omitzero"`
	ExtraHosts []HostEntry `json:"extraHosts,omitempty"`
	Namespaces Namespaces  `json:"namespaces"`
	Mounts     []Mount     `json:"mounts,omitempty"`
	Devices    []Device    `json:"devices,omitempty"`
	Resources  Resources   `json:"resources"`
	Security   Security    `json:"security"`
	// Runtime is the OCI runtime that makes it, for Boundary "runtime" only.
	Runtime Runtime `json:"runtime,omitzero"`
	VM      VM      `json:"vm,omitzero"` // for Boundary "vm" only

	StopSignal  string        `json:"stopSignal,omitempty"` // name such as "SIGTERM"; default SIGTERM
	StopTimeout time.Duration `json:"stopTimeout"`          // between StopSignal and SIGKILL; negative waits without end
	Restart     Restart       `json:"restart,omitzero"`
	Health      Health        `json:"health,omitzero"`
	Log         Log           `json:"log,omitzero"`
	AutoRemove  bool          `json:"autoRemove,omitempty"`
	KeepStdin   bool          `json:"keepStdin,omitempty"` // -i: a stdin that clients can attach to
}

// BoundaryRuntime is the boundary of workloads that a registered runtime makes.
const BoundaryRuntime = "runtime"

// Runtime is a registered OCI runtime.
type Runtime struct {
	Name string `json:"name"`
	Path string `json:"path"` // of the program, absolute
}

// Image names what the workload was made from.
type Image struct {
	Reference string `json:"reference"` // as the user gave it, normalized
	Digest    string `json:"digest"`    // of the image's manifest
}

// Layers is an image unpacked.
type Layers struct {
	Dirs []string // absolute host paths, lowest first
	// MaxID is the largest user or group ID that owns a file in them.
	MaxID uint32
}

// Disk is an image as one read-only disk image.
type Disk struct {
	Path string // absolute host path
	// MaxID is the largest user or group ID that owns a file in it.
	MaxID uint32
}

// Process describes one process, the workload's first or an executed one.
type Process struct {
	Args     []string `json:"args"`
	Env      []string `json:"env,omitempty"` // NAME=value, complete: nothing is added later
	Cwd      string   `json:"cwd"`           // absolute
	User     string   `json:"user,omitempty"`
	Terminal bool     `json:"terminal,omitempty"`
	Rows     uint16   `json:"rows,omitempty"` // first size of the terminal, 0 for the default
	Cols     uint16   `json:"cols,omitempty"`
	Rlimits  []Rlimit `json:"rlimits,omitempty"`
	Groups   []uint32 `json:"groups,omitempty"` // supplementary, in addition to those of User
}

// Rlimit is one resource limit of setrlimit(2).
type Rlimit struct {
	Type string `json:"type"` // "RLIMIT_NOFILE", …
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Namespaces says which namespaces are not the workload's own. The zero value
// is full isolation.
type Namespaces struct {
	HostUser bool `json:"hostUser,omitempty"`
	HostPID  bool `json:"hostPID,omitempty"`
	HostIPC  bool `json:"hostIPC,omitempty"`
	HostUTS  bool `json:"hostUTS,omitempty"`
}

// Mount is a file system that the user asked for inside the workload.
type Mount struct {
	Type string `json:"type"` // "bind", "volume" or "tmpfs"
	// Source is an absolute host path for bind, a volume's name for volume, where
	// empty asks for an anonymous one. The engine turns "volume" into "bind"
	// before a boundary sees it.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"` // absolute path inside
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Propagation is "private", "rprivate", "slave", "rslave", "shared" or
	// "rshared"; empty means rprivate.
	Propagation string `json:"propagation,omitempty"`
	Recursive   bool   `json:"recursive,omitempty"` // rbind
	TmpfsSize   int64  `json:"tmpfsSize,omitempty"` // bytes; 0 is the kernel's default
	TmpfsMode   uint32 `json:"tmpfsMode,omitempty"` // permission bits; 0 is 01777
	NoExec      bool   `json:"noexec,omitempty"`
	// CreateSource makes a missing bind source directory (the -v syntax);
	// without it a missing source is an error (--mount).
	CreateSource bool `json:"createSource,omitempty"`
	// Anonymous tells that the engine chose the volume's name: it goes with the
	// last workload that has it so.
	Anonymous bool `json:"anonymous,omitempty"`
	// NoCopy leaves a fresh volume empty; otherwise it gets what the image has at
	// Target.
	NoCopy bool `json:"noCopy,omitempty"`
}

// Device is a host device node made visible inside.
type Device struct {
	Source      string `json:"source"`
	Target      string `json:"target"`
	Permissions string `json:"permissions"` // of "rwm"
}

// Resources are limits; a nil or zero field is no limit of its own.
type Resources struct {
	Memory            *int64      `json:"memory,omitempty"`            // bytes
	MemorySwap        *int64      `json:"memorySwap,omitempty"`        // bytes, memory plus swap; -1 unlimited
	MemoryReservation *int64      `json:"memoryReservation,omitempty"` // bytes
	CPUs              float64     `json:"cpus,omitempty"`              // 1.5 is one and a half processors
	CPUWeight         uint64      `json:"cpuShares,omitempty"`         // Docker's --cpu-shares, 2 to 262144
	CpusetCPUs        string      `json:"cpusetCPUs,omitempty"`        // cpuset(7) list format
	CpusetMems        string      `json:"cpusetMems,omitempty"`
	Pids              *int64      `json:"pids,omitempty"`     // -1 unlimited
	IOWeight          uint16      `json:"ioWeight,omitempty"` // Docker's --blkio-weight, 10 to 1000
	IOLimits          []IOLimit   `json:"ioLimits,omitempty"`
	OOMScoreAdj       *int        `json:"oomScoreAdj,omitempty"` // -1000 to 1000
	ShmSize           int64       `json:"shmSize,omitempty"`     // bytes of /dev/shm
	Unified           []UnifiedKV `json:"-"`
}

// UnifiedKV is one raw cgroup v2 setting.
type UnifiedKV struct{ Key, Value string }

// IOLimit throttles one block device.
type IOLimit struct {
	Device    string `json:"device"` // host path
	ReadBPS   uint64 `json:"readBPS,omitempty"`
	WriteBPS  uint64 `json:"writeBPS,omitempty"`
	ReadIOPS  uint64 `json:"readIOPS,omitempty"`
	WriteIOPS uint64 `json:"writeIOPS,omitempty"`
}

// VM is what only a workload with a kernel of its own can be asked for.
type VM struct {
	// Kernel is the name of a kernel in the store or the absolute path of a
	// kernel image; empty means the store's default.
	Kernel string `json:"kernel,omitempty"`
	// Accel is "kvm" or "tcg"; empty means the best that works.
	Accel string `json:"accel,omitempty"`
	// Disk is the size of the writable disk in bytes, 0 for the default.
	Disk int64 `json:"disk,omitempty"`
	// Tenant is the name of the tenant in whose machine the workload runs; empty
	// for a machine of its own.
	Tenant string `json:"tenant,omitempty"`
	// System boots the image's own init system as the guest's first process.
	System bool `json:"system,omitempty"`
	// Machine is set for a tenant's machine itself: it has no image and no
	// process, and ends when it is stopped.
	Machine bool `json:"machine,omitempty"`
	// NoTemplate boots the machine at each start, where otherwise it goes on from
	// one that has booted and was saved.
	NoTemplate bool `json:"noTemplate,omitempty"`
}

// Security holds what widens or narrows the default confinement.
type Security struct {
	CapAdd  []string `json:"capAdd,omitempty"`
	CapDrop []string `json:"capDrop,omitempty"`
	// Seccomp is "" for the default profile, "unconfined", or the JSON text of
	// a profile in the format of Docker's profiles.
	Seccomp string `json:"seccomp,omitempty"`
	// SeccompReport names denied system calls in the workload's log.
	SeccompReport bool   `json:"seccompReport,omitempty"`
	AppArmor      string `json:"appArmor,omitempty"` // "" default, "unconfined", or a profile's name
	// NewPrivileges allows execve to gain privileges (no_new_privs off).
	NewPrivileges bool `json:"newPrivileges,omitempty"`
	// Unmask lists masked or read-only paths to leave as they are; "ALL".
	Unmask []string `json:"unmask,omitempty"`
	// Sysctls are namespaced kernel parameters.
	Sysctls map[string]string `json:"sysctls,omitempty"`
}
