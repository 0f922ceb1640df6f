// Package idrange gives each workload a range of host user and group IDs of
// its own, so that root in a workload is nobody on the host, and nobody in
// another workload either.
//
// The IDs come from the entries for "bulkhead", or else for "containers" (the
// name that Podman uses for root), in /etc/subuid and /etc/subgid: see
// subuid(5). Without such entries they come from Default. IDs that are assigned
// to anybody else in subuid, subgid, passwd or group are never handed out.
//
// A range in use is a symbolic link in the pool's directory, named after the
// first ID and pointing to the owner: one system call makes it, exclusively, and a
// full disk or a crash cannot leave half of it. Pools of several state roots keep
// clear of each other through one more directory: see Pool.Among.
package idrange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// Size is the number of IDs in one workload's range: those that images use
// (0 to 65534) fit.
const Size = 1 << 16

// Default is where ranges come from if /etc/subuid and /etc/subgid do not say.
// It lies above what systemd-nspawn (up to 0x6fffffff) and useradd (up to
// 600100000) hand out, below the "foreign image" range of systemd (from
// 0x7ffe0000) and within 31 bits; see
// https://systemd.io/UIDS-GIDS/. 4094 workloads fit.
var Default = Range{Base: 0x70000000, Count: 4094 * Size}

// ErrExhausted tells that every range is in use.
var ErrExhausted = errors.New("no free range of host IDs")

// Range is a run of host IDs, used for users and groups alike.
type Range struct {
	Base, Count uint32
}

func (r Range) end() uint64 { return uint64(r.Base) + uint64(r.Count) }

func (r Range) overlaps(o Range) bool {
	return uint64(r.Base) < o.end() && uint64(o.Base) < r.end()
}

// Pool hands out ranges. Several processes may use one directory at a time.
type Pool struct {
	dir, etc string
	machine  string // see Among; "" for none
}

// Open returns the pool whose records lie in dir, which must exist when the
// pool is used, and whose IDs are those that the files in etc (normally "/etc")
// assign. They are read when a range is asked for.
func Open(dir, etc string) *Pool { return &Pool{dir: dir, etc: etc} }

// Capacity is how many workloads can have a range at the same time.
func (p *Pool) Capacity() (int, error) {
	slots, err := assigned(p.etc)
	return len(slots), err
}

// Peek returns a range that Allocate could return, and takes nothing.
func (p *Pool) Peek() (Range, error) {
	slots, err := assigned(p.etc)
	if err != nil {
		return Range{}, err
	}
	used, err := p.used()
	if err != nil {
		return Range{}, err
	}
	return free(slots, used, 0)
}

// Allocate records a free range for owner, which must be usable as a symbolic
// link's target. If all are in use, those whose owner is not alive are taken
// back first. Which range it is cannot be foreseen, so that files which somebody
// kept from a removed workload rarely match the next.
func (p *Pool) Allocate(owner string, alive func(owner string) bool) (Range, error) {
	slots, err := assigned(p.etc)
	if err != nil {
		return Range{}, err
	}
	unlock, err := p.lock()
	if err != nil {
		return Range{}, err
	}
	defer unlock()
	r, err := p.pick(slots)
	if errors.Is(err, ErrExhausted) {
		if err := p.takeBack(alive); err != nil {
			return Range{}, err
		}
		r, err = p.pick(slots)
	}
	if err != nil {
		return Range{}, err
	}
	if err := p.announce(r.Base); err != nil {
		return Range{}, err
	}
	if err := os.Symlink(owner, p.record(r.Base)); err != nil {
		return Range{}, fmt.Errorf("record ID range: %w", err)
	}
	return r, nil
}

// pick returns a range that neither this pool nor another has; the lock is held.
func (p *Pool) pick(slots []Range) (Range, error) {
	used, err := p.used()
	if err != nil {
		return Range{}, err
	}
	others, err := p.others()
	if err != nil {
		return Range{}, err
	}
	for base := range others {
		if _, ok := used[base]; !ok {
			used[base] = ""
		}
	}
	return free(slots, used, rand.Int())
}

