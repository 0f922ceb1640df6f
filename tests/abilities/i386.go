// Package abilities tells what the machine at hand can do, where the code under test
// must not be asked.
package abilities

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
)

// TakesI386 runs a program of one segment, which asks for the exit of i386
// (arch/x86/entry/syscalls/syscall_32.tbl): some virtual machines do not let a
// 64-bit program do so, whatever their kernel was built with.
func TakesI386() bool {
	code := []byte{
		0x31, 0xdb, // xor ebx, ebx
		0xb8, 1, 0, 0, 0, // mov eax, 1
		0xcd, 0x80, // int 0x80
		0xf4, // hlt, which ends it with a signal
	}
	const (
		base    = 0x400000
		headers = 64 + 56
	)
	size := uint64(headers + len(code))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Filesz: size, Memsz: size, Align: 4096},
		code,
	} {
		binary.Write(&b, binary.LittleEndian, part) //nolint:errcheck // to memory
	}
	dir, err := os.MkdirTemp("", "i386-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "exit")
	return os.WriteFile(program, b.Bytes(), 0o700) == nil && exec.Command(program).Run() == nil
}
