package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// MachineType is one of QEMU's machines.
type MachineType string

// The machines that Command knows.
const (
	// MicroVM has virtio over MMIO and neither PCI nor ACPI: the quickest to
	// boot. The kernel needs CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES.
	MicroVM MachineType = "microvm"
	// Q35 is a PC with PCI Express, for every other kernel.
	Q35 MachineType = "q35"
)

// Accel is what executes the guest's instructions.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // the processor, through /dev/kvm
	TCG Accel = "tcg" // QEMU's translator; see NoBoundary
)

// EmptySize is the size of an empty slot in bytes, for whatever file is put
// into it later: the guest reads the size once.
const EmptySize = 1 << 40

// Disk is a virtio block device. The guest finds it by its serial number.
type Disk struct {
	// Serial is one to 20 letters, digits and hyphens (virtio 1.2, section
	// 5.2.6.1), and unlike that of any other disk.
	Serial string
	// File is the host path of a raw image; empty makes an empty slot, to be
	// filled by InsertDisk. Links are followed.
	File string
	// ReadOnly holds for the device and for every file put into it.
	ReadOnly bool
	// Size of an empty slot in bytes; 0 stands for EmptySize.
	Size int64
}

// Cgroup is where QEMU starts: a *cgroup.Manager of internal/container.
type Cgroup interface {
	// Join opens the tasks files of the v1 hierarchies, and the v2 directory,
	// which is nil where there is none. The caller closes them.
	Join() (tasks []*os.File, dir *os.File, err error)
}

// Config is one machine.
type Config struct {
	// Binary is the path of QEMU; empty stands for the one in PATH.
	Binary string
	// Kernel is an uncompressed x86-64 kernel (ELF with a PVH note) or a
	// bzImage, Initramfs what it starts with, "" for none. Host paths.
	Kernel, Initramfs string
	// Append are parameters of the kernel's command line, after those that
	// every guest gets.
	Append []string
	// CPUs is the number of virtual processors, 1 to 255 (MicroVM: 64).
	CPUs int
	// Memory is the guest's RAM in bytes, a multiple of 1 MiB.
	Memory int64
	// Accel is settled by Choose. Empty means TCG.
	Accel Accel
	// TSC is how often the host's time stamp counter counts in a millisecond, in
	// kHz, for a guest that is emulated: tsc.Rate. 0 leaves it to the guest to find
	// out.
	TSC int
	// Machine is MicroVM when empty.
	Machine MachineType
	// Disks appear in the guest in this order; see MaxDisks.
	Disks []Disk
	// NICs are network devices, at most MaxNICs; on a microvm they take the
	// places of disks.
	NICs []NIC
	// IDBase is the host's user and group ID that QEMU runs as; never 0.
	IDBase uint32
	// Cgroup is where QEMU starts, nil for the caller's own.
	Cgroup Cgroup
	// RAM is a file that holds the guest's memory; nil for memory that QEMU has
	// for itself.
	RAM *RAM
	// State is what Save wrote of a machine with the same Command, but for the
	// files behind its disks and network devices and the room for translated code:
	// this one does not boot, but goes on from there, with RAM as it was then. It is
	// read from the beginning, and stays the caller's. Kernel and Initramfs are not
	// looked at.
	State *os.File
	// Dir is a directory of mode 0700 that exists and belongs to this machine.
	// QEMU's root is mounted over it, in QEMU's mount namespace only.
	Dir string
}

// MaxDisks is how many disks a machine has room for: a microvm has a fixed
// number of virtio-mmio transports, of which the random generator and the
// agent's port take one each; on q35 the limit is ours.
func MaxDisks(m MachineType) int {
	if m == Q35 {
		return 24
	}
	return 6
}

const mib = 1 << 20

// maxCommandLine is the kernel's limit for its command line on x86
// (COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h), less what QEMU adds for
// the devices of a microvm.
const maxCommandLine = 2047 - 8*len(" virtio_mmio.device=512@0xfeb00e00:12")

func (c *Config) withDefaults() {
	if c.Accel == "" {
		c.Accel = TCG
	}
	if c.Machine == "" {
		c.Machine = MicroVM
	}
}

// check refuses what would be misunderstood or fail later with a worse message.
func (c *Config) check() error {
	maxCPUs := 255
	if c.Machine == MicroVM {
		maxCPUs = 64
	}
	switch {
	case c.Machine != MicroVM && c.Machine != Q35:
		return fmt.Errorf("machine type %q: want %s or %s", c.Machine, MicroVM, Q35)
	case c.Accel != KVM && c.Accel != TCG:
		return fmt.Errorf("accelerator %q: want %s or %s", c.Accel, KVM, TCG)
	case c.CPUs < 1 || c.CPUs > maxCPUs:
		return fmt.Errorf("%d virtual processors: a %s machine has 1 to %d", c.CPUs, c.Machine, maxCPUs)
	case c.Memory < 16*mib || c.Memory%mib != 0:
		return fmt.Errorf("%d bytes of guest memory: want a multiple of 1 MiB, 16 MiB or more", c.Memory)
	case c.IDBase == 0 || c.IDBase == 1<<32-1:
		return errors.New("QEMU needs a user ID of its own that is not root")
	case c.Kernel == "" && c.State == nil:
		return errors.New("a machine needs a kernel")
	case c.State != nil && (c.RAM == nil || c.RAM.Shared):
		return errors.New("a machine that goes on from a saved state needs its memory, and not to write to")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("run directory %q is not an absolute path", c.Dir)
	case len(c.Disks) > MaxDisks(c.Machine):
		return fmt.Errorf("%d disks: a %s machine has room for %d", len(c.Disks), c.Machine, MaxDisks(c.Machine))
	}
	seen := map[string]bool{}
	for _, d := range c.Disks {
		if err := d.check(); err != nil {
			return err
		}
		if seen[d.Serial] {
			return fmt.Errorf("two disks with the serial number %q", d.Serial)
		}
		seen[d.Serial] = true
	}
	if err := c.checkNICs(); err != nil {
		return err
	}
	for _, a := range c.Append {
		if strings.ContainsFunc(a, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("kernel parameter %q: want printable ASCII", a)
		}
	}
	if n := len(c.kernelArgs()); n > maxCommandLine {
		return fmt.Errorf("the kernel's command line has %d bytes: at most %d are possible", n, maxCommandLine)
	}
	return nil
}

func (d Disk) check() error {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
	}
	switch {
	case d.Serial == "" || len(d.Serial) > 20 || strings.ContainsFunc(d.Serial, bad):
		return fmt.Errorf("serial number %q of a disk: want 1 to 20 letters, digits and hyphens", d.Serial)
	case d.Size < 0 || d.Size%512 != 0:
		return fmt.Errorf("disk %s: size %d is not a multiple of 512 bytes", d.Serial, d.Size)
	}
	return nil
}
