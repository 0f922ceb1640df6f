package idrange

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// ErrTaken tells that a workload of another state root has the range.
var ErrTaken = errors.New("the range of host IDs belongs to a workload of another state directory")

// Among makes the pool keep clear of the other pools of this machine: those
// that name the same directory, of which only root may be the owner. It returns
// p.
//
// Each range in use by any pool is a symbolic link there, named after the first
// ID and pointing to the pool's own record. The link means nothing once that
// record is gone, so nobody has to remove it: a released range, a crash between
// two steps and a deleted state root all free the range. Pools that do not see
// each other's records under the same path, such as in other mount namespaces,
// must not share a directory.
//
// The directory may be cleared by a reboot, as nothing runs then: see Claim.
func (p *Pool) Among(dir string) *Pool {
	p.machine = dir
	return p
}

// Claim makes sure that a range which was allocated before, and maybe before a
// reboot, is still this pool's alone. The error wraps ErrTaken if another pool
// has handed it out since. Normally it costs one readlink(2).
func (p *Pool) Claim(base uint32) error {
	if p.machine == "" {
		return nil
	}
	if to, err := os.Readlink(p.link(base)); err == nil && to == p.record(base) {
		return nil
	}
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	others, err := p.others()
	if err != nil {
		return err
	}
	for b := range others {
		if !(Range{b, Size}).overlaps(Range{base, Size}) {
			continue
		}
		if to, err := p.prune(b); err != nil {
			return err
		} else if to != "" && !p.ours(to) {
			return fmt.Errorf("%w: IDs from %d: %s", ErrTaken, base, to)
		}
	}
	return p.announce(base)
}

func (p *Pool) link(base uint32) string {
	return filepath.Join(p.machine, strconv.FormatUint(uint64(base), 10))
}

// announce records for all pools that a range is ours; the lock is held.
func (p *Pool) announce(base uint32) error {
	if p.machine == "" {
		return nil
	}
	err := os.Symlink(p.record(base), p.link(base))
	if err != nil && !errors.Is(err, os.ErrExist) { // what exists is ours: see others
		return fmt.Errorf("record ID range for the whole machine: %w", err)
	}
	return nil
}

// ours reports whether a link leads to a record of this pool, whatever path its
// directory was reached by.
func (p *Pool) ours(to string) bool {
	a, err := os.Stat(filepath.Dir(to))
	if err != nil {
		return false
	}
	b, err := os.Stat(p.dir)
	return err == nil && os.SameFile(a, b)
}

// others returns the ranges that any pool has announced.
func (p *Pool) others() (map[uint32]bool, error) {
	if p.machine == "" {
		return nil, nil
	}
	names, err := os.ReadDir(p.machine)
	if err != nil {
		return nil, fmt.Errorf("read the machine's ID ranges: %w", err)
	}
	others := make(map[uint32]bool, len(names))
	for _, n := range names {
		if base, err := strconv.ParseUint(n.Name(), 10, 32); err == nil {
			others[uint32(base)] = true
		}
	}
	return others, nil
}

// prune removes an announcement whose record is gone, and returns where it
// leads otherwise, "" if there is none. The lock is held.
func (p *Pool) prune(base uint32) (to string, err error) {
	if p.machine == "" {
		return "", nil
	}
	to, err = os.Readlink(p.link(base))
	if err == nil {
		if _, err = os.Lstat(to); err == nil {
			return to, nil
		}
		if gone(err) {
			err = os.Remove(p.link(base))
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("look at the machine's ID ranges: %w", err)
	}
	return "", nil
}

// pruneAll removes every announcement whose record is gone.
func (p *Pool) pruneAll() error {
	others, err := p.others()
	for base := range others {
		_, perr := p.prune(base)
		err = errors.Join(err, perr)
	}
	return err
}
