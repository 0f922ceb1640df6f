package cgroup

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// The eBPF program that stands for the devices controller on v2 looks at one
// struct bpf_cgroup_dev_ctx (linux/bpf.h):
//
//	+0  u32 access_type   low half: 1 block, 2 character; high half: rights
//	+4  u32 major
//	+8  u32 minor
//
// and returns 1 to allow. Registers: r1 the context, r2 the type, r3 the
// rights, r4 and r5 the numbers, r6 scratch.
const (
	r0 = iota
	r1
	r2
	r3
	r4
	r5
	r6
)

// Opcodes, linux/bpf_common.h and linux/bpf.h.
const (
	opLoadWord = 0x61 // BPF_LDX | BPF_MEM | BPF_W
	opMovReg   = 0xbc // BPF_ALU | BPF_MOV | BPF_X, 32 bits
	opMovImm   = 0xb4 // BPF_ALU | BPF_MOV | BPF_K
	opAndImm   = 0x54 // BPF_ALU | BPF_AND | BPF_K
	opXorImm   = 0xa4 // BPF_ALU | BPF_XOR | BPF_K
	opRshImm   = 0x74 // BPF_ALU | BPF_RSH | BPF_K
	opJneImm   = 0x55 // BPF_JMP | BPF_JNE | BPF_K
	opJeqImm   = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	opExit     = 0x95 // BPF_JMP | BPF_EXIT
)

// program returns the instructions for a policy.
//
// Where the default is to deny, an exception must cover every right asked
// for. Where it is to allow, one forbidden right is enough to refuse: opening
// for reading and writing is refused when reading is. The v1 kernel decides
// the same way.
func (p devicePolicy) program() []sys.BPFInstruction {
	prog := []sys.BPFInstruction{
		{Code: opLoadWord, Dst: r2, Src: r1, Offset: 0},
		{Code: opMovReg, Dst: r3, Src: r2},
		{Code: opAndImm, Dst: r2, Imm: 0xffff},
		{Code: opRshImm, Dst: r3, Imm: 16},
		{Code: opLoadWord, Dst: r4, Src: r1, Offset: 4},
		{Code: opLoadWord, Dst: r5, Src: r1, Offset: 8},
	}
	for _, e := range p.sorted() {
		prog = append(prog, e.block(p.allow)...)
	}
	verdict := int32(0)
	if p.allow {
		verdict = 1
	}
	return append(prog,
		sys.BPFInstruction{Code: opMovImm, Dst: r0, Imm: verdict},
		sys.BPFInstruction{Code: opExit})
}

// block returns the instructions that end the program with the opposite of
// the default when the exception applies, and fall through when it does not.
//
// Numbers are compared in a copy, by exclusive or. Comparing the register
// itself would let the verifier learn its value and walk the rest of the
// program once for each value: quadratic, and 500 exceptions exceed its limit.
func (e deviceException) block(allow bool) []sys.BPFInstruction {
	kind := uint32(2) // BPF_DEVCG_DEV_CHAR
	if e.kind == 'b' {
		kind = 1 // BPF_DEVCG_DEV_BLOCK
	}
	b := unlessEqual(r2, kind)
	if e.access != accessAll {
		mask, skip := accessAll&^e.access, uint8(opJneImm)
		if allow {
			mask, skip = e.access, opJeqImm
		}
		b = append(b,
			sys.BPFInstruction{Code: opMovReg, Dst: r6, Src: r3},
			sys.BPFInstruction{Code: opAndImm, Dst: r6, Imm: int32(mask)},
			sys.BPFInstruction{Code: skip, Dst: r6})
	}
	if e.major != wildcard {
		b = append(b, unlessEqual(r4, uint32(e.major))...)
	}
	if e.minor != wildcard {
		b = append(b, unlessEqual(r5, uint32(e.minor))...)
	}
	verdict := int32(1)
	if allow {
		verdict = 0
	}
	b = append(b,
		sys.BPFInstruction{Code: opMovImm, Dst: r0, Imm: verdict},
		sys.BPFInstruction{Code: opExit})
	for i := range b {
		if b[i].Code == opJneImm || b[i].Code == opJeqImm {
			b[i].Offset = int16(len(b) - i - 1)
		}
	}
	return b
}

// unlessEqual jumps, to where block says, unless a register has a value.
func unlessEqual(register uint8, value uint32) []sys.BPFInstruction {
	return []sys.BPFInstruction{
		{Code: opMovReg, Dst: r6, Src: register},
		{Code: opXorImm, Dst: r6, Imm: int32(value)},
		{Code: opJneImm, Dst: r6},
	}
}

// attach puts the policy in force on a v2 cgroup and replaces the one that
// was there, without a moment in which neither is.
func (p devicePolicy) attach(dir string) error {
	fd, err := openFile(dir, ".", syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := sys.SetCgroupDeviceProgram(fd, p.program()); err != nil {
		err = &os.PathError{Op: "attach the device program to", Path: dir, Err: err}
		if errors.Is(err, os.ErrPermission) {
			return &MissingError{deviceLimit, "devices (eBPF)", fmt.Sprintf("CAP_BPF and CAP_NET_ADMIN are needed: %v", err)}
		}
		return err
	}
	return nil
}
