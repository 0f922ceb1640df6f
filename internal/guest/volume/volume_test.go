package volume

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// TestBadHosts mounts volumes whose other end is not a file server. Serve
// fails or whoever uses the volume gets errors; nobody hangs, and nothing is left.
func TestBadHosts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs FUSE in this machine's kernel:", err)
	}
	reply := func(length, unique int) []byte {
		b := make([]byte, 64)
		binary.LittleEndian.PutUint32(b, uint32(length))
		binary.LittleEndian.PutUint64(b[8:], uint64(unique))
		return b
	}
	for name, host := range map[string]func(c net.Conn, first []byte){
		"closes at once":      func(c net.Conn, _ []byte) {},
		"huge length":         func(c net.Conn, _ []byte) { c.Write(reply(1<<31, 2)) },
		"length below header": func(c net.Conn, _ []byte) { c.Write(reply(3, 2)) },
		"half a message":      func(c net.Conn, _ []byte) { c.Write(reply(4000, 2)) },
		"a notification":      func(c net.Conn, _ []byte) { c.Write(reply(64, 0)) },
		"refuses the version": func(c net.Conn, first []byte) {
			b := reply(16, int(fuse.ParseInHeader(first).Unique))[:16]
			e := unix.EPROTO
			binary.LittleEndian.PutUint32(b[4:], uint32(-int32(e)))
			c.Write(b)
			io.Copy(io.Discard, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}})
			ours, its := net.Pipe()
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				defer its.Close()
				buf := make([]byte, fuse.MaxRequest)
				if n, err := fuse.ReadRequest(its, buf); err == nil {
					host(its, buf[:n])
				}
			}()
			cut := time.AfterFunc(20*time.Second, func() { unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) })
			defer cut.Stop()
			v, err := Mount(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Serve(ours); err == nil {
				t.Error("served")
			}
			<-gone
			if _, err := os.ReadDir(dir); err == nil {
				t.Error("it can be read")
			}
			if err := v.Unmount(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoEndOfLists asks those who stand in for the server for an access control list:
// after ENOSYS the kernel would ask for none any more, and any other error keeps all
// but the owner out.
func TestNoEndOfLists(t *testing.T) {
	b := make([]byte, fuse.InHeaderSize, 128)
	binary.LittleEndian.PutUint32(b[4:], fuse.Getxattr)
	binary.LittleEndian.PutUint64(b[16:], pollNode)
	b = append(append(b, make([]byte, 8)...), "system.posix_acl_access\x00"...)
	poll, _ := answerPoll(b, false)
	binary.LittleEndian.PutUint64(b[16:], fuse.RootID)
	for who, reply := range map[string][]byte{"the file that is polled": poll, "the root": (&relay{}).standIn(b)} {
		if len(reply) != fuse.OutHeaderSize || unix.Errno(-int32(binary.LittleEndian.Uint32(reply[4:]))) != unix.ENODATA {
			t.Errorf("%s: %x", who, reply)
		}
	}
}

func TestAnswerPollLeavesOthersAlone(t *testing.T) {
	b := make([]byte, fuse.InHeaderSize)
	for op := range uint32(64) {
		binary.LittleEndian.PutUint32(b[4:], op)
		binary.LittleEndian.PutUint64(b[16:], fuse.RootID)
		if _, ok := answerPoll(append(b, "other\x00"...), true); ok {
			t.Errorf("operation %d on the root was not passed on", op)
		}
	}
}
