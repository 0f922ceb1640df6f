// Package boundary defines what the engine asks of whatever isolates a
// workload. The implementations live in the packages beneath and never import
// each other; boundarytest holds the suite that each must pass.
package boundary

import (
	"context"
	"io"
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary makes workloads of one kind.
type Boundary interface {
	// Name is the value of --boundary: "container", "gvisor", "vm" or "runtime".
	Name() string
	// Check reports whether this machine can run the boundary: nil, an error
	// wrapping workload.ErrUnsupported that names the missing thing, or any
	// other error when it could not tell.
	Check(ctx context.Context) error
	// Needs says what the engine must prepare for s.
	Needs(s workload.Spec) Needs
	// Create prepares the workload up to, not including, the first instruction
	// of its first process. On error nothing is left behind.
	Create(ctx context.Context, s workload.Spec, p Prepared) (Instance, error)
	// Open finds an instance that an earlier process created, to clean up after
	// it: only Signal and Delete need work on what it returns. If Create was
	// never called, the error wraps workload.ErrNotFound, or Delete does nothing.
	Open(ctx context.Context, id workload.ID, dir string) (Instance, error)
}

// Needs is what the engine must prepare before Create.
type Needs struct {
	Root RootKind
	// IDRange asks for a range of host IDs for a user namespace.
	IDRange bool
	// Network is the form in which the boundary takes network interfaces.
	Network NetworkKind
}

// NetworkKind is the form in which a boundary takes network interfaces.
type NetworkKind int

// The forms of network interfaces.
const (
	Namespace NetworkKind = iota // moved into a network namespace of the instance
	Tap                          // descriptors given to Create
)

// RootKind is the form in which a boundary takes its root file system.
type RootKind int

// The forms of a root file system.
const (
	Layers RootKind = iota // unpacked directories, to be stacked
	Disk                   // a disk image
)

// Prepared is what the engine made ready for one workload.
type Prepared struct {
	// Dir is the workload's run-time directory, mode 0700, for the boundary's own
	// state; it is gone after a reboot.
	Dir string
	// Layers are the unpacked layers, lowest first; Upper and Work are the
	// writable directories of the overlay, all absolute host paths. Image IDs
	// are stored unshifted in Layers.
	Layers      []string
	Upper, Work string
	// IDBase is the first host ID of the workload's range, IDCount its length.
	IDBase, IDCount uint32
	// Files are host files to appear inside (resolv.conf, hosts, hostname),
	// target path to host path.
	Files map[string]string
	// Cgroup is the workload's place below each hierarchy, such as
	// "/bulkhead/<id>".
	Cgroup string
	Stdio  Stdio
	// Init is the program that Spec.Init asks for, a host path.
	Init string
	// Machine is set where Needs.Root is Disk.
	Machine *Machine
	// NICs are the workload's network interfaces where Needs.Network is Tap, and
	// Taps the descriptors of their host's ends, of the same length and order: tap
	// devices, or stream sockets of frames (QEMU's -netdev socket) where NIC.Link is "".
	// They stay the caller's to close. A boundary whose Needs.Network is Namespace
	// gets neither: its instance is a NetNS, and the interfaces are moved there
	// between Create and Start.
	NICs []workload.NIC
	Taps []*os.File `json:"-"`
	// Shifted lists bind sources, by Mount.Source, whose files already show
	// owners of the workload's ID range, so that no ID-mapped mount is wanted.
	Shifted []string
	// Late makes a workload for nobody yet: its instance is an Adopter, and what an
	// Adoption says is not looked at in the specification.
	Late bool
	// Notice takes a line about the workload for its log, such as a system call
	// that was denied; nil drops it. It may be called from any goroutine.
	Notice func(line string) `json:"-"`
}

// GuestIDs is the Machine.GuestIDs of new workloads: the same in each guest, so
// that what one has made in its guest is good for another.
const GuestIDs = 1 << 30

// Machine is what a virtual machine is made from. All paths are absolute.
type Machine struct {
	// Image is the root file system as a read-only EROFS image, Data a writable
	// disk, an ext4 file system that holds what the workload writes.
	Image, Data string
	// Blank is what Data was when it was made, in the words of sys.Identity: while
	// it is that, nothing was ever written to it.
	Blank string `json:",omitempty"`
	// GuestIDs is the first ID of the workload's range in a guest of its own,
	// which need not be what it is on the host; 0 stands for Prepared.IDBase.
	GuestIDs uint32 `json:",omitempty"`
	// Kernel is an uncompressed kernel image, Initramfs what it starts with.
	Kernel, Initramfs string
	// Modules is the directory of the kernel's modules, as /lib/modules/RELEASE
	// has them, and Release the kernel's; for a whole system. Modules is "" where
	// all is built in.
	Modules, Release string
	// MMIO tells that the kernel finds virtio devices that its command line
	// names, so that a machine without PCI and ACPI will do.
	MMIO bool
	// Accel is what executes the guest's instructions, "kvm" or "tcg"; it is
	// chosen anew at each start.
	Accel string
	// TSC is how often the host's time stamp counter counts in a millisecond (kHz),
	// for a machine that is emulated; 0 where that is not known.
	TSC int `json:",omitempty"`
	// Templates is the directory of saved machines that this one may go on from;
	// "" boots it.
	Templates string
	// FileServer is the program that serves volumes to the guest.
	FileServer string
	// Socket is where the supervisor of the tenant's machine listens; empty for
	// a workload that gets a machine of its own.
	Socket string
}

// Stdio holds the standard streams of a process without a terminal. A nil file
// is /dev/null. They stay the caller's to close.
type Stdio struct{ In, Out, Err *os.File }

// Instance is one workload behind its boundary. The Process embedded in it is
// the workload's first process.
type Instance interface {
	Process
	// Start lets the first process run. The error wraps
	// workload.ErrCommandNotFound or ErrNotExecutable when it cannot be.
	Start(ctx context.Context) error
	// Exec runs another process inside.
	Exec(ctx context.Context, p workload.Process, io Stdio) (Process, error)
	// Delete ends every process of the workload and removes all that Create
	// made. It may be called in any state, and again.
	Delete(ctx context.Context) error
}

// Process is a process behind a boundary.
type Process interface {
	// Wait returns when the process has ended; every call returns the same.
	Wait(ctx context.Context) (workload.Exit, error)
	Signal(ctx context.Context, sig syscall.Signal) error
	// Terminal is the process's terminal, nil if it has none.
	Terminal() Terminal
	// PID is the process's ID on the host, 0 where that has no meaning.
	PID() int
}

// Group is a Process that Exec made and that leads a process group: what it
// starts, and does not move elsewhere, is in it.
type Group interface {
	// SignalGroup signals every process of the group, also when the first of them
	// is about to end.
	SignalGroup(ctx context.Context, sig syscall.Signal) error
}

// Terminal is the side of a terminal that a person sits at.
type Terminal interface {
	io.ReadWriteCloser
	Resize(rows, cols uint16) error
}

// Adoption is whose a workload of Prepared.Late is.
type Adoption struct {
	ID        workload.ID
	Hostname  string
	Args, Env []string
}

// Adopter, Pauser, Lister, Describer, NetNS, Wired, Rewirer, Updater, Measurer, Files, Host and Keeper are abilities that an
// Instance may have, Warmer and Explainer of a Boundary. Whoever wants one asks by type
// assertion.
type (
	// Adopter is what Prepared.Late makes.
	Adopter interface {
		// Adopt is called once, before Start. The errors are those of Create about the
		// program to run.
		Adopt(ctx context.Context, a Adoption) error
	}
	// Pauser stops and continues all processes of a workload. A Pause that failed may
	// have stopped some: whoever asked for it calls Resume, which may refuse if it
	// has not.
	Pauser interface {
		Pause(ctx context.Context) error
		Resume(ctx context.Context) error
	}
	// Lister lists the processes of a workload by their ID on the host.
	Lister interface {
		Processes(ctx context.Context) ([]int, error)
	}
	// Describer describes the processes of a workload, as it sees them itself.
	Describer interface {
		Describe(ctx context.Context) ([]workload.ProcessInfo, error)
	}
	// NetNS has a network namespace of its own on the host.
	NetNS interface {
		// NetNS opens it; from Create until the first process has ended.
		NetNS() (*os.File, error)
	}
	// Wired is a NetNS that takes what is in the namespace at Start, once and for all.
	Wired interface {
		Wired()
	}
	// Rewirer changes the network interfaces of a workload that runs, where
	// Needs.Network is Tap.
	Rewirer interface {
		Rewire(ctx context.Context, w Rewiring) error
	}
	// Updater changes the limits of a workload that runs. A field of r that is nil
	// or zero stays as it is. After an error some of r may be in force.
	Updater interface {
		Update(ctx context.Context, r workload.Resources) error
	}
	// Measurer tells what a workload uses.
	Measurer interface {
		Measure(ctx context.Context) (workload.Usage, error)
	}
	// Files reads and writes the workload's file system, as seen inside: a path is
	// resolved below the workload's root whatever the workload does meanwhile, and
	// owners are the workload's own. Both work from Create until Delete.
	Files interface {
		// ReadArchive writes path, a file or a whole directory, as a tar stream
		// whose names begin with path's last element ("." for a path that ends in
		// "/.").
		ReadArchive(ctx context.Context, path string, o ReadOptions, w io.Writer) error
		// WriteArchive unpacks a tar stream below the existing directory dir.
		WriteArchive(ctx context.Context, dir string, o ArchiveOptions, r io.Reader) error
		// StatPath describes path without following a link at its end.
		StatPath(ctx context.Context, path string) (workload.PathStat, error)
		// Changes lists what differs from the image, in the order of paths.
		Changes(ctx context.Context) ([]workload.Change, error)
	}
	// Host is a machine that the instances of other workloads run in: a
	// tenant's.
	Host interface {
		// Dial opens a stream to the guest's agent.
		Dial(ctx context.Context) (io.ReadWriteCloser, error)
		// Insert shows the guest an image as a disk and returns the disk's serial
		// number. The guest keeps it until release is called.
		Insert(ctx context.Context, image string) (serial string, release func(), err error)
		// Plug connects a network device of the guest, which nobody uses, with one of
		// Prepared.Taps: a tap device, or a stream socket. It returns the MAC address
		// that the device has by itself. It is free again when release is called.
		Plug(ctx context.Context, tap *os.File, stream bool) (device string, release func(), err error)
	}
	// Keeper is asked to Keep what a workload of Spec.AutoRemove wrote, in spite of
	// Delete: another instance with the same Prepared follows.
	Keeper interface {
		Keep()
	}
	// Warmer makes what a later Create goes on from.
	Warmer interface {
		// Warm makes all of a workload but what is one's own: s and p are like those of
		// Create, without names, program, streams and interfaces; p.Dir and p.Cgroup are
		// its own, and p.Machine.Data names the directory that the disk belongs into,
		// by any file in it. key stands for what a workload must have in common with it.
		// Open finds it by p.Dir, as it finds an instance.
		Warm(ctx context.Context, s workload.Spec, p Prepared, key string) (Warm, error)
	}
	// Explainer prints what Create would do.
	Explainer interface {
		Explain(s workload.Spec, p Prepared, w io.Writer) error
	}
)

// Warm is what a Warmer made, and waits for a workload.
type Warm interface {
	// Boundary is one whose first Create takes what waits, if it can: its Prepared
	// has the Cgroup, IDBase and IDCount that Warm got. Where it cannot, it makes the
	// workload as any.
	Boundary() Boundary
	// Done is closed when what waits has ended by itself.
	Done() <-chan struct{}
	// Discard ends what waits, and removes what was made for it, unless Create took it.
	Discard(ctx context.Context) error
}

// Rewiring is what becomes different of a workload's network interfaces. With an
// error, those of Add are gone again, as far as the guest lets go of them.
type Rewiring struct {
	// Add are new interfaces and Taps their descriptors, as in Prepared.
	Add  []workload.NIC
	Taps []*os.File
	// Remove are interfaces that go, known by Name.
	Remove []workload.NIC
	// Route are interfaces that stay; their Gateways take the place of the default
	// routes that there were.
	Route []workload.NIC
	// Files are what becomes of Prepared.Files, by path inside.
	Files map[string]workload.FileEdit
}

// ReadOptions say what of a workload's files is read.
type ReadOptions struct {
	// Follow follows a link at the end of the path.
	Follow bool `json:"follow,omitempty"`
	// OneFileSystem leaves out what is mounted below the path: an empty directory
	// or file stands in its place.
	OneFileSystem bool `json:"oneFileSystem,omitempty"`
}

// ArchiveOptions say how an archive is unpacked into a workload.
type ArchiveOptions struct {
	// Owners keeps the owners that the archive names; otherwise all belongs to the
	// workload's root.
	Owners bool `json:"owners,omitempty"`
	// NoOverwriteDir refuses to replace a directory by something else, or something
	// else by a directory.
	NoOverwriteDir bool `json:"noOverwriteDir,omitempty"`
}
