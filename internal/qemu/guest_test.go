package qemu

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// A guest made of a few instructions, so that tests need no kernel: an ELF file
// with the PVH note (Xen's public/arch-x86/hvm/start_info.h), entered in 32-bit
// protected mode without paging.

// port is the first serial port of a PC.
const port = 0x3f8

// loadAt is where the guest's code lies.
const loadAt = 0x100000

// code assembles the few instructions that guests here are made of.
type code []byte

// print writes text to the serial console.
func (c code) print(text string) code {
	for _, b := range []byte(text) {
		c = append(c, 0x66, 0xba, port&0xff, port>>8) // mov dx, port
		c = append(c, 0xb0, b)                        // mov al, b
		c = append(c, 0xee)                           // out dx, al
	}
	return c
}

// hang stops the processor for good, with interrupts off.
func (c code) hang() code { return append(c, 0xfa, 0xf4, 0xeb, 0xfd) } // cli; hlt; jmp back to hlt

// reset restarts the machine by a triple fault: an empty interrupt table and an
// invalid instruction. With -no-reboot QEMU ends.
func (c code) reset() code {
	c = append(c, 0x6a, 0x00, 0x6a, 0x00) // push 0; push 0
	c = append(c, 0x0f, 0x01, 0x1c, 0x24) // lidt [esp]
	return append(c, 0x0f, 0x0b)          // ud2
}

// flood repeats what came before for ever.
func (c code) flood() code {
	n := -(len(c) + 5)
	return binary.LittleEndian.AppendUint32(append(c, 0xe9), uint32(int32(n)))
}

// dots writes dots for ever, and to memory that it has not written to before.
func (c code) dots() code {
	c = append(c, 0x66, 0xba, port&0xff, port>>8, 0xb0, '.') // mov dx, port; mov al, '.'
	return append(c,
		0xee,                               // out dx, al
		0xff, 0x05, 0x00, 0x00, 0x18, 0x00, // inc dword [0x180000]
		0xeb, 0xf7, // jmp back to out
	)
}

// stack gives the guest one.
func (c code) stack() code { return append(c, 0xbc, 0x00, 0x00, 0x20, 0x00) } // mov esp, 0x200000

// kernel writes the ELF file and returns its path.
func kernel(t testing.TB, c code) string {
	t.Helper()
	const header, program, note = 64, 56, 20 + 4
	codeAt := header + 2*program + note
	var b bytes.Buffer
	w := func(v ...any) {
		for _, x := range v {
			binary.Write(&b, binary.LittleEndian, x) //nolint:errcheck // into memory
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	w(uint16(2), uint16(62), uint32(1), uint64(loadAt), uint64(header), uint64(0), uint32(0)) // EXEC, x86-64
	w(uint16(header), uint16(program), uint16(2), uint16(0), uint16(0), uint16(0))
	w(uint32(1), uint32(5), uint64(codeAt), uint64(loadAt), uint64(loadAt), uint64(len(c)), uint64(len(c)), uint64(1)) // LOAD
	noteAt := uint64(header + 2*program)
	w(uint32(4), uint32(4), noteAt, uint64(0), uint64(0), uint64(note), uint64(note), uint64(4)) // NOTE
	w(uint32(4), uint32(8), uint32(18))                                                          // XEN_ELFNOTE_PHYS32_ENTRY
	b.WriteString("Xen\x00")
	w(uint64(loadAt))
	b.Write(c)
	name := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
