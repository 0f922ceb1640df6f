package serve

import (
	"container/list"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// identity tells one file from another, also from one that has got its inode
// number later. Times of birth are 0 on file systems that keep none.
type identity struct {
	mount, device, inode uint64
	born                 int64 // nanoseconds
}

func identify(st *unix.Statx_t) identity {
	return identity{st.Mnt_id, unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, st.Btime.Sec*1e9 + int64(st.Btime.Nsec)}
}

// node is a file that the guest knows by number. All fields but the first
// three are guarded by nodes.mu.
type node struct {
	id   uint64
	is   identity
	kind uint32 // S_IFMT part of the mode

	parent  *node // nil: the top, or an orphan, of which no place is known
	name    string
	lookups uint64 // how often the guest was told of it
	holds   int    // children, open handles, requests at work
	gone    bool   // no longer in the table

	fd      int // O_PATH, of directories; -1: none
	users   int // of fd
	opened  []*handle
	recency *list.Element // in nodes.recent
	kept    *list.Element // in nodes.directories, nil without fd
}

func (n *node) dir() bool { return n.kind == unix.S_IFDIR }

// nodes is the table of a volume.
type nodes struct {
	mu          sync.Mutex
	byID        map[uint64]*node
	byFile      map[identity]*node
	recent      *list.List // of nodes, the latest first
	directories *list.List // of nodes with a descriptor, the latest first
	next        uint64
	most, dirs  int
	top, root   *node
}

func newNodes(o Options) (*nodes, error) {
	t := &nodes{byID: map[uint64]*node{}, byFile: map[identity]*node{}, recent: list.New(), directories: list.New(),
		next: fuse.RootID, most: o.nodes, dirs: o.directories}
	st, err := statBeneath(o.Root, "")
	if err != nil {
		return nil, err
	}
	// The top's descriptor is the caller's and stays.
	t.top = &node{is: identify(st), kind: unix.S_IFDIR, fd: o.Root, users: 1, holds: 1}
	t.root = t.top
	if o.File != "" {
		if st, err = statBeneath(o.Root, o.File); err != nil {
			return nil, err
		}
		t.root = &node{is: identify(st), kind: uint32(st.Mode) & unix.S_IFMT, parent: t.top, name: o.File, fd: -1, holds: 1}
	}
	t.insert(t.root)
	return t, nil
}

// insert gives a node its number, which is never used again.
func (t *nodes) insert(n *node) {
	n.id = t.next
	t.next++
	t.byID[n.id], t.byFile[n.is] = n, n
	n.recency = t.recent.PushFront(n)
}

// get returns a node for use until put, nil if there is none of that number.
func (t *nodes) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n != nil {
		n.holds++
		t.recent.MoveToFront(n.recency)
	}
	return n
}

func (t *nodes) put(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(n)
}

// release takes a hold away, and with the last the node, and then its parent,
// if the guest has forgotten them.
func (t *nodes) release(n *node) {
	for n != nil {
		n.holds--
		if n.holds > 0 || n.lookups > 0 || n.gone {
			return
		}
		n = t.remove(n)
	}
}

// remove takes a node without holds out of the table and returns its parent,
// of which the node's hold is still to be released.
func (t *nodes) remove(n *node) *node {
	delete(t.byID, n.id)
	if t.byFile[n.is] == n {
		delete(t.byFile, n.is)
	}
	t.recent.Remove(n.recency)
	t.closeFD(n)
	n.gone = true
	parent := n.parent
	n.parent = nil
	return parent
}

func (t *nodes) closeFD(n *node) {
	if n.kept == nil {
		return
	}
	t.directories.Remove(n.kept)
	unix.Close(n.fd)
	n.fd, n.kept = -1, nil
}

func (t *nodes) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n == t.root {
		return
	}
	n.lookups -= min(count, n.lookups)
	n.holds++
	t.release(n)
}

