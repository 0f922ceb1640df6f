package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// QEMU maps the kernel and the initramfs into its memory and keeps them, for a
// reset that never comes (-no-reboot): tens of megabytes for as long as the
// machine lives. So it gets copies, in a file system in memory that is only
// theirs, and when the guest runs the copies are made empty. Whoever reads them
// then, such as a guest that asks the firmware's interface for its initramfs
// again, reads zeros, and takes no more memory by it than was taken before.
//
//	supervisor                          QEMU's root
//	  boot: tmpfs, attached nowhere
//	    kernel     open for writing ──── /kernel     a mount of the file, read-only
//	    initramfs  open for writing ──── /initramfs
//
// The tmpfs has no name and ends with its last user, however that ends. While
// the guest boots, the copies count as the supervisor's memory, for its cgroup is
// that of whoever writes; what QEMU makes of the holes later counts as its own.

// The files' names in it.
const (
	bootKernel    = "kernel"
	bootInitramfs = "initramfs"
)

// source is a file that QEMU boots, opened.
type source struct {
	name  string
	file  *os.File
	size  int64
	parts []extent // what QEMU loads of it
}

// extent is a part of a file, in bytes.
type extent struct{ from, to int64 }

// openBoot opens the files, and copies them.
func (s *starter) openBoot(in *inputs) error {
	sources := []source{{name: bootKernel}}
	if in.initramfs = s.cfg.Initramfs != ""; in.initramfs {
		sources = append(sources, source{name: bootInitramfs})
	}
	defer func() {
		for _, f := range sources {
			f.file.Close() // nil is fine
		}
	}()
	var size, loaded int64
	for i := range sources {
		f := &sources[i]
		if err := f.open(s.cfg); err != nil {
			return err
		}
		size += roundToPage(f.size)
		for _, p := range f.parts {
			loaded += p.to - p.from
		}
	}
	if loaded > s.cfg.Memory {
		return fmt.Errorf("kernel %s and what it starts with are %d bytes: more than the guest's memory, which has %d", s.cfg.Kernel, loaded, s.cfg.Memory)
	}
	mount, err := memoryFS(size)
	if err != nil {
		return err
	}
	defer mount.Close()
	for _, f := range sources {
		to, err := f.copyTo(int(mount.Fd()))
		if err != nil {
			return fmt.Errorf("copy the %s into memory: %w", f.name, err)
		}
		s.boot = append(s.boot, to)
	}
	in.boot, err = s.far(mount)
	return err
}

func (f *source) open(cfg Config) error {
	path := cfg.Initramfs
	if f.name == bootKernel {
		path = cfg.Kernel
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	f.file = file
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s %s is not a regular file", f.name, path)
	}
	f.size = st.Size()
	f.parts = []extent{{0, f.size}}
	if f.name != bootKernel {
		return nil
	}
	if err := checkKernel(file); err != nil {
		return err
	}
	f.parts = loadedParts(file, f.size)
	if !entered(file, f.size) {
		return &Fault{Who: Kernel, Text: "QEMU cannot load the kernel's image: " + path + " has no PVH entry note; a kernel needs CONFIG_PVH=y"}
	}
	return nil
}

// What of an ELF file is looked at, elf(5).
const (
	elfHeader  = 64 // bytes
	elfProgram = 56 // bytes of one program header
	elfMost    = 64 // program headers
	elfLoad    = 1  // PT_LOAD
	elfNote    = 4  // PT_NOTE
)

// programs returns the program headers of an ELF file of 64 bits, and where they
// are in it. Of any other file, and of one that they are not whole of, there are
// none.
func programs(f io.ReaderAt, size int64) (raw []byte, at int64) {
	h := make([]byte, elfHeader)
	if _, err := f.ReadAt(h, 0); err != nil || string(h[:6]) != "\x7fELF\x02\x01" {
		return nil, 0
	}
	le := binary.LittleEndian
	table, count := le.Uint64(h[32:]), int(le.Uint16(h[56:]))
	if le.Uint16(h[54:]) != elfProgram || count == 0 || count > elfMost || table > uint64(size) || uint64(count*elfProgram) > uint64(size)-table {
		return nil, 0
	}
	raw = make([]byte, count*elfProgram)
	if _, err := f.ReadAt(raw, int64(table)); err != nil {
		return nil, 0
	}
	for p := raw; len(p) > 0; p = p[elfProgram:] {
		kind, from, length := le.Uint32(p), le.Uint64(p[8:]), le.Uint64(p[32:])
		if (kind == elfLoad || kind == elfNote) && (from > uint64(size) || length > uint64(size)-from) {
			return nil, 0 // cut off: QEMU shall say so
		}
	}
	return raw, int64(table)
}

