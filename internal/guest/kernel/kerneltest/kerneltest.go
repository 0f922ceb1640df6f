// Package kerneltest makes kernel images, modules and packages for tests. They
// have everything that is looked at, and nothing that would run.
package kerneltest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var le = binary.LittleEndian

// Offsets in Image's result, for tests that damage it.
const (
	ProgramTable = 64
	Note         = 64 + 2*56
	entry        = 0x1000000
)

// Image is an ELF image with a PVH entry: a header, a segment that is loaded, a
// note. More strings may follow what is loaded.
func Image(release string, more ...string) []byte {
	var note bytes.Buffer
	for _, v := range []uint32{4, 4, 18} {
		binary.Write(&note, le, v)
	}
	note.WriteString("Xen\x00")
	binary.Write(&note, le, uint32(entry))
	text := []byte("\x90\x90Linux version " + release + " (builder@host) #1 SMP\n\x00" + strings.Join(more, ""))
	size := uint64(Note + note.Len() + len(text))

	b := make([]byte, Note)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], ProgramTable)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	segment := func(at int, kind uint32, offset, physical, length uint64) {
		le.PutUint32(b[at:], kind)
		le.PutUint64(b[at+8:], offset)
		le.PutUint64(b[at+24:], physical)
		le.PutUint64(b[at+32:], length)
		le.PutUint64(b[at+40:], length)
		le.PutUint64(b[at+48:], 4)
	}
	segment(ProgramTable, 1, 0, entry, size)
	segment(ProgramTable+56, 4, Note, entry+Note, uint64(note.Len()))
	return append(append(b, note.Bytes()...), text...)
}

// BzImage is a bzImage around a packed image that unpacks to size bytes. Its
// setup part has one sector.
func BzImage(release string, packed []byte, size int) []byte {
	b := make([]byte, 1024)
	b[0x1f1] = 1
	le.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x20f)
	le.PutUint16(b[0x20e:], 0x100) // the release, from 0x200
	le.PutUint16(b[0x236:], 1)     // 64 bits
	copy(b[0x300:], release+" (builder@host)")
	payload := append(bytes.Clone(packed), 0, 0, 0, 0)
	le.PutUint32(payload[len(packed):], uint32(size))
	if bytes.HasPrefix(packed, []byte("\x1f\x8b")) {
		payload = payload[:len(packed)] // gzip has the size as its own trailer
	}
	le.PutUint32(b[0x248:], 0)
	le.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(b, payload...)
}

// Module is a kernel module that says these things of itself, such as
// "depends=virtio".
func Module(release string, words ...string) []byte {
	info := strings.Join(append(words, "vermagic="+release+" SMP mod_unload "), "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1) // ET_REL
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	infoAt := len(b)
	b = append(b, info...)
	namesAt := len(b)
	b = append(b, names...)
	le.PutUint64(b[40:], uint64(len(b)))
	section := func(name, kind uint32, offset, size int) {
		h := make([]byte, 64)
		le.PutUint32(h, name)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[24:], uint64(offset))
		le.PutUint64(h[32:], uint64(size))
		le.PutUint64(h[48:], 1)
		b = append(b, h...)
	}
	section(0, 0, 0, 0)
	section(1, 1, infoAt, len(info))
	section(10, 3, namesAt, len(names))
	return b
}

// Modules fills a directory as /lib/modules/RELEASE: path to content, and the
// built-in ones.
func Modules(t testing.TB, dir string, files map[string][]byte, builtin ...string) {
	t.Helper()
	for name, content := range files {
		Write(t, filepath.Join(dir, name), content)
	}
	var list strings.Builder
	for _, b := range builtin {
		fmt.Fprintf(&list, "kernel/drivers/%s.ko\n", b)
	}
	Write(t, filepath.Join(dir, "modules.builtin"), []byte(list.String()))
}

// Write makes a file and the directories above it.
func Write(t testing.TB, file string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Package makes a Debian kernel package at file from a tree, with dpkg-deb.
func Package(t testing.TB, file, tree string) {
	t.Helper()
	Write(t, filepath.Join(tree, "DEBIAN", "control"),
		[]byte("Package: linux-image-test\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDescription: test\n"))
	if out, err := exec.Command("dpkg-deb", "-Znone", "-b", tree, file).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
}
