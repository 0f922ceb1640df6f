// Package volume mounts a directory or file of the host in a guest. The kernel
// of the guest speaks FUSE; this package carries its messages between
// /dev/fuse and a stream, at whose other end the host's file server answers.
//
//	kernel ─▶ /dev/fuse ─▶ relay ─▶ stream      one request at a time
//	kernel ◀─ /dev/fuse ◀─ relay ◀─ stream      one reply at a time
//
// The relay keeps nothing but the message in each direction. When the stream
// ends it closes /dev/fuse, upon which the kernel fails every request that
// waits and every later one: nobody who uses the volume hangs.
//
// A volume is mounted before anybody serves it: a machine may be saved in
// between, and each clone's host then serves its own. Until then the relay itself
// answers what mounting and binding it elsewhere takes: see standIn.
package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// Options of Mount.
type Options struct {
	// File says that the volume is one regular file; it is mounted on a file.
	File bool
	// ReadOnly makes the mount read-only for the guest's kernel. The host refuses
	// changes by itself; this says so earlier and to everybody (ST_RDONLY).
	ReadOnly bool
}

// ErrEnded says that the stream has ended while the volume was mounted.
var ErrEnded = errors.New("the host's file server is gone")

// unmountPatience is how long the last writes may take before the volume is
// taken away all the same.
const unmountPatience = 10 * time.Second

// Volume is one that is mounted.
type Volume struct {
	dir string
	r   relay
}

// Mount mounts a volume on dir, for Serve.
//
// The kernel needs CONFIG_FUSE_FS; with a module, it has to be loaded before.
func Mount(dir string, o Options) (*Volume, error) {
	fail := func(err error) (*Volume, error) { return nil, fmt.Errorf("mount a volume on %s: %w", dir, err) }
	// Not blocking, so that closing it wakes whoever reads.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(&os.PathError{Op: "open", Path: "/dev/fuse", Err: err})
	}
	v := &Volume{dir: dir, r: relay{rootMode: unix.S_IFDIR}}
	if o.File {
		v.r.rootMode = unix.S_IFREG
	}
	// Permissions are the guest's kernel's to check (default_permissions), for
	// all of the guest's users (allow_other). Device nodes of the host mean
	// nothing here.
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, v.r.rootMode, fuse.MaxTransfer)
	flags := uintptr(unix.MS_NODEV)
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("bulkhead", dir, "fuse", flags, options); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENODEV) {
			err = errors.New("the guest's kernel has no FUSE (CONFIG_FUSE_FS, module fuse)")
		}
		return fail(err)
	}
	v.r.dev = os.NewFile(uintptr(fd), "/dev/fuse")
	v.r.wait.Go(v.r.requests)
	file := dir
	if !o.File {
		file = filepath.Join(dir, pollName)
	}
	if err := teachPoll(file); err != nil {
		return fail(errors.Join(err, v.Unmount()))
	}
	v.r.taught.Store(true)
	return v, nil
}

// Serve has the volume served at the other end of conn, and returns when the two
// ends have agreed on a version. It is called once. When that fails, or conn ends
// by itself later, whoever uses the volume gets errors (ENOTCONN, ECONNABORTED)
// instead of hanging, here and where it was bound to.
func (v *Volume) Serve(conn io.ReadWriteCloser) error {
	if err := v.r.connect(conn); err != nil {
		conn.Close()
		v.r.end(err)
		return fmt.Errorf("serve the volume at %s: %w", v.dir, err)
	}
	return nil
}

