package serve

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/mounts"
)

// serveHere serves dir in this process and returns a way to ask.
func serveHere(t *testing.T, dir string, l limits) func(op uint32, node uint64, body []byte) (unix.Errno, []byte) {
	t.Helper()
	return serveTo(t, dir, l, 0)
}

// serveTo is serveHere for somebody else than root.
func serveTo(t *testing.T, dir string, l limits, user uint32) func(op uint32, node uint64, body []byte) (unix.Errno, []byte) {
	t.Helper()
	fd, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	ours, its := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(its, Options{Root: fd, IDCount: 1 << 16, limits: l}) }()
	t.Cleanup(func() {
		ours.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		unix.Close(fd)
	})
	buf := make([]byte, fuse.MaxReply)
	return func(op uint32, node uint64, body []byte) (unix.Errno, []byte) {
		t.Helper()
		m := message(op, node, body)
		binary.LittleEndian.PutUint32(m[24:], user)
		binary.LittleEndian.PutUint32(m[28:], user)
		if _, err := ours.Write(m); err != nil {
			t.Fatal(err)
		}
		n, err := fuse.ReadReply(ours, buf)
		if err != nil {
			t.Fatal(err)
		}
		return unix.Errno(-int32(binary.LittleEndian.Uint32(buf[4:]))), buf[fuse.OutHeaderSize:n]
	}
}

func id(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func TestNodesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(i), "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ask := serveHere(t, dir, limits{handles: 4, directories: 2, nodes: 8})
	var first uint64
	for i := range 100 {
		e, b := ask(fuse.Lookup, fuse.RootID, []byte(fmt.Sprint(i)+"\x00"))
		if e != 0 {
			t.Fatalf("lookup %d: %v", i, e)
		}
		n := id(b)
		if i == 0 {
			first = n
		}
		if e, _ := ask(fuse.Lookup, n, []byte("sub\x00")); e != 0 {
			t.Fatalf("lookup below %d: %v", i, e)
		}
	}
	if e, _ := ask(fuse.Getattr, first, make([]byte, 16)); e != unix.ESTALE {
		t.Errorf("a node that was used long ago: %v", e)
	}
	// A tree deeper than the table: an error, and the rest goes on working.
	deep := dir + strings.Repeat("/d", 40)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	n, e := uint64(fuse.RootID), unix.Errno(0)
	depth := 0
	for ; depth < 40 && e == 0; depth++ {
		var b []byte
		if e, b = ask(fuse.Lookup, n, []byte("d\x00")); e == 0 {
			n = id(b)
		}
	}
	if e != unix.ENFILE || depth < 8 {
		t.Errorf("a deep tree: %v at %d", e, depth)
	}
	if e, _ := ask(fuse.Getattr, n, make([]byte, 16)); e != 0 {
		t.Errorf("the deepest directory that was found: %v", e)
	}
}

func TestHandlesAreBounded(t *testing.T) {
	dir := t.TempDir()
	ask := serveHere(t, dir, limits{handles: 4, directories: 2, nodes: 8})
	var handles []uint64
	for i := range 5 {
		e, b := ask(fuse.Opendir, fuse.RootID, make([]byte, 8))
		if want := i == 4; (e == unix.ENFILE) != want {
			t.Fatalf("handle %d: %v", i, e)
		}
		if e == 0 {
			handles = append(handles, id(b))
		}
	}
	release := binary.LittleEndian.AppendUint64(nil, handles[0])
	if e, _ := ask(fuse.Releasedir, fuse.RootID, append(release, make([]byte, 16)...)); e != 0 {
		t.Fatal(e)
	}
	if e, _ := ask(fuse.Opendir, fuse.RootID, make([]byte, 8)); e != 0 {
		t.Errorf("after one was closed: %v", e)
	}
}

// TestGuessedHandle releases handles before it is told of them.
func TestGuessedHandle(t *testing.T) {
	fd, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s := &server{handles: newHandles(4)}
	if s.nodes, err = newNodes(Options{Root: fd, limits: limits{directories: 2, nodes: 8}}); err != nil {
		t.Fatal(err)
	}
	n := s.nodes.root
	before := n.holds
	var busy sync.WaitGroup // what else the guest asks meanwhile
	stop := make(chan struct{})
	for range 4 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.nodes.put(s.nodes.get(fuse.RootID))
				}
			}
		})
	}
	for id := range uint64(2000) {
		released := make(chan struct{})
		go func() {
			defer close(released)
			for {
				r := &request{body: body{b: binary.LittleEndian.AppendUint64(nil, id+1)}}
				if s.release(r, n) == nil {
					return
				}
			}
		}()
		one, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			_, err = s.addHandle(n, one, unix.O_RDONLY, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-released
	}
	close(stop)
	busy.Wait()
	if len(n.opened) != 0 || n.holds != before {
		t.Errorf("%d handles are left, %d holds of %d", len(n.opened), n.holds, before)
	}
}