// takeBack removes the records of owners that are gone, and the announcements
// without a record.
func (p *Pool) takeBack(alive func(owner string) bool) error {
	used, err := p.used()
	if err != nil {
		return err
	}
	for base, o := range used {
		if !alive(o) {
			if err := os.Remove(p.record(base)); err != nil {
				return fmt.Errorf("take back the ID range of a removed workload: %w", err)
			}
		}
	}
	return p.pruneAll()
}

// gone reports whether err says that a path leads nowhere.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Release gives the range that begins at base back, if it is owner's.
func (p *Pool) Release(base uint32, owner string) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	got, err := os.Readlink(p.record(base))
	if errors.Is(err, os.ErrNotExist) || err == nil && got != owner {
		return nil
	}
	if err == nil {
		err = os.Remove(p.record(base))
	}
	if err != nil {
		return fmt.Errorf("release ID range: %w", err)
	}
	_, err = p.prune(base)
	return err
}

// Transfer makes the range that begins at base, and is from's, the range of
// another owner. Nobody else can get it in between.
func (p *Pool) Transfer(base uint32, from, to string) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	got, err := os.Readlink(p.record(base))
	if err == nil && got != from {
		err = fmt.Errorf("it belongs to %.80q, not %.80q", got, from)
	}
	if err == nil {
		next := filepath.Join(p.dir, "next")
		if err = os.Remove(next); err == nil || errors.Is(err, os.ErrNotExist) {
			if err = os.Symlink(to, next); err == nil {
				err = os.Rename(next, p.record(base))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("hand on the ID range from %d: %w", base, err)
	}
	return nil
}

// ReleaseOwner gives back whatever owner has. It reads the whole pool: for
// cleaning up after a command that was killed before it noted its range.
func (p *Pool) ReleaseOwner(owner string) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	used, err := p.used()
	if err != nil {
		return err
	}
	for base, o := range used {
		if o == owner {
			if err := os.Remove(p.record(base)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("release ID range: %w", err)
			}
		}
	}
	return p.pruneAll()
}

func (p *Pool) record(base uint32) string {
	return filepath.Join(p.dir, strconv.FormatUint(uint64(base), 10))
}

// used returns the owner of each range in use by its first ID. The assignment
// may have changed since a range was recorded, so it need not be one of slots.
func (p *Pool) used() (map[uint32]string, error) {
	names, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("read ID ranges: %w", err)
	}
	used := make(map[uint32]string, len(names))
	for _, n := range names {
		base, err := strconv.ParseUint(n.Name(), 10, 32)
		if err != nil {
			continue // the lock
		}
		owner, err := os.Readlink(filepath.Join(p.dir, n.Name()))
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			return nil, fmt.Errorf("read ID range: %w", err)
		}
		used[uint32(base)] = owner
	}
	return used, nil
}

// free returns the first slot at or after number start that touches no used
// range.
func free(slots []Range, used map[uint32]string, start int) (Range, error) {
	bases := make([]uint32, 0, len(used))
	for b := range used {
		bases = append(bases, b)
	}
	slices.Sort(bases)
	for i := range slots {
		s := slots[(start%len(slots)+i)%len(slots)]
		// The only candidates are the neighbours below and above.
		at, same := slices.BinarySearch(bases, s.Base)
		if same ||
			at > 0 && s.overlaps(Range{bases[at-1], Size}) ||
			at < len(bases) && s.overlaps(Range{bases[at], Size}) {
			continue
		}
		return s, nil
	}
	return Range{}, fmt.Errorf("%w: all %d are taken (remove workloads, or give \"bulkhead\" more in /etc/subuid and /etc/subgid)",
		ErrExhausted, len(slots))
}

// lock keeps the other processes of this pool out, and those of all pools that
// it is among.
func (p *Pool) lock() (unlock func(), err error) {
	own, err := lockIn(p.dir)
	if err != nil || p.machine == "" {
		return own, err
	}
	all, err := lockIn(p.machine)
	if errors.Is(err, os.ErrNotExist) { // the first since the boot
		if err = os.MkdirAll(p.machine, 0o700); err == nil {
			all, err = lockIn(p.machine)
		}
	}
	if err != nil {
		own()
		return nil, err
	}
	return func() { all(); own() }, nil
}

// lockIn takes the lock in a directory.
func lockIn(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock ID ranges: %w", err)
	}
	if err = flock.Take(f, syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock ID ranges: %w", err)
	}
	return func() { f.Close() }, nil
}
