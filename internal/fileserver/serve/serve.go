package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// Limits of one volume. Every handle and every directory in the cache is a
// descriptor: the process needs MaxHandles+MaxDirectories+64 of them.
const (
	MaxHandles     = 8192    // open files and directories
	MaxDirectories = 4096    // descriptors of directories kept for lookups
	MaxNodes       = 1 << 18 // files that the guest may refer to; about 250 bytes each
	workers        = 16      // requests worked on at a time; each holds 2 × 128 KiB
)

// Timeout is how long the guest may believe attributes and names before it asks
// again: a change made on the host is visible inside after that time.
const Timeout = time.Second

// Options of Serve.
type Options struct {
	// Root is a descriptor of the directory to serve, or of the one that holds
	// the file to serve.
	Root int
	// File is the name of the regular file to serve, "" for the directory.
	File string
	// ReadOnly refuses all that changes something.
	ReadOnly bool
	// IDBase and IDCount map IDs: u on the host is IDBase+u in the guest, for u
	// below IDCount.
	IDBase, IDCount uint32

	limits // smaller in tests
}

type limits struct {
	handles, directories, nodes int
	oldChmod                    bool // as if the kernel lacked fchmodat2(2) (before 6.6)
}

type server struct {
	Options
	nodes   *nodes
	handles *handles

	mu   sync.Mutex // guards conn's writing end
	conn io.ReadWriter
}

// Serve answers the requests that come over conn until it ends. It returns nil
// if it ends between two messages, an error that wraps fuse.ErrMalformed if
// what came cannot be a request.
func Serve(conn io.ReadWriter, o Options) error {
	if o.limits.handles == 0 {
		o.limits = limits{MaxHandles, MaxDirectories, MaxNodes, o.oldChmod}
	}
	s := &server{Options: o, conn: conn, handles: newHandles(o.limits.handles)}
	var err error
	if s.nodes, err = newNodes(o); err != nil {
		return err
	}
	defer s.nodes.close()
	defer s.handles.close()

	free, work := make(chan *request, workers), make(chan *request)
	ctx, fail := context.WithCancelCause(context.Background())
	defer fail(nil)
	var wait sync.WaitGroup
	for range workers {
		free <- newRequest()
		wait.Go(func() {
			for r := range work {
				if err := s.answer(r); err != nil {
					fail(err)
				}
				free <- r
			}
		})
	}
	for err == nil {
		r := <-free
		var n int
		if n, err = fuse.ReadRequest(conn, r.in); err != nil {
			break
		}
		r.begin(n)
		if err = context.Cause(ctx); err == nil {
			work <- r
		}
	}
	close(work)
	wait.Wait()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("serve the volume: %w", err)
	}
	return nil
}

// answer performs a request and writes its reply. An error means that the
// stream is broken.
func (s *server) answer(r *request) error {
	var e syscall.Errno
	if err := s.perform(r); err != nil && !errors.As(err, &e) {
		e = syscall.EIO
	}
	if r.silent {
		return nil
	}
	if e > 511 { // the kernel takes numbers above as a broken server
		e = syscall.EIO
	}
	reply := r.end(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.conn.Write(reply)
	return err
}

// operation is how one opcode is performed.
type operation struct {
	run     func(s *server, r *request, n *node) error
	changes bool // refused on a read-only volume
}

var operations = map[uint32]operation{
	fuse.Lookup:        {run: (*server).lookup},
	fuse.Getattr:       {run: (*server).getattr},
	fuse.Setattr:       {run: (*server).setattr, changes: true},
	fuse.Readlink:      {run: (*server).readlink},
	fuse.Symlink:       {run: (*server).symlink, changes: true},
	fuse.Mknod:         {run: (*server).mknod, changes: true},
	fuse.Mkdir:         {run: (*server).mkdir, changes: true},
	fuse.Unlink:        {run: (*server).unlink, changes: true},
	fuse.Rmdir:         {run: (*server).rmdir, changes: true},
	fuse.Rename:        {run: (*server).rename, changes: true},
	fuse.Rename2:       {run: (*server).rename2, changes: true},
	fuse.Link:          {run: (*server).link, changes: true},
	fuse.Open:          {run: (*server).open},
	fuse.Create:        {run: (*server).create, changes: true},
	fuse.Read:          {run: (*server).read},
	fuse.Write:         {run: (*server).write, changes: true},
	fuse.Statfs:        {run: (*server).statfs},
	fuse.Release:       {run: (*server).release},
	fuse.Releasedir:    {run: (*server).release},
	fuse.Fsync:         {run: (*server).fsync},
	fuse.Fsyncdir:      {run: (*server).fsync},
	fuse.Setxattr:      {run: (*server).setxattr, changes: true},
	fuse.Getxattr:      {run: (*server).getxattr},
	fuse.Listxattr:     {run: (*server).listxattr},
	fuse.Removexattr:   {run: (*server).removexattr, changes: true},
	fuse.Opendir:       {run: (*server).opendir},
	fuse.Readdir:       {run: (*server).readdir},
	fuse.Readdirplus:   {run: (*server).readdirplus},
	fuse.Fallocate:     {run: (*server).fallocate, changes: true},
	fuse.Lseek:         {run: (*server).lseek},
	fuse.CopyFileRange: {run: (*server).copyFileRange, changes: true},
}

// perform answers ENOSYS for what is left to the guest's kernel: access checks,
// locks, flush, polling.
func (s *server) perform(r *request) error {
	switch r.Opcode {
	case fuse.Init:
		return s.init(r)
	case fuse.Forget:
		r.silent = true
		s.nodes.forget(r.NodeID, r.u64())
		return nil
	case fuse.BatchForget:
		r.silent = true
		for count := r.u64() & 0xffffffff; count > 0 && len(r.b) >= 16; count-- {
			s.nodes.forget(r.u64(), r.u64())
		}
		return nil
	case fuse.Destroy:
		return nil
	}
	op, ok := operations[r.Opcode]
	if !ok {
		return syscall.ENOSYS
	}
	if op.changes && s.ReadOnly {
		return syscall.EROFS
	}
	n := s.nodes.get(r.NodeID)
	if n == nil {
		return syscall.ESTALE
	}
	defer s.nodes.put(n)
	return op.run(s, r, n)
}

func (s *server) init(r *request) error {
	reply, ok := fuse.InitReply(r.u32(), r.u32(), r.u32(), r.u32())
	if r.short || !ok {
		return syscall.EPROTO
	}
	r.put32(reply...)
	return nil
}

func (s *server) statfs(r *request, n *node) error {
	fd, done, err := s.reference(n)
	if err != nil {
		return err
	}
	defer done()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	r.put64(st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree)
	r.put32(uint32(st.Bsize), uint32(min(st.Namelen, 255)), uint32(st.Frsize))
	r.put32(make([]uint32, 7)...)
	return nil
}
