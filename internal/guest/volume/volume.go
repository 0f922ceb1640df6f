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
package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
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

// Mount mounts the volume that is served at the other end of conn on dir, and
// returns when the file system is ready. unmount takes it away and closes conn;
// mounts of it elsewhere stop working. When conn ends by itself, whoever uses
// the volume gets errors (ENOTCONN, ECONNABORTED) instead of hanging.
//
// The kernel needs CONFIG_FUSE_FS; with a module, it has to be loaded before.
func Mount(dir string, conn io.ReadWriteCloser, o Options) (unmount func() error, err error) {
	fail := func(err error) (func() error, error) {
		conn.Close()
		return nil, fmt.Errorf("mount a volume on %s: %w", dir, err)
	}
	// Not blocking, so that closing it wakes whoever reads.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(&os.PathError{Op: "open", Path: "/dev/fuse", Err: err})
	}
	rootMode := unix.S_IFDIR
	if o.File {
		rootMode = unix.S_IFREG
	}
	// Permissions are the guest's kernel's to check (default_permissions), for
	// all of the guest's users (allow_other). Device nodes of the host mean
	// nothing here.
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, rootMode, fuse.MaxTransfer)
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
	r := &relay{dev: os.NewFile(uintptr(fd), "/dev/fuse"), conn: conn}
	r.wait.Go(r.requests)
	r.wait.Go(r.replies)
	// The first look waits for the two ends to agree on a version.
	file := dir
	if !o.File {
		file = filepath.Join(dir, pollName)
	}
	if err := teachPoll(file); err != nil {
		return fail(errors.Join(err, r.unmount(dir)))
	}
	return func() error { return r.unmount(dir) }, nil
}

// relay is a volume at work.
type relay struct {
	dev  *os.File
	conn io.ReadWriteCloser
	wait sync.WaitGroup
	once sync.Once
	err  error // why it ended by itself
}

// end closes both sides. The kernel aborts the file system's connection when
// /dev/fuse is closed.
func (r *relay) end(err error) {
	r.once.Do(func() {
		r.err = err
		r.dev.Close()
		r.conn.Close()
	})
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
		if reply, ok := answerPoll(buf[:n]); ok {
			if err := r.reply(reply); err != nil && !errors.Is(err, unix.ENOENT) {
				r.end(fmt.Errorf("reply: %w", err))
				return
			}
			continue
		}
		if _, err := r.conn.Write(buf[:n]); err != nil {
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
func (r *relay) replies() {
	buf := make([]byte, fuse.MaxReply)
	for {
		n, err := fuse.ReadReply(r.conn, buf)
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

// unmount lets the kernel write what is left of shared mappings, unless that
// takes too long or the volume is in use; then it is cut off.
func (r *relay) unmount(dir string) error {
	cut := time.AfterFunc(unmountPatience, func() { r.end(errors.New("unmounting took too long")) })
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	cut.Stop()
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	r.end(nil)
	r.wait.Wait()
	if err != nil {
		return fmt.Errorf("unmount the volume at %s: %w", dir, err)
	}
	return nil
}
