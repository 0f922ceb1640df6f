package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BPFInstruction is one eBPF instruction, struct bpf_insn of linux/bpf.h.
type BPFInstruction struct {
	Code     uint8
	Dst, Src uint8 // registers, 0 to 10
	Offset   int16
	Imm      int32
}

// rawInstruction is the kernel's form: both registers share one byte, the
// destination in the low half on little-endian machines, which are all that
// this program is built for.
type rawInstruction struct {
	code   uint8
	regs   uint8
	offset int16
	imm    int32
}

// SetCgroupDeviceProgram makes prog, of type BPF_PROG_TYPE_CGROUP_DEVICE, the
// one program that decides about devices in the v2 cgroup opened as dir. An
// earlier program is replaced in one step, bpf(2) BPF_F_REPLACE (Linux 5.6).
// The kernel keeps the program for as long as the cgroup exists. It needs
// CAP_BPF and CAP_NET_ADMIN in the initial user namespace.
func SetCgroupDeviceProgram(dir int, prog []BPFInstruction) error {
	old, err := cgroupDevicePrograms(dir)
	if err != nil {
		return err
	}
	fd, err := loadProgram(unix.BPF_PROG_TYPE_CGROUP_DEVICE, 0, prog)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := struct{ target, prog, kind, flags, replace uint32 }{
		target: uint32(dir), prog: uint32(fd), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI,
	}
	if len(old) == 1 {
		oldFD, err := programByID(old[0])
		if err != nil {
			return err
		}
		defer unix.Close(oldFD)
		attr.flags |= unix.BPF_F_REPLACE
		attr.replace = uint32(oldFD)
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return err
	}
	if len(old) > 1 {
		return detachCgroupDevice(dir, old)
	}
	return nil
}

// loadProgram has the kernel verify prog, of a type of enum bpf_prog_type, and
// returns its descriptor. hook is where it will be attached, of enum
// bpf_attach_type, for the types that differ by that, and 0 otherwise.
func loadProgram(kind, hook uint32, prog []BPFInstruction) (int, error) {
	raw := make([]rawInstruction, len(prog))
	for i, in := range prog {
		raw[i] = rawInstruction{in.Code, in.Src<<4 | in.Dst&0xf, in.Offset, in.Imm}
	}
	license := []byte("Apache-2.0\x00")
	attr := struct {
		kind, count       uint32
		insns, license    uint64
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
		name              [16]byte
		device, hook      uint32
	}{kind: kind, count: uint32(len(raw)), hook: hook}
	// The kernel sees the addresses only as numbers: the collector does not.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(unsafe.SliceData(raw))
	pin.Pin(unsafe.SliceData(license))
	attr.insns = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(raw))))
	attr.license = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(license))))
	for tries := 0; ; tries++ {
		fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		// A signal, such as the Go scheduler's own, interrupts the verifier.
		if err == unix.EAGAIN && tries < 30 {
			continue
		}
		return int(fd), err
	}
}

// cgroupDevicePrograms returns the IDs of the programs attached to the cgroup
// itself, not those of its ancestors.
func cgroupDevicePrograms(dir int) ([]uint32, error) {
	ids := make([]uint32, 64) // BPF_CGROUP_MAX_PROGS
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(unsafe.SliceData(ids))
	// The whole of the kernel's structure is passed: Linux 6.17 writes its last
	// field whatever size it is told.
	attr := struct {
		target, kind, flags, attachFlags uint32
		ids                              uint64
		count, _                         uint32
		_                                [4]uint64
	}{
		target: uint32(dir), kind: unix.BPF_CGROUP_DEVICE,
		ids: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(ids)))), count: uint32(len(ids)),
	}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return nil, err
	}
	return ids[:min(int(attr.count), len(ids))], nil
}

func detachCgroupDevice(dir int, ids []uint32) error {
	for _, id := range ids {
		fd, err := programByID(id)
		if err != nil {
			return err
		}
		attr := struct{ target, prog, kind uint32 }{uint32(dir), uint32(fd), unix.BPF_CGROUP_DEVICE}
		_, err = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func programByID(id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return int(fd), err
}

// bpf returns descriptors that are close-on-exec, as the kernel makes them.
func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (uintptr, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}
