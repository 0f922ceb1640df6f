package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/ocispec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// store is the directory that holds what commands know of each other's
// containers (--root):
//
//	ROOT/ID/              mode 0711; making it reserves the ID, its flock(2) is the lock
//	ROOT/ID/config.json   the configuration as it was at create
//	ROOT/ID/state.json    a record, replaced atomically
//	ROOT/ID/…             what package container keeps
//
// It lies on a tmpfs by default, so a reboot forgets everything at once.
type store struct{ root string }

const defaultRoot = "/run/bulkhead-oci"

const (
	recordName = "state.json"
	maxRecord  = 1 << 20 // bytes
)

// record is what is kept of one container, beside its configuration and what
// package container keeps. It is written before anything is made, so that a
// create that was killed can be cleaned up after.
type record struct {
	Version string    `json:"ociVersion"`
	ID      string    `json:"id"`
	Bundle  string    `json:"bundle"`
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   int       `json:"owner"`            // user ID of whoever created it
	Cgroup  string    `json:"cgroup,omitempty"` // path below each hierarchy
	// CgroupMade is set once the cgroup was made for this container. Until then
	// processes in it are somebody else's.
	CgroupMade bool `json:"cgroupMade,omitempty"`
	// NoNewKeyring is create's --no-new-keyring, which holds for exec, too.
	NoNewKeyring bool `json:"noNewKeyring,omitempty"`
}

var (
	errNotExist = errors.New("container does not exist")
	errExist    = errors.New("container with given ID already exists")
)

// checkID accepts what is safe as a file name and in listings: letters,
// digits, "_", "+", "-" and ".", but neither "." nor "..".
func checkID(id string) error {
	bad := id == "" || id == "." || id == ".." || len(id) > 255 ||
		strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.") != ""
	if bad {
		return fmt.Errorf("invalid container ID %q: want letters, digits, \"_\", \"+\", \"-\", \".\"", id)
	}
	return nil
}

// entry is one locked container of the store.
type entry struct {
	dir  string
	lock *os.File
}

// Close frees the lock.
func (e *entry) Close() { e.lock.Close() }

// unlock lets other commands work on the container.
func (e *entry) unlock() { _ = syscall.Flock(int(e.lock.Fd()), syscall.LOCK_UN) }

// relock waits for them as open does. It fails with errNotExist if one has deleted
// the container.
func (e *entry) relock(ctx context.Context) error {
	if err := lock(ctx, e.lock); err != nil {
		return err
	}
	return e.check()
}

// lockTime bounds the wait for another command. It may wait for this one: one that
// runs hooks, of which this is one. Tests set it.
var lockTime = time.Minute

var errBusy = errors.New("another command is working on the container")

// lock takes a container's lock, within lockTime and until ctx ends. On error, which
// wraps errBusy if the lock did not come, f is closed, or will be.
func lock(ctx context.Context, f *os.File) error {
	late := fmt.Errorf("%w, which has not finished within %v: is this called by a hook of the same container?", errBusy, lockTime)
	bounded, cancel := context.WithTimeoutCause(ctx, lockTime, late)
	defer cancel()
	err := flock.Wait(bounded, f, nil)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w, and this one was told to end", errBusy)
	}
	return err
}

// check finds out whether the container was deleted, and maybe created anew,
// while this command waited for the lock, or read.
func (e *entry) check() error {
	held, err := e.lock.Stat()
	now, err2 := os.Lstat(e.dir)
	if err != nil || err2 != nil || !os.SameFile(held, now) {
		return errNotExist
	}
	return nil
}

// create reserves id. The directory lets others through (0711) but not look:
// the container's root may be put together below it.
func (s store) create(ctx context.Context, id string) (*entry, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	dir := filepath.Join(s.root, id)
	switch err := os.Mkdir(dir, 0o711); {
	case errors.Is(err, fs.ErrExist):
		return nil, errExist
	case err != nil:
		return nil, fmt.Errorf("make the container's state: %w", err)
	}
	e, err := s.open(ctx, id)
	if err != nil {
		os.Remove(dir)
		return nil, err
	}
	return e, nil
}

