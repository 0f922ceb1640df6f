package qemu

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// bind is a file of the host that appears in QEMU's root.
type bind struct{ from, to string }

// maxLibraries bounds the closure, so that a strange binary makes no endless
// program.
const maxLibraries = 400

// closure finds everything that QEMU needs of the host's files: its binary, the
// module with the translator, the loader and the libraries of both, and the
// firmware. Only a part of what the host has installed is visible to QEMU then,
// nothing that an attacker inside could learn about the host or execute.
type closure struct {
	binds []bind
	dirs  []string        // where the loader looks
	have  map[string]bool // library names
	todo  []string        // host paths whose libraries are still to be found
}

// firmware are the images that Command's machines load: microvm's, and q35's
// with the option ROMs that load a kernel.
var firmware = []string{"qboot.rom", "bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"}

// modules hold what distributions split off the binary.
var modules = []string{"accel-tcg-x86_64.so"}

// findClosure looks at the files of one QEMU binary, whose path is resolved.
func findClosure(binary string) ([]bind, error) {
	f, err := elf.Open(binary)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", binary, err)
	}
	loader, err := interpreter(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", binary, err)
	}
	c := &closure{have: map[string]bool{}, binds: []bind{{binary, pathBinary}}, todo: []string{binary}}
	prefix := filepath.Dir(filepath.Dir(binary))
	for _, name := range modules {
		dirs := []string{"lib/x86_64-linux-gnu/qemu", "lib/qemu", "lib64/qemu", "lib64/qemu-kvm"}
		if from := firstFile(prefix, dirs, name); from != "" {
			c.binds = append(c.binds, bind{from, pathModules + "/" + name})
			c.todo = append(c.todo, from)
		}
	}
	for _, name := range firmware {
		if from := firstFile(prefix, []string{"share/qemu", "share/seabios", "share/qemu-kvm", "share/seavgabios"}, name); from != "" {
			c.binds = append(c.binds, bind{from, pathFirmware + "/" + name})
		}
	}
	if loader == "" { // static
		return c.binds, nil
	}
	c.binds = append(c.binds, bind{loader, loader})
	c.have[filepath.Base(loader)] = true
	c.dirs = libraryDirs()
	for len(c.todo) > 0 {
		name := c.todo[0]
		c.todo = c.todo[1:]
		if err := c.libraries(name); err != nil {
			return nil, err
		}
	}
	return c.binds, nil
}

// libraries adds those that one file names.
func (c *closure) libraries(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	defer f.Close()
	names, paths, err := needed(f)
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", name, err)
	}
	var own []string // RUNPATH comes before the system's directories, ld.so(8)
	origin := strings.NewReplacer("$ORIGIN", filepath.Dir(name), "${ORIGIN}", filepath.Dir(name))
	for _, p := range paths {
		for dir := range strings.SplitSeq(p, ":") {
			own = append(own, origin.Replace(dir))
		}
	}
	for _, lib := range names {
		if c.have[lib] {
			continue
		}
		if strings.ContainsRune(lib, '/') || len(c.have) >= maxLibraries {
			return fmt.Errorf("libraries of %s: %q is not understood", name, lib)
		}
		c.have[lib] = true
		from := firstFile("", append(own[:len(own):len(own)], c.dirs...), lib)
		if from == "" {
			return fmt.Errorf("library %s of %s is not installed", lib, name)
		}
		c.binds = append(c.binds, bind{from, pathLibraries + "/" + lib})
		c.todo = append(c.todo, from)
	}
	return nil
}

