package seccomp

import (
	"fmt"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Columns of syscallTable, in the order that gen_tables.go writes them.
const (
	colAMD64 = iota
	colX86
	colX32
	colARM64
	colARM
	colRISCV64
	colLOONG64
	colMIPS
	colMIPSEL
	colMIPS64
	colMIPSEL64
	colPPC
	colPPC64
	colPPC64LE
	colS390X
)

// Parts of an AUDIT_ARCH_* value, linux/audit.h.
const (
	audit64 = 0x80000000
	auditLE = 0x40000000
)

// x32Bit marks a call of the x32 ABI, which shares amd64's AUDIT_ARCH value.
const x32Bit = 0x40000000

// arch is one architecture of a profile.
type arch struct {
	name   specs.Arch
	goarch string // empty if Go has no such port
	audit  uint32 // seccomp_data.arch
	column int    // of syscallTable
	offset uint32 // what the kernel adds to the table's number
	// wide says that arguments are compared as 64 bits. x32 has 64-bit
	// registers but 32-bit arguments; libseccomp compares 32 bits there too.
	wide bool
	big  bool // big endian
	// socketcall and ipc are the numbers of the calls that multiplex the
	// socket and the System V IPC functions, or 0 where there are none.
	socketcall, ipc uint32
}

// arches is every architecture that has a system call table. The runtime spec
// also names MIPS64N32, MIPSEL64N32, S390, PARISC and PARISC64: x/sys has no
// tables for these, and Go cannot be built for them.
var arches = [...]arch{
	{name: specs.ArchX86_64, goarch: "amd64", audit: 62 | audit64 | auditLE, column: colAMD64, wide: true},
	{name: specs.ArchX86, goarch: "386", audit: 3 | auditLE, column: colX86, socketcall: 102, ipc: 117},
	{name: specs.ArchX32, audit: 62 | audit64 | auditLE, column: colX32, offset: x32Bit},
	{name: specs.ArchAARCH64, goarch: "arm64", audit: 183 | audit64 | auditLE, column: colARM64, wide: true},
	{name: specs.ArchARM, goarch: "arm", audit: 40 | auditLE, column: colARM},
	{name: specs.ArchRISCV64, goarch: "riscv64", audit: 243 | audit64 | auditLE, column: colRISCV64, wide: true},
	{name: specs.ArchLOONGARCH64, goarch: "loong64", audit: 258 | audit64 | auditLE, column: colLOONG64, wide: true},
	{name: specs.ArchMIPS, goarch: "mips", audit: 8, column: colMIPS, big: true, socketcall: 4102, ipc: 4117},
	{name: specs.ArchMIPSEL, goarch: "mipsle", audit: 8 | auditLE, column: colMIPSEL, socketcall: 4102, ipc: 4117},
	{name: specs.ArchMIPS64, goarch: "mips64", audit: 8 | audit64, column: colMIPS64, wide: true, big: true},
	{name: specs.ArchMIPSEL64, goarch: "mips64le", audit: 8 | audit64 | auditLE, column: colMIPSEL64, wide: true},
	{name: specs.ArchPPC, audit: 20, column: colPPC, big: true, socketcall: 102, ipc: 117},
	{name: specs.ArchPPC64, goarch: "ppc64", audit: 21 | audit64, column: colPPC64, wide: true, big: true, socketcall: 102, ipc: 117},
	{name: specs.ArchPPC64LE, goarch: "ppc64le", audit: 21 | audit64 | auditLE, column: colPPC64LE, wide: true, socketcall: 102, ipc: 117},
	{name: specs.ArchS390X, goarch: "s390x", audit: 22 | audit64, column: colS390X, wide: true, big: true, socketcall: 102, ipc: 117},
}

// UnknownArchError says that a profile names an architecture that cannot be
// compiled for.
type UnknownArchError struct{ Arch specs.Arch }

func (e *UnknownArchError) Error() string {
	return fmt.Sprintf("seccomp: no system call table for architecture %q", string(e.Arch))
}

// findArch returns the architecture with the runtime spec's name.
func findArch(name specs.Arch) (*arch, error) {
	for i := range arches {
		if arches[i].name == name {
			return &arches[i], nil
		}
	}
	return nil, &UnknownArchError{name}
}

// nativeArch returns the architecture that this program is built for.
func nativeArch() (*arch, error) { return goArch(runtime.GOARCH) }

func goArch(goarch string) (*arch, error) {
	for i := range arches {
		if arches[i].goarch == goarch {
			return &arches[i], nil
		}
	}
	return nil, &UnknownArchError{specs.Arch(goarch)}
}

// archOf returns the architecture that a call with this AUDIT_ARCH value and
// number belongs to, nil if none.
func archOf(audit, nr uint32) *arch {
	for i := range arches {
		a := &arches[i]
		if a.audit == audit && (a.column != colAMD64 || nr&x32Bit == 0) {
			return a
		}
	}
	return nil
}

// number returns the number of the call with this index in the tables.
func (a *arch) number(index int) (uint32, bool) {
	n := syscallTable[a.column][index]
	switch {
	case n == noSyscall:
		return 0, false
	case n >= privateMark:
		return armPrivate + uint32(n-privateMark), true
	}
	return uint32(n) + a.offset, true
}

// SyscallName returns the name of a call as the kernel reports it in
// seccomp_data, or "" if the tables do not have it.
func SyscallName(auditArch, nr uint32) string {
	a := archOf(auditArch, nr)
	if a == nil {
		return ""
	}
	for i := range syscallTable[a.column] {
		if n, ok := a.number(i); ok && n == nr {
			return syscallName(i)
		}
	}
	return ""
}

// ArchName returns the runtime spec's name of the architecture of a call, or
// the AUDIT_ARCH value in hexadecimal.
func ArchName(auditArch, nr uint32) string {
	if a := archOf(auditArch, nr); a != nil {
		return string(a.name)
	}
	return fmt.Sprintf("%#x", auditArch)
}
