package fileserver_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// client is a guest's kernel that says whatever it likes.
type client struct {
	t    testing.TB
	conn io.ReadWriter
	n    uint64
}

func newClient(t testing.TB, conn io.ReadWriter) *client {
	c := &client{t: t, conn: conn}
	if e, _ := c.call(fuse.Init, 0, words(7, 31, 0, 0), make([]byte, 48)); e != 0 {
		t.Fatal("INIT:", e)
	}
	return c
}

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func longs(v ...uint64) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func (c *client) send(op uint32, node uint64, parts ...[]byte) {
	c.t.Helper()
	c.n++
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	m := words(uint32(fuse.InHeaderSize+len(body)), op)
	m = append(m, longs(c.n, node)...)
	m = append(m, words(0, 0, 1, 0)...)
	if _, err := c.conn.Write(append(m, body...)); err != nil {
		c.t.Fatal("send:", err)
	}
}

func (c *client) call(op uint32, node uint64, parts ...[]byte) (unix.Errno, []byte) {
	c.t.Helper()
	c.send(op, node, parts...)
	buf := make([]byte, fuse.MaxReply)
	n, err := fuse.ReadReply(c.conn, buf)
	if err != nil {
		c.t.Fatal("receive:", err)
	}
	return unix.Errno(-int32(binary.LittleEndian.Uint32(buf[4:]))), buf[fuse.OutHeaderSize:n]
}

func (c *client) lookup(node uint64, name string) (unix.Errno, uint64) {
	e, b := c.call(fuse.Lookup, node, []byte(name+"\x00"))
	if e != 0 {
		return e, 0
	}
	return 0, binary.LittleEndian.Uint64(b)
}

func TestNamesDoNotLeadOut(t *testing.T) {
	_, s := start(t, fileserver.Config{})
	c := newClient(t, s.Conn())
	for _, name := range []string{"..", ".", "", "/", "/etc", "../x", "a/b", "a/..", strings.Repeat("x", 300)} {
		for op, before := range map[uint32][]byte{
			fuse.Lookup: nil, fuse.Mkdir: words(0o755, 0), fuse.Mknod: words(unix.S_IFREG|0o644, 0, 0, 0), fuse.Unlink: nil, fuse.Rmdir: nil,
			fuse.Create: words(2, 0o644, 0, 0), fuse.Rename: longs(1), fuse.Link: longs(1), fuse.Symlink: nil,
		} {
			rest := []byte(name + "\x00ok\x00")
			if e, _ := c.call(op, fuse.RootID, before, rest); e != unix.EINVAL && e != unix.ENAMETOOLONG {
				t.Errorf("operation %d with name %.20q: %v", op, name, e)
			}
		}
	}
	for _, node := range []uint64{0, 2, 1 << 40, 1<<64 - 1} {
		if e, _ := c.call(fuse.Getattr, node, make([]byte, 16)); e != unix.ESTALE {
			t.Errorf("node %d: %v", node, e)
		}
	}
	if e, _ := c.call(fuse.Read, fuse.RootID, longs(99, 0), make([]byte, 24)); e != unix.EBADF {
		t.Errorf("a handle that was never given: %v", e)
	}
	if e, _ := c.call(fuse.Mknod, fuse.RootID, words(unix.S_IFBLK|0o666, 0x100, 0, 0), []byte("disk\x00")); e != unix.EPERM {
		t.Errorf("mknod of a device: %v", e)
	}
	for range 1000 { // more than was ever given, of nobody and of the root
		c.send(fuse.Forget, fuse.RootID, longs(1<<63))
		c.send(fuse.Forget, 12345, longs(1))
	}
	c.send(fuse.BatchForget, 0, words(1<<31, 0), longs(1, 1<<60))
	if e, _ := c.call(fuse.Statfs, fuse.RootID); e != 0 {
		t.Errorf("after a storm of forgets: %v", e)
	}
}

