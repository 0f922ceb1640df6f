package seccomp

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// Data is what a filter sees of a call: the kernel's struct seccomp_data.
type Data struct {
	NR   uint32 // as int in the kernel; -1 is 0xffffffff
	Arch uint32 // AUDIT_ARCH_*
	IP   uint64
	Args [6]uint64
}

// dataSize is sizeof(struct seccomp_data).
const dataSize = 64

var _ [dataSize]byte = [unsafe.Sizeof(Data{})]byte{}

// load returns the 32-bit word at an offset in the struct.
func (d *Data) load(off uint32) (uint32, bool) {
	if off%4 != 0 || off >= dataSize {
		return 0, false
	}
	switch {
	case off == offNR:
		return d.NR, true
	case off == offArch:
		return d.Arch, true
	}
	v := d.IP
	if off >= offArgs {
		v = d.Args[(off-offArgs)/8]
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	return binary.NativeEndian.Uint32(b[off%8:]), true
}

// Run interprets the program for one call. It knows the instructions that this
// package and libseccomp generate; any other, or a jump out of the program, is
// an error, never a verdict.
func (f Filter) Run(d Data) (Verdict, error) {
	var acc uint32
	for pc := 0; pc < len(f.Insns); pc++ {
		i := f.Insns[pc]
		jump := func(holds bool) {
			if holds {
				pc += int(i.JT)
			} else {
				pc += int(i.JF)
			}
		}
		switch i.Code {
		case ldAbs:
			var ok bool
			if acc, ok = d.load(i.K); !ok {
				return 0, fmt.Errorf("seccomp: instruction %d loads from offset %d", pc, i.K)
			}
		case and:
			acc &= i.K
		case ja:
			if uint64(pc)+uint64(i.K) >= uint64(len(f.Insns)) {
				return 0, fmt.Errorf("seccomp: instruction %d jumps out of the program", pc)
			}
			pc += int(i.K)
		case jeq:
			jump(acc == i.K)
		case jgt:
			jump(acc > i.K)
		case jge:
			jump(acc >= i.K)
		case jset:
			jump(acc&i.K != 0)
		case ret:
			return Verdict(i.K), nil
		default:
			return 0, fmt.Errorf("seccomp: instruction %d has unknown code %#x", pc, i.Code)
		}
	}
	return 0, fmt.Errorf("seccomp: the program ends without a verdict")
}
