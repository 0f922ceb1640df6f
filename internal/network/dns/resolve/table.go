package resolve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxLeases bounds the table: as many as a subnet of 16 bits has, twice.
const maxLeases = 1 << 17

// rescanAbove is the number of files changed since the last question from which
// on the directory is read anew.
const rescanAbove = 512

// A table is what the directory of leases holds. Nobody waits for changes: who
// asks, first takes note of what has happened until then. So what was recorded
// before a question was sent is in its answer, and a name server that nobody
// asks does nothing.
type table struct {
	network string         // as leases have it
	domain  string         // as it is compared
	subnets []netip.Prefix // whose addresses are leased; nil for all

	mu  sync.Mutex
	dir *os.File
	// watch reports changes, inotify(7). It is absent where others have used up the
	// descriptors of this kind that a user may have: then the directory's own time
	// tells, which was changed when the directory was read.
	watch   int
	buf     []byte
	changed unix.Timespec
	read    time.Time

	leases map[netip.Addr]*lease
	names  map[string][]netip.Addr // in the order in which they came
	// members counts the leases of each workload.
	members map[string]int
}

// absent stands for a descriptor that there is none of.
const absent = -1

// openTable reads a directory of leases.
func openTable(path, network string, subnets []netip.Prefix) (*table, error) {
	t := &table{network: network, domain: strings.ToLower(network), subnets: subnets, watch: watch(path), buf: make([]byte, 64<<10)}
	var err error
	if t.dir, err = os.Open(path); err == nil {
		err = t.scan()
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	return t, nil
}

// watch returns a descriptor that reports changes of a directory, or absent.
func watch(path string) int {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return absent
	}
	// A file that comes whole comes by rename or link; one that is written in
	// place is looked at when it is closed.
	const mask = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ATTRIB | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, path, mask); err != nil {
		unix.Close(fd)
		return absent
	}
	return fd
}

func (t *table) close() {
	unwatch(t.watch)
	t.dir.Close()
}

func unwatch(watch int) {
	if watch != absent {
		unix.Close(watch)
	}
}

// scan reads the whole directory.
func (t *table) scan() error {
	now := time.Now()
	changed, err := t.time()
	if err != nil {
		return err
	}
	if _, err := t.dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t.leases, t.names, t.members = map[netip.Addr]*lease{}, map[string][]netip.Addr{}, map[string]int{}
	for {
		names, err := t.dir.Readdirnames(256)
		for _, name := range names {
			t.load(name)
		}
		if errors.Is(err, io.EOF) {
			t.changed, t.read = changed, now
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// load makes the table agree with one file. A file that cannot be read or
// understood is as if it were not there.
func (t *table) load(name string) {
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.String() != name || !t.contains(addr) {
		return // another file, such as one that is not finished
	}
	var l *lease
	if b, err := t.file(name); err == nil {
		l, _ = parseLease(b, t.network) //nolint:errcheck // nil then
	}
	if old := t.leases[addr]; old != nil {
		delete(t.leases, addr)
		if t.members[old.workload]--; t.members[old.workload] == 0 {
			delete(t.members, old.workload)
		}
		for _, n := range old.names {
			left := slices.DeleteFunc(t.names[n], func(a netip.Addr) bool { return a == addr })
			if t.names[n] = left; len(left) == 0 {
				delete(t.names, n)
			}
		}
	}
	if l == nil || len(t.leases) >= maxLeases {
		return
	}
	l.address = addr
	t.leases[addr] = l
	t.members[l.workload]++
	for _, n := range l.names {
		t.names[n] = append(t.names[n], addr)
	}
}

func (t *table) file(name string) ([]byte, error) {
	fd, err := unix.Openat(int(t.dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxLease {
		return nil, unix.EINVAL
	}
	b := make([]byte, st.Size+1)
	size := 0
	for {
		n, err := unix.Read(fd, b[size:])
		if err == unix.EINTR { //nolint:errorlint // raw errno
			continue
		}
		if err != nil {
			return nil, err
		}
		if size += n; n == 0 {
			return b[:size], nil
		}
		if size == len(b) {
			return nil, unix.EINVAL // it grows: who writes it is not finished
		}
	}
}

func (t *table) contains(a netip.Addr) bool {
	return t.subnets == nil || slices.ContainsFunc(t.subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// tick is longer than two times of a file system that are the same may be apart:
// they are as of the kernel's last timer interrupt, of which there are 100 a second
// or more.
const tick = 20 * time.Millisecond

// time is when a file was last put into the directory, or taken out.
func (t *table) time() (unix.Timespec, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(t.dir.Fd()), &st)
	return st.Mtim, err
}

// look reads the directory anew if it may have changed since it was read. Changed
// within a tick before that, it may have changed again without a trace.
func (t *table) look() error {
	changed, err := t.time()
	if err != nil || changed == t.changed && t.read.Sub(time.Unix(changed.Unix())) > tick {
		return err
	}
	return t.scan()
}

// sync takes note of what has happened in the directory.
func (t *table) sync() error {
	if t.watch == absent {
		return t.look()
	}
	changed := map[string]bool(nil)
	all := false
	for {
		n, err := unix.Read(t.watch, t.buf)
		if err == unix.EINTR { //nolint:errorlint // raw errno
			continue
		}
		if err != nil || n <= 0 {
			break // EAGAIN: that was all
		}
		for b := t.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if size > len(b) {
				break
			}
			all = all || binary.NativeEndian.Uint32(b[4:])&unix.IN_Q_OVERFLOW != 0
			if name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:size], []byte{0}); len(name) > 0 && !all {
				if changed == nil {
					changed = map[string]bool{}
				}
				changed[string(name)] = true
				all = len(changed) > rescanAbove
			}
			b = b[size:]
		}
	}
	if all {
		return t.scan()
	}
	for name := range changed {
		t.load(name)
	}
	return nil
}

// client returns the lease of an address as of the last sync.
func (t *table) client(a netip.Addr) *lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leases[a]
}

// refresh takes note of all changes, then returns the lease of an address.
func (t *table) refresh(a netip.Addr) (*lease, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.sync()
	return t.leases[a], err
}

// addresses returns a copy of the addresses of a name.
func (t *table) addresses(name string) ([]netip.Addr, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, ok := t.names[name]
	if short, below := t.unqualified(name); !ok && below {
		all, ok = t.names[short]
	}
	return slices.Clone(all), ok
}

// unqualified returns what is before the network's name.
func (t *table) unqualified(name string) (string, bool) {
	short, ok := strings.CutSuffix(name, t.domain)
	if !ok || len(short) < 2 || short[len(short)-1] != '.' {
		return "", false
	}
	return short[:len(short)-1], true
}

// pointer returns the name of the workload that has an address.
func (t *table) pointer(a netip.Addr) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.leases[a]; l != nil && len(l.names) > 0 {
		return l.names[0] + "." + t.domain, true
	}
	return "", false
}

// has tells, after a look at all changes, whether a workload is in the network.
func (t *table) has(workload string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sync() == nil && t.members[workload] > 0
}

// removed tells whether the directory is gone, and the network with it.
func (t *table) removed() bool {
	var st unix.Stat_t
	return unix.Fstat(int(t.dir.Fd()), &st) != nil || st.Nlink == 0
}