// find opens the directory of a container: errNotExist if there is none.
func (s store) find(id string) (*os.File, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(s.root, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotExist
	}
	return f, err
}

// open locks the container id and waits for commands that work on it, until ctx ends
// and no longer than lockTime.
func (s store) open(ctx context.Context, id string) (*entry, error) {
	f, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, f); err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	e := &entry{f.Name(), f}
	if err := e.check(); err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

// box is a container as commands find it.
type box struct {
	record
	spec *specs.Spec
	// made is nil while the container is being created, and when that was cut
	// short.
	made *container.Container
}

// Close releases descriptors. The container goes on.
func (b *box) Close() {
	if b.made != nil {
		b.made.Close()
	}
}

// load finds a container without locking it: what is read is replaced
// atomically. One that is deleted meanwhile is errNotExist.
func (s store) load(id string) (*box, error) {
	f, err := s.find(id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := loadDir(f.Name())
	if err != nil && (&entry{f.Name(), f}).check() != nil { // some of its files may have been gone already
		return nil, errNotExist
	}
	return b, err
}

// loadDir returns errNotExist for a container whose creation has only begun.
func loadDir(dir string) (*box, error) {
	b, err := loadMade(dir)
	if err != nil {
		return nil, err
	}
	if b.spec, _, err = ocispec.Load(dir); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// loadMade is loadDir without the configuration.
func loadMade(dir string) (*box, error) {
	text, err := readBounded(filepath.Join(dir, recordName), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotExist
	}
	if err != nil {
		return nil, err
	}
	b := new(box)
	if err := json.Unmarshal(text, &b.record); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, recordName), err)
	}
	if b.made, err = container.Open(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return b, nil
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: larger than %d bytes", name, most)
	}
	return b, err
}

// save replaces the record.
func (e *entry) save(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeAtomically(filepath.Join(e.dir, recordName), b, 0o600)
}

// keepConfig stores the configuration's text.
func (e *entry) keepConfig(text []byte) error {
	return writeAtomically(filepath.Join(e.dir, ocispec.ConfigName), text, 0o600)
}

// remove deletes the container's state; its ID is free from then on.
func (e *entry) remove() error {
	info, err := e.lock.Stat()
	if err != nil {
		return fmt.Errorf("remove the container's state: %w", err)
	}
	// Renamed first, so that a removal cut short does not leave half a
	// container under its ID. The name is none that checkID accepts, and short
	// whatever the ID; the inode makes it this directory's own.
	gone := filepath.Join(filepath.Dir(e.dir), deletedPrefix+strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10))
	if err := os.Rename(e.dir, gone); err != nil {
		return fmt.Errorf("remove the container's state: %w", err)
	}
	return os.RemoveAll(gone)
}

// deletedPrefix begins the name of a container's directory that is being removed.
const deletedPrefix = "~deleted-"

// sweep removes what removals left that were cut short. What is locked is in the
// hands of one that is under way.
func (s store) sweep() error {
	root, err := os.Open(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	names, err := root.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, deletedPrefix) {
			err = errors.Join(err, removeUnlocked(filepath.Join(s.root, name)))
		}
	}
	return err
}

func removeUnlocked(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	switch err := flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil
	case err != nil:
		return err
	}
	return os.RemoveAll(dir)
}

// list returns the IDs in the store, in order. A default store that was never
// used is empty; one that was named must exist.
func (s store) list() ([]string, error) {
	dir, err := os.ReadDir(s.root)
	if errors.Is(err, fs.ErrNotExist) && s.root == defaultRoot {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, d := range dir {
		if d.IsDir() && checkID(d.Name()) == nil {
			ids = append(ids, d.Name())
		}
	}
	return ids, nil
}

// writeAtomically gives name its new content whole or not at all.
func writeAtomically(name string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