// TestNothingIsMadeInVain makes files that their maker cannot be given: in a file
// system that has no such owner, and beyond the limit on handles.
func TestNothingIsMadeInVain(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for a mount that maps IDs")
	}
	dir := t.TempDir()
	err := mounts.UserNamespace(0, 1, func(ns *os.File) error {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return err
		}
		ask := serveTo(t, fmt.Sprintf("/proc/self/fd/%d", fd), limits{handles: 4, directories: 2, nodes: 8}, 1000)
		for op, body := range map[uint32][]byte{
			fuse.Mkdir: make([]byte, 8), fuse.Mknod: make([]byte, 16), fuse.Create: words(unix.O_RDWR|unix.O_CREAT, 0o644, 0, 0), fuse.Symlink: nil,
		} {
			if e, _ := ask(op, fuse.RootID, append(body, "new\x00to\x00"...)); e == 0 {
				t.Errorf("operation %d succeeded", op)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := serveHere(t, dir, limits{handles: 1, directories: 2, nodes: 8})
	create := func(name string) unix.Errno {
		e, _ := ask(fuse.Create, fuse.RootID, append(words(unix.O_RDWR|unix.O_CREAT, 0o644, 0, 0), name+"\x00"...))
		return e
	}
	if e := create("first"); e != 0 {
		t.Error(e)
	}
	for _, name := range []string{"second", "first"} { // which is there, and stays
		if e := create(name); e != unix.ENFILE {
			t.Errorf("%s: %v", name, e)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "first" {
		t.Errorf("the directory has %v, %v", left, err)
	}
}

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// TestHostMovesDirectories makes the recorded places of two directories
// contradict each other.
func TestHostMovesDirectories(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.MkdirAll(at("a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	ask := serveHere(t, dir, limits{handles: 4, directories: 2, nodes: 8})
	find := func(n uint64, name string) uint64 {
		t.Helper()
		e, b := ask(fuse.Lookup, n, []byte(name+"\x00"))
		if e != 0 {
			t.Fatalf("lookup %s: %v", name, e)
		}
		return id(b)
	}
	a := find(fuse.RootID, "a")
	b := find(a, "b")
	ask(fuse.Getattr, b, make([]byte, 16)) // opens it
	if err := os.Rename(at("a/b"), at("b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at("a"), at("b/a")); err != nil {
		t.Fatal(err)
	}
	if got := find(b, "a"); got != a {
		t.Errorf("node %d, want %d", got, a)
	}
	if got := find(fuse.RootID, "b"); got != b {
		t.Errorf("node %d, want %d", got, b)
	}
	if e, _ := ask(fuse.Getattr, a, make([]byte, 16)); e != 0 {
		t.Error(e)
	}
}

// TestOldChmod changes modes the way that kernels before 6.6 allow.
func TestOldChmod(t *testing.T) {
	dir := t.TempDir()
	for name, kind := range map[string]uint32{"file": unix.S_IFREG, "fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK} {
		if err := unix.Mknod(filepath.Join(dir, name), kind|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := limits{handles: 4, directories: 2, nodes: 8, oldChmod: true}
	ask := serveHere(t, dir, l)
	for _, name := range []string{"file", "fifo", "socket", "dir"} {
		_, b := ask(fuse.Lookup, fuse.RootID, []byte(name+"\x00"))
		body := make([]byte, 88) // struct fuse_setattr_in
		binary.LittleEndian.PutUint32(body, setMode)
		binary.LittleEndian.PutUint32(body[68:], 0o751)
		if e, _ := ask(fuse.Setattr, id(b), body); e != 0 {
			t.Errorf("%s: %v", name, e)
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Mode&0o7777 != 0o751 {
			t.Errorf("%s has mode %o, %v", name, st.Mode, err)
		}
	}
}
