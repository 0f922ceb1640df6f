package kmod

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// object makes a module with sections of these names.
func object(names ...string) []byte {
	le := binary.LittleEndian
	text := []byte{0}
	b := make([]byte, elfHeaderSize)
	copy(b, elf64LittleRel)
	var offsets []int
	for _, n := range append(names, ".shstrtab") {
		offsets = append(offsets, len(text))
		text = append(append(text, n...), 0)
	}
	table := len(b) + len(text)
	b = append(b, text...)
	b = append(b, make([]byte, sectionEntrySize*(1+len(offsets)))...)
	for n, at := range offsets {
		h := b[table+sectionEntrySize*(n+1):]
		le.PutUint32(h, uint32(at))
		le.PutUint64(h[24:], elfHeaderSize)
		le.PutUint64(h[32:], uint64(len(text)))
	}
	le.PutUint64(b[40:], uint64(table))
	le.PutUint16(b[58:], sectionEntrySize)
	le.PutUint16(b[60:], uint16(1+len(offsets)))
	le.PutUint16(b[62:], uint16(len(offsets)))
	return b
}

// signed appends a signature.
func signed(b []byte) []byte {
	b = append(bytes.Clone(b), "the signature\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x0d"...)
	return append(b, signatureMark...)
}

func TestLean(t *testing.T) {
	plain := object(".text", ".BTF", ".data")
	lean := Lean(signed(plain))
	if len(lean) != len(plain) {
		t.Fatalf("%d bytes, want %d: the signature is still there, or more is gone", len(lean), len(plain))
	}
	names, ok := sectionNames(lean)
	if !ok {
		t.Fatal("it is no module any more")
	}
	var got []string
	for _, n := range names {
		got = append(got, n)
	}
	count := map[string]int{}
	for _, n := range got {
		count[n]++
	}
	if count[".BTF"] != 0 || count[".text"] != 1 || count[".data"] != 1 || count[".shstrtab"] != 1 || len(got) != 5 {
		t.Errorf("sections %q", got)
	}
	if again := Lean(lean); !bytes.Equal(again, lean) {
		t.Error("a second time changes it again")
	}
	for name, b := range map[string][]byte{
		"no types":          signed(object(".text")),
		"functions for BPF": signed(object(".text", ".BTF", ".BTF_ids")),
		"no module":         []byte("content"),
		"header only":       plain[:elfHeaderSize],
		"cut off":           plain[:len(plain)-1],
		"no names":          object(".BTF")[:80],
		"32 bits":           append([]byte("\x7fELF\x01\x01\x01"), plain[7:]...),
		"nothing":           nil,
	} {
		if got := Lean(b); !bytes.Equal(got, b) {
			t.Errorf("%s: it was changed", name)
		}
	}
}

func FuzzLean(f *testing.F) {
	f.Add(signed(object(".text", ".BTF", ".data")))
	f.Add(object(".BTF", ".BTF_ids"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := Lean(b); len(got) > len(b) {
			t.Errorf("%d bytes became %d", len(b), len(got))
		}
	})
}