// loadedParts are what QEMU reads of a kernel: the begin, by which it tells what
// it is (hw/i386/x86.c looks at 8 KiB), and of an ELF file the headers, the
// segments and the notes, and not what describes it to a debugger, which can be
// ten times as much. Whatever else the file is, it is everything.
func loadedParts(f io.ReaderAt, size int64) []extent {
	const begin = 8192
	raw, table := programs(f, size)
	if raw == nil {
		return []extent{{0, size}}
	}
	parts := []extent{{0, min(begin, size)}, {table, table + int64(len(raw))}}
	for p := raw; len(p) > 0; p = p[elfProgram:] {
		if kind := binary.LittleEndian.Uint32(p); kind == elfLoad || kind == elfNote {
			from := int64(binary.LittleEndian.Uint64(p[8:]))
			parts = append(parts, extent{from, from + int64(binary.LittleEndian.Uint64(p[32:]))})
		}
	}
	return merged(parts)
}

// entered tells whether an ELF file of 64 bits has the note by which QEMU enters
// it (Xen's public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY). QEMU 7.2 looks for it
// beyond the notes, in what was not copied, and dies at the end of that. Whatever
// else the file is, QEMU shall say.
func entered(f io.ReaderAt, size int64) bool {
	const entry, most = 18, 1 << 20
	raw, _ := programs(f, size)
	for p := raw; len(p) > 0; p = p[elfProgram:] {
		le := binary.LittleEndian
		if le.Uint32(p) != elfNote {
			continue
		}
		b, align := make([]byte, min(le.Uint64(p[32:]), most)), max(4, le.Uint64(p[48:]))
		if _, err := f.ReadAt(b, int64(le.Uint64(p[8:]))); err != nil || align > 8 {
			continue
		}
		padded := func(n uint32) uint64 { return (uint64(n) + align - 1) / align * align }
		for len(b) >= 12 {
			if le.Uint32(b[8:]) == entry {
				return true
			}
			b = b[min(uint64(len(b)), 12+padded(le.Uint32(b))+padded(le.Uint32(b[4:]))):]
		}
	}
	return raw == nil
}

// merged sorts extents and joins those that overlap.
func merged(parts []extent) []extent {
	slices.SortFunc(parts, func(a, b extent) int { return int(min(max(a.from-b.from, -1), 1)) })
	out := parts[:1]
	for _, p := range parts[1:] {
		if last := &out[len(out)-1]; p.from <= last.to {
			last.to = max(last.to, p.to)
		} else {
			out = append(out, p)
		}
	}
	return out
}

// copyTo copies the parts to a new file in a directory. What is not copied
// reads as zeros and takes no memory, like what is zeros already.
func (f *source) copyTo(dir int) (_ *os.File, err error) {
	fd, err := unix.Openat(dir, f.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: f.name, Err: err}
	}
	to := os.NewFile(uintptr(fd), f.name)
	defer func() {
		if err != nil {
			to.Close()
		}
	}()
	// QEMU's user is nobody's owner, and the umask may be any.
	if err := errors.Join(to.Chmod(0o444), to.Truncate(f.size)); err != nil {
		return nil, err
	}
	const piece = 1 << 18
	buf, zeros := make([]byte, piece), make([]byte, piece)
	for _, p := range f.parts {
		for at := p.from; at < p.to; at += piece {
			b := buf[:min(piece, p.to-at)]
			if _, err := f.file.ReadAt(b, at); err != nil {
				if errors.Is(err, io.EOF) {
					err = fmt.Errorf("it became shorter: %w", io.ErrUnexpectedEOF)
				}
				return nil, err
			}
			if bytes.Equal(b, zeros[:len(b)]) {
				continue
			}
			if _, err := to.WriteAt(b, at); err != nil {
				return nil, err
			}
		}
	}
	return to, nil
}

// memoryFS makes a tmpfs of at most so many bytes, attached nowhere.
func memoryFS(size int64) (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen tmpfs", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"source", "bulkhead"}, {"size", strconv.FormatInt(size, 10)}, {"nr_inodes", "8"}, {"mode", "700"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return nil, os.NewSyscallError("fsconfig "+o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig create", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "boot"), nil
}

// roundToPage rounds up to what a file in memory takes.
func roundToPage(n int64) int64 {
	page := int64(os.Getpagesize())
	return (n + page - 1) / page * page
}
