package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// resident is what a process has in memory of the mappings of a file, in KiB.
func resident(t *testing.T, pid int, path string) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			ours = f[len(f)-1] == path
		case ours && f[0] == "Rss:":
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib
}

// paddedKernel is a kernel whose segment is a mebibyte, which QEMU maps.
func paddedKernel(t *testing.T, c code) string {
	return kernel(t, append(c, bytes.Repeat([]byte{0x90}, mib)...))
}

// TestShrink takes from a running QEMU what it does not need, and looks whether
// all goes on: it answers, a reset ends it as ever, and the files that it booted
// from are empty, and read-only as before.
func TestShrink(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		t.Run(string(machine), func(t *testing.T) {
			cfg := config(t, nil)
			cfg.Kernel = paddedKernel(t, code{}.stack().print("up").hang())
			cfg.Initramfs, cfg.Machine = cfg.Kernel, machine
			m := start(t, cfg)
			console(t, m, "up")
			if got := resident(t, m.Pid(), pathKernel); got < 1024 {
				t.Errorf("%d KiB of the kernel are in memory: this tests nothing", got)
			}
			program := resident(t, m.Pid(), pathBinary)
			if err := m.Loaded(); err != nil {
				t.Fatal(err)
			}
			if err := m.Trim(); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{pathKernel, pathInitramfs} {
				// A page that QEMU wrote to is its own.
				if got := resident(t, m.Pid(), path); got > 64 {
					t.Errorf("%d KiB of %s are in memory", got, path)
				}
				name := fmt.Sprintf("/proc/%d/root%s", m.Pid(), path)
				b, err := os.ReadFile(name)
				if want, _ := os.ReadFile(cfg.Kernel); err != nil || !bytes.Equal(b, make([]byte, len(want))) {
					t.Errorf("%s: %d bytes, %v; want %d zeros", path, len(b), err, len(want))
				}
				if f, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
					f.Close()
					t.Errorf("%s can be written", path)
				}
			}
			t.Logf("the program: %d KiB, then %d", program, resident(t, m.Pid(), pathBinary))
			if run, err := processorsRun(t.Context(), m); err != nil || !run {
				t.Fatalf("running %v, %v", run, err)
			}
			if err := errorsJoin(m.Loaded(), m.Trim()); err != nil { // nothing happens by it
				t.Error(err)
			}
			if _, err := m.qmp.do(t.Context(), "system_reset", nil); err != nil {
				t.Fatal(err)
			}
			if ws, err := wait(t.Context(), m); err != nil || ws != 0 {
				t.Errorf("QEMU ended with %v, %v: %s", ws, err, m.Stderr())
			}
			if err := m.Trim(); err != nil {
				t.Errorf("of a QEMU that has ended: %v", err)
			}
		})
	}
}

// TestShrinkFails: what cannot be given back is told, and QEMU runs on.
func TestShrinkFails(t *testing.T) {
	m := start(t, config(t, code{}.stack().print("up").hang()))
	console(t, m, "up")
	m.boot[0].Close()
	if err := m.Loaded(); err == nil || !strings.Contains(err.Error(), "empty the copy of the kernel") {
		t.Errorf("%v", err)
	}
	if _, err := sys.PageOut(-1, []sys.Range{{From: 4096, Length: 4096}}); err != unix.EBADF {
		t.Errorf("no process: %v", err)
	}
	if run, err := processorsRun(t.Context(), m); err != nil || !run {
		t.Errorf("running %v, %v", run, err)
	}
}

// TestTrimWithoutCapability: a supervisor that may not do it says so, and QEMU
// runs on.
func TestTrimWithoutCapability(t *testing.T) {
	m := start(t, config(t, code{}.stack().print("up").hang()))
	console(t, m, "up")
	for what, without := range map[string]uint64{
		"to advise": 1 << unix.CAP_SYS_NICE,
		"to look":   1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_PERFMON | 1<<unix.CAP_SYS_ADMIN, // Linux 6.15 takes any of them
	} {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and it ends with its capabilities
			h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var d [2]unix.CapUserData
			if err := unix.Capget(&h, &d[0]); err != nil {
				done <- err
				return
			}
			d[0].Effective &^= uint32(without)
			d[1].Effective &^= uint32(without >> 32)
			if err := unix.Capset(&h, &d[0]); err != nil {
				done <- err
				return
			}
			done <- m.Trim()
		}()
		if err := <-done; !errors.Is(err, fs.ErrPermission) {
			t.Errorf("not allowed %s: %v", what, err)
		}
	}
	if run, err := processorsRun(t.Context(), m); err != nil || !run {
		t.Errorf("running %v, %v", run, err)
	}
}

