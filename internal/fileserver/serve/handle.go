package serve

import (
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// handle is a file or directory that the guest has open. Its descriptor lives
// until it is released and no request uses it any more.
type handle struct {
	id       uint64
	n        *node
	fd       int
	access   uint64 // O_RDONLY, O_WRONLY or O_RDWR
	users    int    // guarded by handles.mu
	released bool
	stream   *stream // of directories
}

func (h *handle) readable() bool { return h.access != unix.O_WRONLY }
func (h *handle) writable() bool { return h.access != unix.O_RDONLY }

type handles struct {
	mu   sync.Mutex
	byID map[uint64]*handle
	next uint64
	most int
}

func newHandles(most int) *handles { return &handles{byID: map[uint64]*handle{}, next: 1, most: most} }

// addHandle makes a handle of a descriptor, which it owns from then on, also when
// there are too many.
func (s *server) addHandle(n *node, fd int, access uint64, d *stream) (*handle, error) {
	t := s.handles
	h := &handle{n: n, fd: fd, access: access, stream: d}
	t.mu.Lock()
	if len(t.byID) >= t.most {
		t.mu.Unlock()
		unix.Close(fd)
		return nil, syscall.ENFILE
	}
	h.id = t.next
	t.next++
	t.byID[h.id] = h
	// Before a guest that guesses the number can release it.
	s.nodes.mu.Lock()
	n.holds++
	n.opened = append(n.opened, h)
	s.nodes.mu.Unlock()
	t.mu.Unlock()
	return h, nil
}

// handle returns an open file of the node, for use until done.
func (s *server) handle(n *node, id uint64) (*handle, error) {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	h := s.handles.byID[id]
	if h == nil || h.n != n {
		return nil, syscall.EBADF
	}
	h.users++
	return h, nil
}

func (s *server) done(h *handle) {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	if h.users--; h.users == 0 && h.released {
		unix.Close(h.fd)
	}
}

// anyHandle returns an open file of the node that can be written if write is
// set, nil if there is none. It is the one way to a file that has lost its name.
func (s *server) anyHandle(n *node, write bool) *handle {
	s.nodes.mu.Lock()
	opened := slices.Clone(n.opened)
	s.nodes.mu.Unlock()
	for _, h := range opened {
		if write && !h.writable() {
			continue
		}
		if h, err := s.handle(n, h.id); err == nil {
			return h
		}
	}
	return nil
}

func (s *server) release(r *request, n *node) error {
	id := r.u64()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	s.handles.mu.Lock()
	again := h.released
	h.released = true
	delete(s.handles.byID, id)
	s.handles.mu.Unlock()
	s.done(h)
	if again {
		return syscall.EBADF
	}
	s.nodes.mu.Lock()
	defer s.nodes.mu.Unlock()
	n.opened = slices.DeleteFunc(n.opened, func(o *handle) bool { return o == h })
	s.nodes.release(n)
	return nil
}

func (t *handles) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, h := range t.byID {
		unix.Close(h.fd)
		delete(t.byID, id)
	}
}

// place returns the directory and the name of a node, for use until done.
func (s *server) place(n *node) (dir int, name string, done func(), err error) {
	s.nodes.mu.Lock()
	parent := n.parent
	name = n.name
	if parent != nil {
		parent.holds++
	}
	s.nodes.mu.Unlock()
	if parent == nil {
		return -1, "", nil, syscall.ESTALE
	}
	dir, done, err = s.nodes.descriptor(parent)
	s.nodes.put(parent) // the descriptor in use holds it
	return dir, name, done, err
}

// reference returns a descriptor of a node's file, for use until done. It may
// be O_PATH.
func (s *server) reference(n *node) (fd int, done func(), err error) {
	if h := s.anyHandle(n, false); h != nil {
		return h.fd, func() { s.done(h) }, nil
	}
	if n.dir() {
		return s.nodes.descriptor(n)
	}
	return s.openNode(n, unix.O_PATH)
}

// opened returns a descriptor of a regular file or directory that is not
// O_PATH, for use until done.
func (s *server) opened(n *node, write bool) (fd int, done func(), err error) {
	if h := s.anyHandle(n, write); h != nil {
		return h.fd, func() { s.done(h) }, nil
	}
	flags := uint64(unix.O_RDONLY)
	if write {
		flags = unix.O_WRONLY
	}
	return s.openNode(n, flags)
}

// openNode opens a node's file anew. Nothing is opened for reading or writing
// but regular files and directories.
func (s *server) openNode(n *node, flags uint64) (fd int, done func(), err error) {
	if flags&unix.O_PATH == 0 && n.kind != unix.S_IFREG && !n.dir() {
		return -1, nil, syscall.EPERM
	}
	if n.dir() {
		dir, release, err := s.nodes.descriptor(n)
		if err != nil {
			return -1, nil, err
		}
		defer release()
		fd, err = openFile(dir, ".", flags|unix.O_DIRECTORY, n.is)
		return fd, func() { unix.Close(fd) }, err
	}
	dir, name, release, err := s.place(n)
	if err != nil {
		return -1, nil, err
	}
	defer release()
	fd, err = openFile(dir, name, flags, n.is)
	return fd, func() { unix.Close(fd) }, err
}
