package kmod

import (
	"bytes"
	"encoding/binary"
)

// The parts of the ELF format that Lean looks at: elf(5), and
// include/linux/module_signature.h for what is appended to a module.
const (
	elfHeaderSize    = 64
	sectionEntrySize = 64
	elf64LittleRel   = "\x7fELF\x02\x01\x01"

	typesSection    = ".BTF"
	functionSection = ".BTF_ids"

	signatureMark = "~Module signature appended~\n"
)

// Lean returns a module without the description of its types (BTF), which the
// kernel would check word by word when it loads the module: half of the
// processor time that loading takes, and two thirds for ext4. Who traces a guest
// by BPF still has the types of the kernel itself.
//
// A module that was changed has no valid signature, so that is cut off. Nothing
// is lost by it as long as the kernel does not insist on signatures: modules are
// loaded before anything that is not ours runs, from an archive that came with
// the kernel. Modules that offer functions to BPF programs need their types to
// be loaded, and stay as they are, like everything that is not understood.
func Lean(module []byte) []byte {
	names, ok := sectionNames(module)
	if !ok {
		return module
	}
	at := 0
	for offset, name := range names {
		switch name {
		case functionSection:
			return module
		case typesSection:
			at = offset
		}
	}
	if at == 0 {
		return module
	}
	lean := bytes.Clone(module[:len(module)-signatureSize(module)])
	clear(lean[at : at+4]) // sh_name: what has no name is not found
	return lean
}

// sectionNames returns the names of a module's sections by the offset of their
// headers.
func sectionNames(b []byte) (map[int]string, bool) {
	if len(b) < elfHeaderSize || !bytes.HasPrefix(b, []byte(elf64LittleRel)) {
		return nil, false
	}
	le := binary.LittleEndian
	table, entry, count, index := le.Uint64(b[40:]), le.Uint16(b[58:]), uint64(le.Uint16(b[60:])), uint64(le.Uint16(b[62:]))
	size := uint64(len(b))
	if entry != sectionEntrySize || table > size || count*sectionEntrySize > size-table || index >= count {
		return nil, false
	}
	header := b[table+index*sectionEntrySize:]
	from, length := le.Uint64(header[24:]), le.Uint64(header[32:])
	if from > size || length > size-from {
		return nil, false
	}
	text := b[from : from+length]
	names := map[int]string{}
	for n := range count {
		offset := table + n*sectionEntrySize
		name := uint64(le.Uint32(b[offset:]))
		if name >= length {
			return nil, false
		}
		word, _, ended := bytes.Cut(text[name:], []byte{0})
		if !ended {
			return nil, false
		}
		names[int(offset)] = string(word)
	}
	return names, true
}

// signatureSize is how many bytes at the end of a module are its signature: the
// signature itself, a header of twelve bytes whose last four are its length, big
// end first, and a mark. 0 if there is none.
func signatureSize(module []byte) int {
	const header = 12
	rest, found := bytes.CutSuffix(module, []byte(signatureMark))
	if !found || len(rest) < header {
		return 0
	}
	n := uint64(binary.BigEndian.Uint32(rest[len(rest)-4:]))
	if n > uint64(len(rest)-header) {
		return 0
	}
	return len(signatureMark) + header + int(n)
}