// intern returns the node of the file that is name in parent, held for the
// caller. With told the guest learns of it, and has to forget it.
func (t *nodes) intern(parent *node, name string, st *unix.Statx_t, told bool) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	is := identify(st)
	n := t.byFile[is]
	if n != nil && n.kind != uint32(st.Mode)&unix.S_IFMT {
		// A file system without times of birth has used the inode again.
		delete(t.byFile, is)
		n = nil
	}
	if n == nil {
		if !t.makeRoom() {
			return nil, syscall.ENFILE
		}
		n = &node{is: is, kind: uint32(st.Mode) & unix.S_IFMT, fd: -1}
		t.insert(n)
	}
	n.holds++
	t.place(n, parent, name)
	if told && n != t.root {
		n.lookups++
	}
	t.recent.MoveToFront(n.recency)
	return n, nil
}

// place records where a node was seen last.
func (t *nodes) place(n, parent *node, name string) {
	if n == t.root || n == parent || parent.gone {
		return
	}
	if n.parent != parent {
		if n.dir() {
			t.breakCycle(n, parent)
		}
		old := n.parent
		n.parent = parent
		parent.holds++
		t.release(old)
	}
	n.name = name
}

// breakCycle makes an orphan of a directory that is recorded to lie in n, if n
// is about to be recorded to lie below that: the host has moved them about.
func (t *nodes) breakCycle(n, parent *node) {
	for p := parent; p != nil; p = p.parent {
		if p.parent == n {
			p.parent = nil
			n.holds--
			return
		}
	}
}

// moved records that the file of a node is known by another name now.
func (t *nodes) moved(st *unix.Statx_t, parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byFile[identify(st)]; n != nil {
		n.holds++
		t.place(n, parent, name)
		t.release(n)
	}
}

// makeRoom forgets the nodes that were used longest ago, so that there is room
// for one more. Those in use are passed over.
func (t *nodes) makeRoom() bool {
	for tries := 0; len(t.byID) >= t.most && tries < 256; tries++ {
		n := t.recent.Back().Value.(*node)
		if n.holds > 0 || n == t.root {
			t.recent.MoveToFront(n.recency)
			continue
		}
		t.release(t.remove(n))
	}
	return len(t.byID) < 2*t.most
}

func (t *nodes) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.directories.Front(); e != nil; e = t.directories.Front() {
		t.closeFD(e.Value.(*node))
	}
}

// descriptor returns an O_PATH descriptor of a directory, for use until done.
func (t *nodes) descriptor(n *node) (fd int, done func(), err error) {
	if !n.dir() {
		return -1, nil, syscall.ENOTDIR
	}
	// The way up to the nearest directory that has one.
	var way []*node
	t.mu.Lock()
	at := n
	for at.fd < 0 {
		if at.parent == nil {
			t.mu.Unlock()
			return -1, nil, syscall.ESTALE
		}
		way = append(way, at)
		at = at.parent
	}
	t.use(at)
	t.mu.Unlock()
	// And down again. Names may change meanwhile; then it is ESTALE.
	for i := len(way) - 1; i >= 0; i-- {
		next := way[i]
		err := t.openBelow(at, next)
		t.unuse(at)
		if err != nil {
			return -1, nil, err
		}
		at = next
	}
	return at.fd, func() { t.unuse(at) }, nil
}

func (t *nodes) use(n *node) {
	n.users++
	n.holds++
	if n.kept != nil {
		t.directories.MoveToFront(n.kept)
	}
}

func (t *nodes) unuse(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.users--
	t.release(n)
}

// openBelow opens a directory whose parent is in use, and puts it in use.
func (t *nodes) openBelow(parent, n *node) error {
	t.mu.Lock()
	if n.fd >= 0 {
		t.use(n)
		t.mu.Unlock()
		return nil
	}
	name := n.name
	t.mu.Unlock()
	fd, err := openFile(parent.fd, name, unix.O_PATH|unix.O_DIRECTORY, n.is)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.fd >= 0 || n.gone { // another request was faster, or it is forgotten
		unix.Close(fd)
		if n.gone {
			return syscall.ESTALE
		}
	} else {
		t.evict()
		n.fd = fd
		n.kept = t.directories.PushFront(n)
	}
	t.use(n)
	return nil
}

// evict closes the descriptors that were used longest ago. Those in use are
// few: no more than there are workers, four each at most.
func (t *nodes) evict() {
	for e := t.directories.Back(); e != nil && t.directories.Len() >= t.dirs; {
		n := e.Value.(*node)
		e = e.Prev()
		if n.users == 0 {
			t.closeFD(n)
		}
	}
}