func TestProgramRanges(t *testing.T) {
	const good = "1000-3000 r-xp 00321000 08:01 1234   /qemu\n"
	binds := []bind{{"/usr/bin/qemu", pathBinary}, {"/lib/libc.so.6", pathLibraries + "/libc.so.6"}}
	for name, tc := range map[string]struct {
		maps string
		want []sys.Range
		bad  bool
	}{
		"program and library": {good + "5000-6000 r--p 00000000 08:01 1234   /libraries/libc.so.6\n", []sys.Range{{From: 0x1000, Length: 0x2000}, {From: 0x5000, Length: 0x1000}}, false},
		"writable":            {"1000-3000 rw-p 00321000 08:01 1234   /qemu\n", nil, false},
		"guest memory":        {"1000-3000 rw-p 00000000 00:00 0 \n1000-3000 r--p 00000000 00:00 0 \n", nil, false},
		"another file":        {"1000-3000 r-xp 00000000 08:01 12 /initramfs\n1000-3000 r-xp 00000000 08:01 12 /qemu2\n", nil, false},
		"replaced since":      {"1000-3000 r-xp 00000000 08:01 12 /qemu (deleted)\n", nil, false},
		"no range":            {"3000-1000 r-xp 00000000 08:01 12 /qemu\n", nil, true},
		"no number":           {"x-1000 r-xp 00000000 08:01 12 /qemu\n", nil, true},
		"too large":           {"0-1ffffffffffffffff r-xp 00000000 08:01 12 /qemu\n", nil, true},
		"nothing":             {"\n\n", nil, false},
	} {
		got, err := programRanges(strings.NewReader(tc.maps), binds)
		if (err != nil) != tc.bad || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tc.want)
		}
	}
	if got, err := programRanges(strings.NewReader(strings.Repeat(good, 10*maxProgramRanges)), binds); err != nil || len(got) != maxProgramRanges {
		t.Errorf("%d ranges, %v", len(got), err)
	}
}