// Unmount takes the volume away and closes the stream that serves it; mounts of it
// elsewhere stop working. The kernel first writes what is left of shared mappings,
// unless that takes too long or the volume is in use; then it is cut off.
func (v *Volume) Unmount() error {
	cut := time.AfterFunc(unmountPatience, func() { v.r.end(errors.New("unmounting took too long")) })
	err := unix.Unmount(v.dir, unix.UMOUNT_NOFOLLOW)
	cut.Stop()
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(v.dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	v.r.end(nil)
	v.r.wait.Wait()
	if err != nil {
		return fmt.Errorf("unmount the volume at %s: %w", v.dir, err)
	}
	return nil
}

// relay is a volume at work.
type relay struct {
	dev      *os.File
	rootMode uint32 // S_IFDIR or S_IFREG
	taught   atomic.Bool
	wait     sync.WaitGroup
	once     sync.Once
	err      error // why it ended by itself

	mu   sync.Mutex
	conn io.ReadWriteCloser // nil until somebody serves it
	// The kernel's first request, and what it was told.
	greeting, answer []byte
}

// end closes both sides. The kernel aborts the file system's connection when
// /dev/fuse is closed.
func (r *relay) end(err error) {
	r.once.Do(func() {
		r.err = err
		r.dev.Close()
		if conn := r.server(); conn != nil {
			conn.Close()
		}
	})
}

func (r *relay) server() io.ReadWriteCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn
}

// connect begins as the kernel has begun: its first request goes to the server,
// too, who must answer what the kernel was told.
func (r *relay) connect(conn io.ReadWriteCloser) error {
	r.mu.Lock()
	greeting, answer, taken := r.greeting, r.answer, r.conn != nil
	r.mu.Unlock()
	if taken || greeting == nil {
		return errors.New("it is served already, or was never mounted")
	}
	if _, err := conn.Write(greeting); err != nil {
		return errors.Join(ErrEnded, err)
	}
	buf := make([]byte, fuse.MaxReply)
	n, err := fuse.ReadReply(conn, buf)
	if err != nil {
		return errors.Join(ErrEnded, err)
	}
	if !bytes.Equal(buf[:n], answer) {
		return errors.New("the host's file server is of another version")
	}
	r.mu.Lock()
	r.conn = conn
	r.mu.Unlock()
	r.wait.Go(func() { r.replies(conn) })
	return nil
}

// requests carries messages to the host.
func (r *relay) requests() {
	buf := make([]byte, fuse.MaxRequest)
	for {
		n, err := r.dev.Read(buf)
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR): // taken back before it was read
			continue
		case err != nil:
			r.end(err)
			return
		case n < fuse.InHeaderSize || int(fuse.ParseInHeader(buf).Len) != n:
			r.end(fmt.Errorf("request: %w", fuse.ErrMalformed))
			return
		}
		// A release or forget of the file that is shown during the mount may come
		// late, so this stays. Node numbers of the server are counted from 1.
		reply, ok := answerPoll(buf[:n], !r.taught.Load())
		conn := r.server()
		if !ok && conn == nil {
			reply, ok = r.standIn(buf[:n]), true
		}
		if ok {
			if err := r.reply(reply); err != nil && !errors.Is(err, unix.ENOENT) {
				r.end(fmt.Errorf("reply: %w", err))
				return
			}
			continue
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			r.end(errors.Join(ErrEnded, err))
			return
		}
	}
}

func (r *relay) reply(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := r.dev.Write(b)
	return err
}

// replies carries messages from the host.
func (r *relay) replies(conn io.Reader) {
	buf := make([]byte, fuse.MaxReply)
	for {
		n, err := fuse.ReadReply(conn, buf)
		if err != nil {
			r.end(errors.Join(ErrEnded, err))
			return
		}
		// A message with the number 0 is a notification, which our server never
		// sends: with it, it could write into the kernel's cache.
		if binary.LittleEndian.Uint64(buf[8:]) == 0 {
			r.end(fmt.Errorf("reply: %w", fuse.ErrMalformed))
			return
		}
		// ENOENT: whoever asked was interrupted and does not wait any more.
		if _, err := r.dev.Write(buf[:n]); err != nil && !errors.Is(err, unix.ENOENT) {
			r.end(fmt.Errorf("reply: %w", err))
			return
		}
	}
}
