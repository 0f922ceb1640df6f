package qemu

import (
	"strconv"
	"strings"
)

// Descriptors of QEMU. Those of disks follow, in the order of Config.Disks, and
// then those of network devices.
const (
	fdQMP = 3 + iota
	fdAgent
	fdConsole
	fdDisks
)

// Paths in QEMU's root. Only the loader of its libraries has the path that the
// binary names.
const (
	pathBinary    = "/qemu"
	pathKernel    = "/" + bootKernel
	pathInitramfs = "/" + bootInitramfs
	pathFirmware  = "/firmware"
	pathModules   = "/modules"
	pathLibraries = "/libraries"
)

// AgentPort is the name of the virtio-serial port at which the guest's agent
// talks: /dev/virtio-ports/bulkhead.agent.
const AgentPort = "bulkhead.agent"

// agentID names the port in QEMU's events.
const agentID = "agent"

// sandbox is QEMU's own filter: no obsolete call, no change of identity, no
// child process, no change of priorities and limits.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// Command returns the arguments that QEMU is executed with, from argv[0] on. It
// looks at nothing but c.
func Command(c Config) []string {
	c.withDefaults()
	bus := "device" // virtio over MMIO
	if c.Machine == Q35 {
		bus = "pci"
	}
	args := []string{
		"qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", sandbox,
		"-L", pathFirmware,
		"-machine", c.machine(), "-accel", c.accel(), "-cpu", c.cpu(),
		"-smp", strconv.Itoa(c.CPUs), "-m", strconv.FormatInt(c.Memory/mib, 10) + "M",
	}
	if c.RAM != nil {
		args = append(args, "-object", c.memoryObject())
	}
	switch {
	case c.State != nil:
		// The kernel is in the memory already.
		args = append(args, "-incoming", "defer")
	case c.Initramfs != "":
		args = append(args, "-kernel", pathKernel, "-initrd", pathInitramfs)
	default:
		args = append(args, "-kernel", pathKernel)
	}
	if c.Machine == Q35 {
		// None of the disks is for booting, so the firmware leaves them alone.
		// Otherwise it makes a queue for each at the end of the guest's memory;
		// with many disks they reach the initramfs that QEMU puts there, and the
		// devices write into its last files.
		args = append(args, "-boot", "strict=on")
	}
	if c.State == nil {
		args = append(args, "-append", c.kernelArgs())
	}
	args = append(args,
		"-chardev", socket("qmp", fdQMP), "-mon", "chardev=qmp,mode=control",
		"-chardev", socket("console", fdConsole), "-serial", "chardev:console",
		"-object", "rng-builtin,id=rng", "-device", "virtio-rng-"+bus+",rng=rng",
		"-chardev", socket("agent", fdAgent),
		"-device", "virtio-serial-"+bus+",max_ports=2",
		"-device", "virtserialport,id="+agentID+",chardev=agent,name="+AgentPort,
	)
	set := 0
	for _, d := range c.Disks {
		node := nodeName(d.Serial, 0)
		if d.File == "" {
			args = append(args, "-blockdev", emptyNode(d, node))
		} else {
			args = append(args, "-add-fd", "fd="+strconv.Itoa(fdDisks+set)+",set="+strconv.Itoa(set)+",opaque="+d.Serial,
				"-blockdev", fileNode(d, node, "/dev/fdset/"+strconv.Itoa(set)))
			set++
		}
		args = append(args, "-device", "virtio-blk-"+bus+",id="+deviceID(d.Serial)+",drive="+node+",serial="+d.Serial+
			",werror=report,rerror=report")
	}
	fd := fdDisks + set
	for n, nic := range c.NICs {
		args = append(args, nicArgs(&c, n, fd)...)
		if nic.Kind != Slot {
			fd++
		}
	}
	return args
}

func (c *Config) machine() string {
	// Without pit and pic the guest hangs under emulation.
	m := "microvm,pit=on,pic=on,rtc=on,acpi=off,x-option-roms=off,dump-guest-core=off,mem-merge=off"
	if c.Machine == Q35 {
		m = "q35,usb=off,vmport=off,hpet=off,smbus=off,sata=off,dump-guest-core=off,mem-merge=off"
	}
	if c.RAM != nil {
		m += ",memory-backend=" + memoryID
	}
	return m
}

