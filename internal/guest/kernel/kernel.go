// Package kernel keeps the kernels that guests boot, and prepares what a
// machine is started from: an uncompressed kernel image, entered through PVH,
// and an initramfs that holds the guest's agent and the modules it needs.
//
//	name or path ── Resolve ──> vmlinux + initramfs
//	                   │
//	                   ├─ "" : the default; Debian's own kernel package, fetched once
//	                   ├─ NAME: what Add stored
//	                   └─ /PATH: any image, unpacked into a cache if compressed
//
// The store lies in kernels below the state root:
//
//	lock              held for a few file operations, never while data moves
//	fetch.lock        held by the one command that fetches the default
//	make.lock         held by the one command that makes an initramfs
//	default           the name that "" stands for
//	store/NAME        leads to .ID
//	store/.ID/        kernel.json, vmlinux, modules/: complete, or not there
//	unpacked/DIGEST/  vmlinux: an image named by path, uncompressed
//	initramfs/KEY/    ready-made ones; KEY covers everything they are made of
//	tmp/              what is being made; locked while its process lives
//
// Everything becomes visible by a rename after it was written to the disk, so a
// command that is killed, or a machine that loses power, leaves nothing half
// made, and any number of commands may work at the same time.
//
// A supervisor marks the image and the archive that its machine boots, in each of
// its lives, and keeps them so: see sys.MarkUsed. What has lost its name, or was not
// used for long, stays while it is marked.
package kernel

import (
	"errors"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/vmlinux"
)

// The errors that callers tell apart.
var (
	// ErrNotFound: no kernel of that name, or no file of that path.
	ErrNotFound = errors.New("no such kernel")
	// ErrInvalid: the file is no kernel that a guest here can boot; the message
	// says why.
	ErrInvalid = vmlinux.ErrInvalid
	// ErrFetch: there is no kernel here and the distribution's could not be
	// fetched.
	ErrFetch = errors.New("no guest kernel is here, and the distribution's cannot be fetched")
	// ErrModule: the kernel lacks a module that was asked for.
	ErrModule = errors.New("kernel module missing")
	// ErrExists: the name is taken.
	ErrExists = errors.New("there is a kernel of that name already")
	// ErrInUse: the kernel is the default, and there are others.
	ErrInUse = errors.New("the default kernel cannot be removed while there are others")
)

// BaseModules are what the agent needs to find its disks and its channel and to
// make workloads. Each costs boot time, so there is none to spare: virtio_mmio,
// for one, finds nothing with a kernel of modules, since Debian's takes no
// devices from the command line.
var BaseModules = []string{
	"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng",
	"erofs", "ext4", "overlay", "fuse",
}

// NetModules are what a guest with a network device needs beside them. The agent
// loads them where there is one. A kernel without them boots guests without
// networks.
var NetModules = []string{"virtio_net"}

// Wanted is what the initramfs shall hold.
type Wanted struct {
	// Agent is the path of the bulkhead-agent program, the guest's /init.
	Agent string
	// Init is the path of the bulkhead-init program, for workloads that ask for
	// it; "" leaves it out.
	Init string
	// Modules are the names of the modules that are loaded at boot, in any
	// order and without what they depend on; nil means BaseModules. What is
	// built into the kernel is left out.
	Modules []string
	// Network are those that are loaded only where the machine has a network
	// device; nil means NetModules, if Modules is nil too.
	Network []string
}

// Kernel is one that can be booted.
type Kernel struct {
	Name    string    `json:"name,omitempty"` // in the store; "" for a file
	Release string    `json:"release"`        // as uname -r says
	Source  string    `json:"source"`         // where it came from, for people
	Digest  string    `json:"digest"`         // SHA-256 of the image, hexadecimal; "" for a file
	Added   time.Time `json:"added,omitzero"`
	Image   string    `json:"image"` // path of the ELF image
	Size    int64     `json:"size"`  // of the image, in bytes
	// ModulesDir holds the kernel's modules as /lib/modules/RELEASE does; ""
	// when everything is built in.
	ModulesDir string `json:"modulesDir,omitempty"`
	// MMIO tells that the kernel finds virtio devices that its command line
	// names, so that a machine without PCI will do.
	MMIO    bool `json:"mmio"`
	Default bool `json:"default"`

	// ID tells two kernels apart that had the same name: random, and part of the
	// key of what is made from the kernel.
	ID string `json:"id,omitempty"`

	// What follows is filled in by Resolve.

	// Initramfs is the path of the cpio archive.
	Initramfs string `json:"initramfs,omitempty"`
	// Modules are those in the initramfs, in the order of loading; Builtin are
	// those wanted that the kernel needs no module for.
	Modules []string `json:"modules,omitempty"`
	Builtin []string `json:"builtin,omitempty"`
}

// Progress hears how far slow steps are; progress.Display is one. Size 0 means
// unknown. A nil Progress is silent.
type Progress interface {
	Update(name, phase string, current, size int64)
	Done(name, result string)
}

// AddOptions says what Add stores.
type AddOptions struct {
	// Image is the path of a bzImage, of an ELF image, or of a Debian kernel
	// package, which brings its modules along.
	Image string
	// Modules is a directory such as /lib/modules/RELEASE; "" for a kernel with
	// everything built in.
	Modules string
	// Source says where the kernel came from; "" names the file.
	Source string
	// Replace allows the name to be taken already.
	Replace bool
}

// quiet is the Progress of those who want none.
type quiet struct{}

func (quiet) Update(string, string, int64, int64) {}
func (quiet) Done(string, string)                 {}

// heard is p, or silence.
func heard(p Progress) Progress {
	if p == nil {
		return quiet{}
	}
	return p
}