// TestRacerDoesNotLeadOut swaps a directory for a link that leads out, again
// and again, while a guest that ignores what it is told walks through it.
func TestRacerDoesNotLeadOut(t *testing.T) {
	out := t.TempDir()
	const secret = "of the host"
	if err := os.WriteFile(filepath.Join(out, "f"), []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	source, s := start(t, fileserver.Config{})
	d, l := filepath.Join(source, "d"), filepath.Join(source, "l")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d, "f"), []byte("of the volume"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(out, l); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, l, unix.RENAME_EXCHANGE)
			}
		}
	}()
	c := newClient(t, s.Conn())
	read := 0
	for range 800 {
		e, dir := c.lookup(fuse.RootID, "d")
		if e != 0 {
			continue
		}
		e, f := c.lookup(dir, "f")
		if e != 0 {
			continue
		}
		c.call(fuse.Create, dir, words(1|unix.O_CREAT, 0o644, 0, 0), []byte("made\x00"))
		e, b := c.call(fuse.Open, f, words(0, 0))
		if e != 0 {
			continue
		}
		fh := binary.LittleEndian.Uint64(b)
		e, b = c.call(fuse.Read, f, longs(fh, 0), words(100, 0), make([]byte, 16))
		if e == 0 && strings.Contains(string(b), secret) {
			t.Fatal("a file outside the volume was read")
		}
		read++
		c.call(fuse.Release, f, longs(fh, 0, 0))
	}
	close(stop)
	<-stopped
	if _, err := os.Lstat(filepath.Join(out, "made")); err == nil {
		t.Fatal("a file was made outside the volume")
	}
	if read == 0 {
		t.Error("the race was never won by the directory: nothing was tested")
	}
	t.Logf("read %d times", read)
}

func TestConfinement(t *testing.T) {
	source, s := start(t, fileserver.Config{})
	newClient(t, s.Conn()) // its program runs
	proc := fmt.Sprintf("/proc/%d/", s.Pid())
	b, err := os.ReadFile(proc + "status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "THP_enabled:\t0", "CapInh:\t0000000000000000", "CapPrm:\t000000000000001b", "CapEff:\t000000000000001b", "CapBnd:\t000000000000001b", "CapAmb:\t0000000000000000", "Groups:\t \n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in its status:\n%s", want, b)
		}
	}
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		mine, _ := os.Readlink("/proc/self/ns/" + ns)
		its, err := os.Readlink(proc + "ns/" + ns)
		if err != nil || mine == its {
			t.Errorf("%s namespace: %s %v", ns, its, err)
		}
	}
	if err := os.WriteFile(filepath.Join(source, "here"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(proc + "root")
	if err != nil || len(names) != 1 || names[0].Name() != "here" {
		t.Errorf("its root directory: %v %v", names, err)
	}
	m, err := os.ReadFile(proc + "mountinfo")
	if err != nil || strings.Count(string(m), "\n") != 1 || !strings.Contains(string(m), "nosuid,nodev,noexec") || !strings.Contains(string(m), "nosymfollow") {
		t.Errorf("its mounts: %s %v", m, err)
	}
	fds, err := os.ReadDir(proc + "fd")
	if err != nil || len(fds) > 4 {
		t.Errorf("its descriptors: %v %v", fds, err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(proc + "fd/" + fd.Name())
		if to != "/" && !strings.HasPrefix(to, "socket:") && !strings.HasPrefix(to, "pipe:") {
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
}

func TestMalformedStreamEndsTheHelperOnly(t *testing.T) {
	_, s := start(t, fileserver.Config{})
	if _, err := s.Conn().Write(words(1<<31, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Wait() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits")
	}
}

func TestJoinsItsCgroup(t *testing.T) {
	needRoot(t)
	dir := "/sys/fs/cgroup/pids/bulkhead-fileserver-test"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir = "/sys/fs/cgroup/bulkhead-fileserver-test"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("cannot make a cgroup:", err)
	}
	t.Cleanup(func() {
		for range 50 { // the last process leaves a moment after it is reaped
			if os.Remove(dir) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Error("the cgroup is still in use")
	})
	_, s := start(t, fileserver.Config{Cgroups: []string{dir}})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.Pid()))
	if err != nil || !strings.Contains(string(b), "/bulkhead-fileserver-test") {
		t.Errorf("its cgroups: %s %v", b, err)
	}
}

func TestExplain(t *testing.T) {
	var b strings.Builder
	if err := fileserver.Explain(&b, fileserver.Config{Source: t.TempDir(), ReadOnly: true, IDCount: 1 << 16}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pivot_root", "MOUNT_ATTR_NOSYMFOLLOW|MOUNT_ATTR_RDONLY", "CLONE_NEWUSER", "PR_SET_NO_NEW_PRIVS", "seccomp(", "execveat("} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

func TestStartNamesWhatIsWrong(t *testing.T) {
	needRoot(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{"/does/not/exist": "no such file", fifo: "neither"} {
		_, err := fileserver.Start(t.Context(), fileserver.Config{Program: program, Source: source, IDCount: 1})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), source) {
			t.Errorf("%s: %v", source, err)
		}
	}
}