// What TCG may keep of translated code at most, in MiB; without a bound it is up to
// 1 GiB, which no limit of the machine's cgroup would expect. All of it is dropped
// once it is full, and translated again; what was full once stays in use, however
// little of it is current.
//
// The boot of Debian's kernel fills whatever there is up to 64. With half of that the
// boot and the programs after it take no longer; with 28 the boot takes a tenth more
// of processor time, with 26 the first exec twice as much, and with 16 a program that
// ran before takes eight times as long.
//
// A clone has not booted: to make its workload fills 40, which would be dropped in
// the midst of it. One whose workload is in its template has half of that.
const bootTranslations, cloneTranslations = 32, 48

func (c *Config) accel() string {
	switch {
	case c.Accel != TCG:
		return string(c.Accel)
	case c.State != nil:
		return "tcg,tb-size=" + strconv.Itoa(cloneTranslations)
	}
	return "tcg,tb-size=" + strconv.Itoa(bootTranslations)
}

// Overhead is what QEMU may need beside the guest's RAM, in bytes: for the limit
// of its cgroup. QEMU with its libraries is about 30 MiB, seen; the rest is room
// for the queues of devices, and under emulation for translated code and each
// processor's table of addresses.
func Overhead(a Accel, cpus int) int64 {
	if a == KVM {
		return (64 + 2*int64(cpus)) * mib
	}
	return (64 + cloneTranslations + 16*int64(cpus)) * mib
}

// cpu is the processor. An emulated one does not say that it copies and fills
// quickly by single bytes (ERMS, FSRM): TCG does each by itself, and the guest's
// kernel would do so with every page that it copies or clears. Without, the boot of
// Debian's kernel takes a twelfth less.
func (c *Config) cpu() string {
	if c.Accel == KVM {
		return "host"
	}
	return "max,-erms,-fsrm"
}

// kernelArgs is the kernel's command line. A panic and a reboot end QEMU
// (-no-reboot): the supervisor sees that, where a halt would only hang. The
// self-tests of cryptographic algorithms are left out: they are more than half
// of the instructions of a boot of Debian's kernel, the same each time.
func (c *Config) kernelArgs() string {
	args := []string{"console=ttyS0", "quiet", "reboot=t", "panic=-1", "cryptomgr.notests"}
	if c.Accel == TCG {
		// The kernel counts timer interrupts during some milliseconds of its own
		// clock and panics when there are none ("IO-APIC + timer doesn't work"):
		// on a busy host the emulated timer comes later than that.
		args = append(args, "no_timer_check")
		// A kernel with one processor takes the lock out of each of its locked
		// instructions, and each time writes to its own text through a mapping of its
		// own, which to TCG is slow; the lock costs nothing there.
		args = append(args, "noreplace-smp")
		// The guest has the host's counter. By the emulated timer the kernel takes
		// long to find out how quickly that counts, and on a busy host it fails: then
		// it tells the time by a device that is slow to ask, or in steps of its own
		// timer's interrupts where there is none.
		if c.TSC != 0 {
			args = append(args, "tsc_early_khz="+strconv.Itoa(c.TSC), "tsc=reliable")
		}
	}
	return strings.Join(append(args, c.Append...), " ")
}

func socket(id string, fd int) string {
	return "socket,id=" + id + ",fd=" + strconv.Itoa(fd)
}

// deviceID names a disk's device in QMP: /machine/peripheral/ID.
func deviceID(serial string) string { return "disk-" + serial }

// nodeName names what is behind a disk: the n-th file since the start. A name has
// at most 31 bytes and begins with a letter.
func nodeName(serial string, n int) string { return "n-" + serial + "-" + strconv.Itoa(n) }

func emptyNode(d Disk, node string) string {
	size := d.Size
	if size == 0 {
		size = EmptySize
	}
	return "driver=null-co,node-name=" + node + ",size=" + strconv.FormatInt(size, 10) + ",read-zeroes=on" + readOnly(d)
}

// fileNode opens a raw image. There is no probing of formats: the guest could
// write a header of another one, and read any file that it names.
func fileNode(d Disk, node, file string) string {
	// QEMU's lock would need the file open a second time; the supervisor's
	// state says who uses it.
	s := "driver=file,node-name=" + node + ",filename=" + file + ",locking=off"
	if !d.ReadOnly {
		s += ",discard=unmap"
	}
	return s + readOnly(d)
}

func readOnly(d Disk) string {
	if d.ReadOnly {
		return ",read-only=on"
	}
	return ",read-only=off"
}
