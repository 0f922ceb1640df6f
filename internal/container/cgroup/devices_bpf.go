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
	opMovReg   = 0xbf // BPF_ALU64 | BPF_MOV | BPF_X
	opMovImm   = 0xb7 // BPF_ALU64 | BPF_MOV | BPF_K
	opAndImm   = 0x57 // BPF_ALU64 | BPF_AND | BPF_K
	opRshImm   = 0x77 // BPF_ALU64 | BPF_RSH | BPF_K
	opJneImm   = 0x55 // BPF_JMP | BPF_JNE | BPF_K
	opJne32Imm = 0x56 // BPF_JMP32 | BPF_JNE | BPF_K
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
func (e deviceException) block(allow bool) []sys.BPFInstruction {
	kind := int32(2) // BPF_DEVCG_DEV_CHAR
	if e.kind == 'b' {
		kind = 1 // BPF_DEVCG_DEV_BLOCK
	}
	b := []sys.BPFInstruction{{Code: opJneImm, Dst: r2, Imm: kind}}
	if e.access != accessAll {
		b = append(b, sys.BPFInstruction{Code: opMovReg, Dst: r6, Src: r3})
		if allow {
			b = append(b,
				sys.BPFInstruction{Code: opAndImm, Dst: r6, Imm: int32(e.access)},
				sys.BPFInstruction{Code: opJeqImm, Dst: r6, Imm: 0})
		} else {
			b = append(b,
				sys.BPFInstruction{Code: opAndImm, Dst: r6, Imm: int32(accessAll &^ e.access)},
				sys.BPFInstruction{Code: opJneImm, Dst: r6, Imm: 0})
		}
	}
	// 32-bit comparisons: a major or minor above 2^31 would otherwise be
	// sign-extended and never match.
	if e.major != wildcard {
		b = append(b, sys.BPFInstruction{Code: opJne32Imm, Dst: r4, Imm: int32(uint32(e.major))})
	}
	if e.minor != wildcard {
		b = append(b, sys.BPFInstruction{Code: opJne32Imm, Dst: r5, Imm: int32(uint32(e.minor))})
	}
	verdict := int32(1)
	if allow {
		verdict = 0
	}
	b = append(b,
		sys.BPFInstruction{Code: opMovImm, Dst: r0, Imm: verdict},
		sys.BPFInstruction{Code: opExit})
	for i := range b {
		switch b[i].Code {
		case opJneImm, opJne32Imm, opJeqImm:
			b[i].Offset = int16(len(b) - i - 1)
		}
	}
	return b
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