func TestLoadedParts(t *testing.T) {
	elf := func(segments ...[3]uint64) []byte { // kind, offset, size
		b := make([]byte, 64, 16384)
		copy(b, "\x7fELF\x02\x01\x01")
		le := binary.LittleEndian
		le.PutUint64(b[32:], 64)
		le.PutUint16(b[54:], 56)
		le.PutUint16(b[56:], uint16(len(segments)))
		for _, s := range segments {
			p := make([]byte, 56)
			le.PutUint32(p, uint32(s[0]))
			le.PutUint64(p[8:], s[1])
			le.PutUint64(p[32:], s[2])
			b = append(b, p...)
		}
		return append(b, make([]byte, 16384-len(b))...)
	}
	table := func(b []byte, at uint64) []byte { // of segments, somewhere else
		binary.LittleEndian.PutUint64(b[32:], at)
		return b
	}
	all := []extent{{0, 16384}}
	for name, tc := range map[string]struct {
		file []byte
		want []extent
	}{
		"segments":      {elf([3]uint64{1, 9000, 100}, [3]uint64{4, 12000, 8}), []extent{{0, 8192}, {9000, 9100}, {12000, 12008}}},
		"overlapping":   {elf([3]uint64{1, 10000, 100}, [3]uint64{1, 9000, 1010}, [3]uint64{4, 9000, 8}), []extent{{0, 8192}, {9000, 10100}}},
		"another kind":  {elf([3]uint64{1, 9000, 100}, [3]uint64{7, 12000, 8}), []extent{{0, 8192}, {9000, 9100}}},
		"cut off":       {elf([3]uint64{1, 16000, 385}), all},
		"far away":      {elf([3]uint64{1, 1 << 63, 1 << 63}), all},
		"at the begin":  {elf([3]uint64{1, 0, 8200}), []extent{{0, 8200}}},
		"far table":     {table(elf([3]uint64{1, 9000, 100}), 1<<63), all},
		"last table":    {table(elf([3]uint64{1, 9000, 100}), 16384-56), []extent{{0, 8192}, {16384 - 56, 16384}}},
		"table cut off": {table(elf([3]uint64{1, 9000, 100}), 16384-55), all},
		"no segment":    {elf(), all},
		"not ELF":       {make([]byte, 16384), all},
		"32 bits":       {append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 16377)...), all},
		"too many":      {elf(make([][3]uint64, 65)...), all},
		"short":         {[]byte("\x7fELF\x02\x01"), []extent{{0, 6}}},
		"nothing at it": {nil, []extent{{0, 0}}},
	} {
		if got := loadedParts(bytes.NewReader(tc.file), int64(len(tc.file))); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestEntered: QEMU gets no ELF file that it would look for an entry in beyond
// the end of its notes.
func TestEntered(t *testing.T) {
	b, err := os.ReadFile(kernel(t, code{}.hang()))
	if err != nil {
		t.Fatal(err)
	}
	const program, note = 64 + 56, 64 + 2*56
	for name, tc := range map[string]struct {
		change func(b []byte) []byte
		want   bool
	}{
		"as it is":       {func(b []byte) []byte { return b }, true},
		"another note":   {func(b []byte) []byte { b[note+8] = 17; return b }, false},
		"cleared":        {func(b []byte) []byte { clear(b[note : note+24]); return b }, false},
		"no note":        {func(b []byte) []byte { b[program] = 7; return b }, false},
		"an empty one":   {func(b []byte) []byte { clear(b[program+32 : program+40]); return b }, false},
		"no alignment":   {func(b []byte) []byte { clear(b[program+48 : program+56]); return b }, true},
		"odd alignment":  {func(b []byte) []byte { b[program+48] = 200; return b }, false},
		"long name":      {func(b []byte) []byte { b[note+8] = 17; copy(b[note:], "\xff\xff\xff\xff\xff\xff\xff\xff"); return b }, false},
		"cut off":        {func(b []byte) []byte { return b[:note+8] }, true},
		"no ELF":         {func(b []byte) []byte { b[0] = 0; return b }, true},
		"nothing at all": {func([]byte) []byte { return nil }, true},
	} {
		c := tc.change(bytes.Clone(b))
		if got := entered(bytes.NewReader(c), int64(len(c))); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// FuzzLoadedParts: parts lie in the file, in order, and do not overlap.
func FuzzLoadedParts(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Add(append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		entered(bytes.NewReader(b), int64(len(b)))
		at := int64(0)
		for _, p := range loadedParts(bytes.NewReader(b), int64(len(b))) {
			if p.from < at || p.to < p.from || p.to > int64(len(b)) {
				t.Fatalf("%v of %d bytes", p, len(b))
			}
			at = p.to
		}
	})
}

// TestBootFilesAreCopied: the copies are the same as far as they are loaded, and
// what has no room in the guest is refused before the host makes any.
func TestBootFilesAreCopied(t *testing.T) {
	cfg := config(t, code{}.stack().print("up").hang())
	cfg.Initramfs = filepath.Join(t.TempDir(), "initramfs")
	content := append(append([]byte("begin"), make([]byte, 3*mib)...), []byte("end")...)
	if err := os.WriteFile(cfg.Initramfs, content, 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, cfg)
	console(t, m, "up")
	if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", m.Pid(), pathInitramfs)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes of the initramfs, %v; want the same %d", len(got), err, len(content))
	}
	if err := os.Truncate(cfg.Initramfs, cfg.Memory); err != nil {
		t.Fatal(err)
	}
	if m, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "more than the guest's memory") {
		if m != nil {
			m.Close()
		}
		t.Errorf("%v", err)
	}
}

// TestCopyFails: a copy that has no room, or of a file that becomes shorter, says
// so, and leaves neither descriptor nor memory.
func TestCopyFails(t *testing.T) {
	config(t, nil) // skips where no machine can be
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 3*os.Getpagesize()), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for what, tc := range map[string]struct {
		room, size int64
		want       error
	}{
		"no room":        {int64(os.Getpagesize()), int64(3 * os.Getpagesize()), unix.ENOSPC},
		"shorter by now": {1 << 20, int64(4 * os.Getpagesize()), io.ErrUnexpectedEOF},
	} {
		before, err := leakcheck.Take(leakcheck.Options{})
		if err != nil {
			t.Fatal(err)
		}
		mount, err := memoryFS(tc.room)
		if err != nil {
			t.Fatal(err)
		}
		f := source{name: bootKernel, file: file, size: tc.size, parts: []extent{{0, tc.size}}}
		if to, err := f.copyTo(int(mount.Fd())); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, %v; want %v", what, to, err, tc.want)
		}
		mount.Close()
		if left := before.Wait(leakcheck.Options{}); len(left) > 0 {
			t.Errorf("%s: left behind: %q", what, left)
		}
	}
}