// needed are the libraries that a file names and where it has them looked for. It
// reads these few names alone: File.DynString reads all that a file has, 3 MB of QEMU
// and its libraries, each time it is asked.
func needed(f *elf.File) (libraries, paths []string, err error) {
	dynamic := f.SectionByType(elf.SHT_DYNAMIC)
	if dynamic == nil { // static
		return nil, nil, nil
	}
	if f.Class != elf.ELFCLASS64 || int64(dynamic.Link) >= int64(len(f.Sections)) || dynamic.Size > maxDynamic {
		return nil, nil, errors.New("its dynamic section is not understood")
	}
	entries, err := dynamic.Data()
	if err != nil {
		return nil, nil, err
	}
	for e := entries; len(e) >= 16; e = e[16:] {
		var to *[]string
		switch elf.DynTag(f.ByteOrder.Uint64(e)) {
		case elf.DT_NEEDED:
			to = &libraries
		case elf.DT_RPATH, elf.DT_RUNPATH:
			to = &paths
		default:
			continue
		}
		s, err := text(f.Sections[dynamic.Link], int64(f.ByteOrder.Uint64(e[8:])))
		if err != nil {
			return nil, nil, err
		}
		*to = append(*to, s)
	}
	return libraries, paths, nil
}

// maxDynamic bounds a dynamic section, some dozens of entries of 16 bytes.
const maxDynamic = 1 << 20

// text is what stands in a table of strings, up to its NUL.
func text(table *elf.Section, at int64) (string, error) {
	for size := 64; size <= 4096; size *= 2 {
		b := make([]byte, size)
		n, err := table.ReadAt(b, at)
		if s, _, ended := bytes.Cut(b[:n], []byte{0}); ended {
			return string(s), nil
		}
		if err != nil {
			return "", fmt.Errorf("its table of strings: %w", err)
		}
	}
	return "", errors.New("a name in it is too long")
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz > 4096 {
			return "", errors.New("its loader's path is too long")
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", err
		}
		path := strings.TrimRight(string(b), "\x00")
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return "", fmt.Errorf("its loader %q is no absolute path", path)
		}
		return path, nil
	}
	return "", nil
}

func firstFile(prefix string, dirs []string, name string) string {
	for _, d := range dirs {
		path := filepath.Join(prefix, d, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// libraryDirs are the directories of ld.so.conf and those that the loader
// knows by itself.
func libraryDirs() []string {
	dirs := readLoaderConf("/etc/ld.so.conf", 0)
	for _, d := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		if !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// readLoaderConf reads a file of ldconfig(8): a directory a line, or "include"
// with a pattern.
func readLoaderConf(name string, depth int) (dirs []string) {
	f, err := os.Open(name)
	if err != nil || depth > 4 {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		line = strings.TrimSpace(line)
		pattern, include := strings.CutPrefix(line, "include ")
		switch {
		case include:
			pattern = strings.TrimSpace(pattern)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(name), pattern)
			}
			found, _ := filepath.Glob(pattern) // a bad pattern matches nothing
			for _, n := range found {
				dirs = append(dirs, readLoaderConf(n, depth+1)...)
			}
		case filepath.IsAbs(line):
			dirs = append(dirs, filepath.Clean(line))
		}
	}
	return dirs
}

// checkKernel says early, and in words, what QEMU would say in others: that a
// file is no kernel, or one of another architecture.
func checkKernel(f *os.File) error {
	head := make([]byte, 0x206)
	n, err := f.ReadAt(head, 0)
	head = head[:n]
	switch {
	case n >= 20 && string(head[:4]) == elf.ELFMAG:
		if m := elf.Machine(uint16(head[18]) | uint16(head[19])<<8); m != elf.EM_X86_64 && m != elf.EM_386 {
			return fmt.Errorf("kernel %s is built for %s: want x86-64", f.Name(), strings.TrimPrefix(m.String(), "EM_"))
		}
		return nil
	case n == 0x206 && string(head[0x202:0x206]) == "HdrS": // Documentation/arch/x86/boot.rst
		return nil
	case n >= 0x40 && string(head[0x38:0x3c]) == "ARMd": // Documentation/arch/arm64/booting.rst
		return fmt.Errorf("kernel %s is built for arm64: want x86-64", f.Name())
	case n == 0 && err != nil && !errors.Is(err, fs.ErrClosed):
		return fmt.Errorf("kernel %s is empty or cannot be read: %w", f.Name(), err)
	}
	return fmt.Errorf("kernel %s is neither an ELF file nor a bzImage", f.Name())
}
