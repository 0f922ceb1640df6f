package fileserver_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/fsuid"
)

// poke writes to a mapping by a system call. An ordinary store could wait for
// the relay, which is in this process, without the Go scheduler's knowledge.
func poke(m, b []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		return err
	}
	_, err = unix.Read(int(r.Fd()), m[:len(b)])
	return err
}

// exercise does every operation in dir and returns what was seen.
func exercise(dir string) (log []string) {
	at := func(name string) string { return filepath.Join(dir, name) }
	say := func(what string, err error, more ...any) {
		var e unix.Errno
		if errors.As(err, &e) {
			err = e
		}
		log = append(log, fmt.Sprintln(append([]any{what, err}, more...)...))
	}
	stat := func(name string) {
		var st unix.Stat_t
		err := unix.Lstat(at(name), &st)
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		say("stat "+name, err, fmt.Sprintf("%o", st.Mode), st.Uid, st.Gid, size, st.Nlink)
	}
	say("mkdir", unix.Mkdir(at("d"), 0o1755))
	say("mkdir again", unix.Mkdir(at("d"), 0o755))
	f, err := os.OpenFile(at("f"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	say("create", err)
	if err != nil {
		return log
	}
	defer f.Close()
	_, err = f.WriteString("0123456789")
	say("write", err)
	stat("f")
	say("truncate", f.Truncate(4))
	stat("f")
	say("truncate by name", unix.Truncate(at("f"), 6))
	b, err := os.ReadFile(at("f"))
	say("read", err, b)
	say("fsync", f.Sync())
	say("fdatasync", unix.Fdatasync(int(f.Fd())))
	say("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, 100000))
	say("punch", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 65536))
	stat("f")
	for _, mode := range []uint32{0o4755, 0o2755, 0o600, 0o6777} {
		say("chmod", unix.Chmod(at("f"), mode))
		stat("f")
	}
	say("chown", unix.Lchown(at("f"), 1000, 1001))
	stat("f")
	say("chmod setgid", unix.Chmod(at("f"), 0o2775))
	stat("f")
	say("", unix.Chmod(at("f"), 0o775))
	_, err = f.WriteAt([]byte("x"), 0)
	say("write", err)
	stat("f")
	say("utimes", unix.UtimesNanoAt(unix.AT_FDCWD, at("f"), []unix.Timespec{{Sec: 11, Nsec: 12}, {Sec: 13, Nsec: 14}}, 0))
	var st unix.Stat_t
	say("times", unix.Stat(at("f"), &st), st.Atim, st.Mtim)
	say("symlink", unix.Symlink("../../../etc/passwd", at("l")))
	to, err := os.Readlink(at("l"))
	say("readlink", err, to)
	say("chown link", unix.Lchown(at("l"), 5, 6))
	stat("l")
	say("link", unix.Link(at("f"), at("d/hard")))
	say("link exists", unix.Link(at("f"), at("d/hard")))
	say("link of a directory", unix.Link(at("d"), at("d2")))
	stat("f")
	say("fifo", unix.Mkfifo(at("p"), 0o622))
	stat("p")
	say("chmod fifo", unix.Chmod(at("p"), 0o600))
	stat("p")
	say("socket", unix.Mknod(at("s"), unix.S_IFSOCK|0o666, 0))
	say("chmod socket", unix.Chmod(at("s"), 0o770))
	stat("s")
	say("noreplace", unix.Renameat2(unix.AT_FDCWD, at("l"), unix.AT_FDCWD, at("f"), unix.RENAME_NOREPLACE))
	say("exchange", unix.Renameat2(unix.AT_FDCWD, at("l"), unix.AT_FDCWD, at("f"), unix.RENAME_EXCHANGE))
	stat("l")
	stat("f")
	say("rename", os.Rename(at("l"), at("d/moved")))
	stat("d/moved")
	say("rename onto", os.Rename(at("d/moved"), at("d/hard")))
	say("rename back", os.Rename(at("d/hard"), at("file")))
	stat("file")
	say("rmdir full", unix.Rmdir(at(".")+"/../"+filepath.Base(dir)+"/d"))
	say("setxattr", unix.Setxattr(at("file"), "user.a", []byte("value"), 0))
	say("setxattr create", unix.Setxattr(at("file"), "user.a", []byte("value"), unix.XATTR_CREATE))
	buf := make([]byte, 100)
	n, err := unix.Getxattr(at("file"), "user.a", buf)
	say("getxattr", err, n, string(buf[:max(n, 0)]))
	n, err = unix.Getxattr(at("file"), "user.a", buf[:2])
	say("getxattr short", err, n)
	n, err = unix.Listxattr(at("file"), buf)
	say("listxattr", err, string(buf[:max(n, 0)]))
	say("removexattr", unix.Removexattr(at("file"), "user.a"))
	say("removexattr again", unix.Removexattr(at("file"), "user.a"))
	g, err := os.OpenFile(at("file"), os.O_RDWR|os.O_APPEND, 0)
	say("append", err)
	if err == nil {
		_, err = g.WriteString("tail")
		say("append", err)
		stat("file")
		hole, err := unix.Seek(int(g.Fd()), 0, unix.SEEK_HOLE)
		say("hole", err, hole >= 0)
		m, err := unix.Mmap(int(g.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		say("mmap", err)
		if err == nil {
			say("poke", poke(m, []byte("mapped")))
			say("msync", unix.Msync(m, unix.MS_SYNC))
			say("munmap", unix.Munmap(m))
		}
		say("unlink open", os.Remove(at("file")))
		_, err = g.WriteAt([]byte("later"), 3) // O_APPEND refuses it
		say("write at of an appending file", nil, err != nil)
		say("chmod unlinked", unix.Fchmod(int(g.Fd()), 0o611))
		say("truncate unlinked", g.Truncate(5))
		say("stat unlinked", unix.Fstat(int(g.Fd()), &st), st.Nlink, fmt.Sprintf("%o", st.Mode), st.Size)
		again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", g.Fd()))
		say("open unlinked again", err)
		if err == nil {
			n, err := again.Read(buf)
			say("read unlinked", err, string(buf[:n]))
			again.Close()
		}
		say("lock", unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		g.Close()
	}
	say("setgid directory", unix.Mkdir(at("g"), 0o755))
	say("", unix.Chown(at("g"), 3, 4))
	say("", unix.Chmod(at("g"), 0o2775))
	say("", unix.Mkdir(at("g/sub"), 0o755))
	say("", os.WriteFile(at("g/file"), nil, 0o644))
	stat("g/sub")
	stat("g/file")
	say("O_TRUNC", os.WriteFile(at("g/file"), []byte("abc"), 0o644))
	say("O_TRUNC", os.WriteFile(at("g/file"), []byte("d"), 0o644))
	stat("g/file")
	say("long name", unix.Mkdir(at(strings.Repeat("n", 256)), 0o755))
	say("name of 255", unix.Mkdir(at(strings.Repeat("n", 255)), 0o755))
	for i := range 3000 {
		if err := os.WriteFile(at(fmt.Sprintf("d/%04d", i)), []byte{byte(i)}, 0o644); err != nil {
			say("many", err)
		}
	}
	names, err := os.ReadDir(at("d"))
	say("list", err, len(names))
	for _, e := range names[:min(10, len(names))] {
		i, err := e.Info()
		say(e.Name(), err, i != nil && i.Size() == 1)
	}
	say("remove all", os.RemoveAll(at("d")))
	left, err := os.ReadDir(dir)
	var all []string
	for _, e := range left {
		all = append(all, e.Name()+e.Type().String())
	}
	slices.Sort(all)
	say("left", err, all)
	return log
}

func TestSameAsOnTheHost(t *testing.T) {
	_, inside, _ := mount(t, fileserver.Config{})
	got, want := exercise(inside), exercise(t.TempDir())
	if len(got) != len(want) || len(want) < 90 {
		t.Errorf("%d results, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("got  %swant %s", got[i], want[i])
		}
	}
}

// TestRandomReadsAndWrites is fsx's idea: a file and a copy in memory stay equal.
func TestRandomReadsAndWrites(t *testing.T) {
	source, inside, _ := mount(t, fileserver.Config{})
	f, err := os.Create(filepath.Join(inside, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const most = 400_000
	var want []byte
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 1500 {
		off, n := r.IntN(most), r.IntN(70_000)
		switch r.IntN(6) {
		case 0, 1:
			b := bytes.Repeat([]byte{byte(i)}, n)
			if _, err := f.WriteAt(b, int64(off)); err != nil {
				t.Fatal(err)
			}
			grow(off + n)
			copy(want[off:], b)
		case 2:
			if err := f.Truncate(int64(off)); err != nil {
				t.Fatal(err)
			}
			grow(off)
			want = want[:off:off]
		case 3:
			if len(want) < 4096 {
				continue
			}
			m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			at := r.IntN(len(want))
			want[at] = byte(i)
			if err := errors.Join(poke(m[at:], want[at:at+1]), unix.Msync(m, unix.MS_SYNC), unix.Munmap(m)); err != nil {
				t.Fatal(err)
			}
		default:
			b := make([]byte, n)
			c, _ := f.ReadAt(b, int64(off))
			var expect []byte
			if off < len(want) {
				expect = want[off:min(len(want), off+n)]
			}
			if !bytes.Equal(b[:c], expect) {
				t.Fatalf("step %d: read %d bytes at %d differ from what was written", i, c, off)
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(source, "f")); err != nil || !bytes.Equal(b, want) {
		t.Fatalf("the host sees other contents (%d bytes, want %d): %v", len(b), len(want), err)
	}
}

func TestPrograms(t *testing.T) {
	for _, c := range []struct{ tool, script string }{
		{"sqlite3", `sqlite3 db 'pragma journal_mode=wal; create table t(a); with recursive c(x) as (select 1 union all select x+1 from c where x<5000) insert into t select x from c;' >/dev/null
			test "$(sqlite3 db 'pragma integrity_check; select count(*) from t')" = "ok
5000"`},
		{"git", `git init -q r && cd r && for i in $(seq 200); do echo $i > f$i; done && git add . && git -c user.name=a -c user.email=b commit -qm x && git gc -q && git fsck --strict && git status --porcelain | wc -l | grep -qx 0`},
	} {
		t.Run(c.tool, func(t *testing.T) {
			if _, err := exec.LookPath(c.tool); err != nil {
				t.Skip(err)
			}
			_, inside, _ := mount(t, fileserver.Config{})
			cmd := exec.Command("sh", "-ec", c.script)
			cmd.Dir = inside
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

func TestHostChangesAreSeen(t *testing.T) {
	source, inside, _ := mount(t, fileserver.Config{})
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, "a"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	check := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			b, err := os.ReadFile(filepath.Join(inside, "a"))
			if string(b) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("read %q, %v; want %q", b, err, want)
			}
		}
	}
	check("one")
	write("three")
	check("three")
	if err := os.Rename(filepath.Join(source, "a"), filepath.Join(source, "b")); err != nil {
		t.Fatal(err)
	}
	write("another file")
	check("another file")
}

func TestReadOnly(t *testing.T) {
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "a"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, s := start(t, fileserver.Config{Source: source, ReadOnly: true})
	m, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", s.Pid()))
	if err != nil || !strings.Contains(string(m), " / ") || !strings.Contains(string(m), "ro,nosuid,nodev,noexec") {
		t.Errorf("mounts of the helper: %s %v", m, err)
	}
	_, inside, _ := mount(t, fileserver.Config{Source: source, ReadOnly: true})
	if b, err := os.ReadFile(filepath.Join(inside, "a")); err != nil || string(b) != "x" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(inside, "a"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	if err := os.Remove(filepath.Join(inside, "a")); !errors.Is(err, unix.EROFS) {
		t.Errorf("remove: %v", err)
	}
}

func TestSingleFile(t *testing.T) {
	source := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(source, []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, inside, _ := mount(t, fileserver.Config{Source: source})
	if b, err := os.ReadFile(inside); err != nil || string(b) != "host" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := os.WriteFile(inside, []byte("guest"), 0o644); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(source); err != nil || string(b) != "guest" {
		t.Errorf("the host reads %q, %v", b, err)
	}
}

func TestOwners(t *testing.T) {
	source := t.TempDir()
	for i, uid := range []int{0, 1000, 70000} {
		name := filepath.Join(source, fmt.Sprint(i))
		if err := errors.Join(os.WriteFile(name, nil, 0o644), os.Chown(name, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	const base = 500000
	_, inside, _ := mount(t, fileserver.Config{Source: source, IDBase: base})
	for i, want := range []uint32{base, base + 1000, base + 65534} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(inside, fmt.Sprint(i)), &st); err != nil || st.Uid != want || st.Gid != want {
			t.Errorf("owner %d:%d, %v; want %d", st.Uid, st.Gid, err, want)
		}
	}
	name := filepath.Join(inside, "0")
	if err := os.Chown(name, base+7, base+8); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(source, "0"), &st); err != nil || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("on the host %d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := os.Chown(name, 5, 5); !errors.Is(err, unix.EINVAL) {
		t.Errorf("chown to somebody outside the range: %v", err)
	}
	if err := os.Chown(filepath.Join(inside, "2"), base, base); err == nil {
		t.Error("took a file of somebody outside the range")
	}
	// What the machine's own root makes, a mount point, is the volume's root's.
	if err := os.Mkdir(filepath.Join(inside, "d"), 0o755); err != nil {
		t.Errorf("mkdir as the guest's root: %v", err)
	}
	if err := unix.Stat(filepath.Join(source, "d"), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("on the host %d:%d, %v", st.Uid, st.Gid, err)
	}
	// Others outside the range are nobody.
	if err := os.Chmod(filepath.Join(inside, "d"), 0o777); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(filepath.Join(inside, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.Setfsuid(5)
	err = unix.Mkdirat(int(d.Fd()), "e", 0o755) // others cannot walk to it
	syscall.Setfsuid(0)
	if !errors.Is(err, unix.EOVERFLOW) {
		t.Errorf("mkdir as an unmapped user: %v", err)
	}
}

// TestAccessControlLists has a list that gives the group less than the mode's group
// bits, which are its mask, a user more, and another user less than others.
func TestAccessControlLists(t *testing.T) {
	source := t.TempDir()
	file, dir, fifo := filepath.Join(source, "file"), filepath.Join(source, "dir"), filepath.Join(source, "fifo")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o604), os.Mkdir(dir, 0o755), unix.Mkfifo(fifo, 0o644), os.Chmod(source, 0o755), os.Lchown(file, 0, 6000)); err != nil {
		t.Fatal(err)
	}
	const user, group, mask, other, unnamed = 0x02, 0x04, 0x10, 0x20, 1<<32 - 1
	list := func(id func(uint32) uint32, entries ...[3]uint32) []byte {
		b := words(2)
		for _, e := range entries {
			b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
			b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
			b = append(b, words(id(e[2]))...)
		}
		return b
	}
	entries := [][3]uint32{{1, 6, unnamed}, {user, 4, 1000}, {user, 0, 1001}, {user, 4, 70000}, {group, 0, unnamed}, {mask, 4, unnamed}, {other, 4, unnamed}}
	const name = "system.posix_acl_access"
	if err := unix.Setxattr(file, name, list(func(id uint32) uint32 { return id }, entries...), 0); err != nil {
		t.Fatal(err)
	}
	const base = 500000
	_, inside, _ := mount(t, fileserver.Config{Source: source, IDBase: base})
	in := func(name string) string { return filepath.Join(inside, filepath.Base(name)) }

	buf := make([]byte, 256)
	n, err := unix.Getxattr(in(file), name, buf)
	want := list(func(id uint32) uint32 {
		if id == unnamed {
			return id
		}
		return base + id
	}, slices.Delete(slices.Clone(entries), 3, 4)...)
	if err != nil || !bytes.Equal(buf[:n], want) {
		t.Errorf("the list is %x, %v\nwant %x", buf[:max(n, 0)], err, want)
	}
	for _, without := range []string{dir, fifo} {
		if _, err := unix.Getxattr(in(without), name, buf); !errors.Is(err, unix.ENODATA) {
			t.Errorf("the list of %s, which has none: %v", without, err)
		}
	}
	if err := unix.Setxattr(in(dir), name, want, 0); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a list was set: %v", err)
	}
	d, err := os.Open(inside) // others cannot walk to it
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, who := range []struct {
		uid, gid int
		want     error
	}{{1000, 6000, nil}, {1001, 7000, unix.EACCES}, {1002, 6000, unix.EACCES}, {1002, 7000, nil}} {
		err := fsuid.Do(base+who.uid, base+who.gid, func() error {
			var none [2]unix.CapUserData
			if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
				return err
			}
			fd, err := unix.Openat(int(d.Fd()), "file", unix.O_RDONLY, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		})
		if !errors.Is(err, who.want) || (err == nil) != (who.want == nil) {
			t.Errorf("user %d, group %d: %v, want %v", who.uid, who.gid, err, who.want)
		}
	}
}

func TestNothingHangsWhenTheHelperDies(t *testing.T) {
	_, inside, s := mount(t, fileserver.Config{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadDir(inside); err == nil {
		t.Error("the volume still answers")
	}
}

// TestServedLater: a volume is mounted, and bound elsewhere, before anybody serves
// it. Until then it is there and nothing can be done with it; afterwards all of it is
// the server's, also what was looked at before.
func TestServedLater(t *testing.T) {
	needRoot(t)
	for _, file := range []bool{false, true} {
		t.Run(fmt.Sprint("file ", file), func(t *testing.T) {
			source, mode := t.TempDir(), os.ModeDir|0o750
			dir := t.TempDir()
			inside, bound := filepath.Join(dir, "inside"), filepath.Join(dir, "bound")
			if file {
				source, mode = filepath.Join(source, "text"), 0o640
				for _, f := range []string{source, inside, bound} {
					if err := os.WriteFile(f, []byte("what is there"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				for _, d := range []string{inside, bound} {
					if err := os.Mkdir(d, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(source, "text"), []byte("what is there"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(source, mode.Perm()); err != nil {
				t.Fatal(err)
			}
			text := func(at string) string {
				if !file {
					at = filepath.Join(at, "text")
				}
				b, err := os.ReadFile(at)
				if err != nil {
					return err.Error()
				}
				return string(b)
			}
			v, err := volume.Mount(inside, volume.Options{File: file})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := v.Unmount(); err != nil {
					t.Error(err)
				}
			})
			if err := unix.Mount(inside, bound, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(bound, unix.MNT_DETACH) })
			if fi, err := os.Stat(bound); err != nil || fi.IsDir() == file {
				t.Errorf("before: %v, %v", fi, err)
			}
			if got := text(bound); got == "what is there" || !strings.Contains(got, "input/output error") && !(file && got == "") {
				t.Errorf("before: %q", got)
			}
			if !file {
				if _, err := os.Create(filepath.Join(bound, "new")); !errors.Is(err, unix.EIO) {
					t.Errorf("before: make a file: %v", err)
				}
			}
			_, s := start(t, fileserver.Config{Source: source, IDCount: 1 << 16})
			if err := v.Serve(s.Conn()); err != nil {
				t.Fatal(err, s.Wait())
			}
			for _, at := range []string{inside, bound} {
				fi, err := os.Stat(at)
				if err != nil || fi.Mode() != mode {
					t.Errorf("%s: %v, %v, want %v", at, fi, err, mode)
				}
				if got := text(at); got != "what is there" {
					t.Errorf("%s: %q", at, got)
				}
			}
			if err := v.Serve(s.Conn()); err == nil {
				t.Error("served twice")
			}
		})
	}
}

// TestNoNameIsTaken uses the name of the file that the relay shows while it
// mounts.
func TestNoNameIsTaken(t *testing.T) {
	source, inside, _ := mount(t, fileserver.Config{})
	const name = ".bulkhead-poll"
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(inside, name), &st); err != unix.ENOENT {
		t.Errorf("lstat of what nobody made: %v", err)
	}
	// The kernel asks for this attribute whoever may read the file, and never again
	// of any file once the answer is ENOSYS.
	unix.Lgetxattr(filepath.Join(inside, name), "security.capability", make([]byte, 8))
	if err := os.WriteFile(filepath.Join(inside, name), []byte("mine"), 0o644); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(source, name)); err != nil || string(b) != "mine" {
		t.Errorf("the host has %q, %v", b, err)
	}
	if err := unix.Lsetxattr(filepath.Join(inside, name), "user.a", []byte("value"), 0); err != nil {
		t.Error(err)
	}
	value := make([]byte, 8)
	if n, err := unix.Lgetxattr(filepath.Join(inside, name), "user.a", value); err != nil || string(value[:n]) != "value" {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
}
