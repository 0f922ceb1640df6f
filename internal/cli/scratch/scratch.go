// Package scratch gives a command that runs for a while a directory of its own, for
// files and for what it writes down of what it makes elsewhere. The directory is
// locked as long as the command lives, so that the next command finds what one left
// that was killed: a directory whose lock is free.
//
//	root/scratch/COMMAND/      mode 0700
//	  <id>/                    one run of the command; its name is known to nobody else
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Dir is a directory whose lock this process holds.
type Dir struct {
	Path string
	// ID is the directory's name. It is random: what bears it anywhere on the
	// machine was made by the run that had the directory.
	ID string

	lock *os.File
}

// Below is where the directories of a command are, below the state root.
func Below(root, command string) string { return filepath.Join(root, "scratch", command) }

// Open makes a directory below parent, which is made too if it is missing. Stale
// are those of commands that are gone; the caller removes or closes each.
func Open(parent string) (own *Dir, stale []*Dir, err error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, nil, err
	}
	if err := private(parent); err != nil {
		return nil, nil, err
	}
	// Who holds the parent's lock finds no directory that its owner has yet to lock.
	all, err := os.Open(parent)
	if err != nil {
		return nil, nil, err
	}
	defer all.Close()
	if err := flock.Take(all, syscall.LOCK_EX); err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", parent, err)
	}
	entries, err := all.ReadDir(-1)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			for _, d := range stale {
				d.Close()
			}
		}
	}()
	for _, e := range entries {
		d, err := take(filepath.Join(parent, e.Name()))
		switch {
		case err == nil:
			stale = append(stale, d)
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist):
			return nil, stale, err
		}
	}
	name := filepath.Join(parent, string(workload.NewID())[:32])
	if err := os.Mkdir(name, 0o700); err != nil {
		return nil, stale, err
	}
	own, err = take(name)
	return own, stale, err
}

// private makes sure that a directory is this user's alone. Below another one
// anybody could put what the next command would take for its own.
func private(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is no directory that user %d alone can enter: its mode is %v", dir, os.Geteuid(), info.Mode())
	}
	return nil
}

// take locks a directory. The error is syscall.EWOULDBLOCK where its command lives.
func take(name string) (*Dir, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return &Dir{Path: name, ID: filepath.Base(name), lock: f}, nil
}

// Remove removes the directory.
func (d *Dir) Remove() error {
	defer d.Close()
	return os.RemoveAll(d.Path)
}

// Close leaves the directory to the next command.
func (d *Dir) Close() { d.lock.Close() }
