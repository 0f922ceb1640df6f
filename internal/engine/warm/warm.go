// Package warm finds the machines that wait for workloads. Each is a restored
// clone of an image template, held by a supervisor that has no workload yet. They
// are known by directories below the run root:
//
//	warm/
//	  lock             held while holders are counted, added or swept up
//	  making           held by who makes a pool
//	  new/             what that needs meanwhile
//	  <key>/           a pool: all that go on from one image template
//	    pool.json      how many are to wait, and what they are made from; without
//	                   it none is to wait
//	    stderr         what holders wrote that came to grief
//	    <id>/          one holder
//	      lock         held until a workload has taken all, or the holder's end
//	      socket       it waits
//	      left         what socket is called when it waits no more: somebody has
//	                   it, or it ends
//	      …            the boundary's, with which Open finds it
//
// A command claims one through its socket. The holder serves one connection at a
// time, so that one command gets it, and is that workload's supervisor from then on:
//
//	command                              holder
//	  Request(claim)               ──>
//	                               <──   Reply
//	  workload's lock, a connection ─>   the socket goes
//	                               <──   Reply: cgroup and range of IDs
//	  Request(start), by the other ──>   the boundary's Create takes what waits,
//	                                     the directory goes
//
// Until then the command may give up, or end, or the holder may: what waits is the
// holder's, and so is a directory whose lock is free: whoever comes next removes
// it. From then on all is the workload's.
package warm

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// idOwner is before the ID of a holder in what names it as the owner of a range of
// IDs, and in its cgroup.
const idOwner = "warm-"

// Owner is the name of a holder as that of a range of IDs, or of a cgroup.
func Owner(id workload.ID) string { return idOwner + string(id) }

// Exists tells whether owner names a holder whose directory is still there, or who
// makes a pool.
func Exists(run, owner string) bool {
	id, ok := strings.CutPrefix(owner, idOwner)
	if !ok {
		return false
	}
	if _, err := workload.ParseID(id); err != nil {
		return false
	}
	found, _ := filepath.Glob(filepath.Join(escape.Replace(Dir(run)), "*", id))
	return len(found) > 0
}

// escape keeps a path from being a pattern.
var escape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// Dir is the directory of all pools.
func Dir(run string) string { return filepath.Join(run, "warm") }

// Wanted is what is to wait.
type Wanted struct {
	Key   string `json:"key"`
	Count int    `json:"count"`
	// Asked is what somebody has asked for, in words that are the same for the same.
	Asked string `json:"asked"`
	// Spec is what was asked for, Machine what is prepared for all; its Data is any
	// file in the directory of the workloads' disks.
	Spec    workload.Spec     `json:"spec"`
	Machine *boundary.Machine `json:"machine"`
	Files   map[string]string `json:"files"`
	// Cgroup is above the cgroups of holders.
	Cgroup string `json:"cgroup"`
}

// Pool is one directory.
type Pool struct{ Dir, Key string }

// Of returns the pool of a key, which need not exist.
func Of(run, key string) Pool { return Pool{filepath.Join(Dir(run), key), key} }

// All returns the pools that there are.
func All(run string) ([]Pool, error) {
	names, err := os.ReadDir(Dir(run))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var all []Pool
	for _, n := range names {
		if b, err := hex.DecodeString(n.Name()); err == nil && len(b) > 0 {
			all = append(all, Of(run, n.Name()))
		}
	}
	return all, err
}

func (p Pool) file(name string) string { return filepath.Join(p.Dir, name) }

// Wanted reads what is to wait. The error wraps os.ErrNotExist where nothing is.
func (p Pool) Wanted() (w Wanted, err error) {
	b, err := os.ReadFile(p.file("pool.json"))
	if err == nil {
		err = json.Unmarshal(b, &w)
	}
	if err == nil && (w.Key != p.Key || w.Machine == nil) {
		err = fmt.Errorf("it is of %.80q", w.Key)
	}
	if err != nil {
		return w, fmt.Errorf("read what is to wait: %w", err)
	}
	return w, nil
}

// Want writes it. Without a count nothing is to wait any more.
func (p Pool) Want(w Wanted) error {
	if w.Count == 0 {
		if err := os.Remove(p.file("pool.json")); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	w.Key = p.Key
	b, err := json.Marshal(w)
	if err == nil {
		err = os.WriteFile(p.file("pool.new"), b, 0o600)
	}
	if err == nil {
		err = os.Rename(p.file("pool.new"), p.file("pool.json"))
	}
	if err != nil {
		return fmt.Errorf("write what is to wait: %w", err)
	}
	return nil
}

// Lock keeps others from counting and adding holders, in all pools. There must
// have been one.
func Lock(ctx context.Context, run string) (unlock func(), err error) {
	return flock.Open(ctx, filepath.Join(Dir(run), "lock"), 0, nil)
}

// Make makes the pool's directory unless it is there.
func (p Pool) Make() error {
	if err := os.Mkdir(p.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// Making waits until no other command makes a pool, and returns a directory for what
// is needed meanwhile, which is gone with done.
func Making(ctx context.Context, run string) (dir string, done func() error, err error) {
	if err := os.Mkdir(Dir(run), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", nil, err
	}
	unlock, err := flock.Open(ctx, filepath.Join(Dir(run), "making"), 0, nil)
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(Dir(run), "new")
	err = os.RemoveAll(dir) // of one that was killed
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		unlock()
		return "", nil, err
	}
	return dir, func() error {
		defer unlock()
		return os.RemoveAll(dir)
	}, nil
}

// Stderr opens the file for what holders have to say before they end.
func (p Pool) Stderr() (*os.File, error) {
	return os.OpenFile(p.file("stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// Holder is one holder as it was seen.
type Holder struct {
	ID  workload.ID
	Dir string
	// Lives says that its process does, and that no workload has all of it yet; Waits
	// that it can be claimed; Leaves that it has been, or ends.
	Lives, Waits, Leaves bool
}

// Counts tells whether it waits, or will.
func (h Holder) Counts() bool { return h.Lives && !h.Leaves }

// Leave ends that others come.
func (h Holder) Leave() error {
	return os.Rename(filepath.Join(h.Dir, "socket"), filepath.Join(h.Dir, "left"))
}

// Holders lists them. Unless the pools are locked some may be about to come or go.
func (p Pool) Holders() ([]Holder, error) {
	names, err := os.ReadDir(p.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Holder
	for _, n := range names {
		id, err := workload.ParseID(n.Name())
		if err != nil {
			continue
		}
		h := Holder{ID: id, Dir: p.file(n.Name())}
		if h.Lives, err = locked(filepath.Join(h.Dir, "lock")); err != nil {
			return nil, err
		}
		if _, err := os.Lstat(filepath.Join(h.Dir, "socket")); err == nil {
			h.Waits = h.Lives
		}
		if _, err := os.Lstat(filepath.Join(h.Dir, "left")); err == nil {
			h.Leaves = true
		}
		all = append(all, h)
	}
	return all, nil
}

// locked tells whether somebody has a lock file's lock.
func locked(name string) (bool, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	// Shared: who else looks does not take this for the holder's.
	err = flock.Take(f, syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// Gone waits until nobody has a holder's lock.
func (h Holder) Gone(ctx context.Context) error {
	f, err := os.Open(filepath.Join(h.Dir, "lock"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer f.Close()
		done <- flock.Take(f, syscall.LOCK_SH)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Add makes the directory of another holder, and holds its lock. The pools are
// locked.
func (p Pool) Add() (Holder, *os.File, error) {
	h := Holder{ID: workload.NewID(), Lives: true}
	h.Dir = p.file(string(h.ID))
	if err := os.Mkdir(h.Dir, 0o700); err != nil {
		return h, nil, err
	}
	f, err := os.OpenFile(filepath.Join(h.Dir, "lock"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		if err = flock.Take(f, syscall.LOCK_EX); err != nil { // who looks has it for no time
			f.Close()
		}
	}
	if err != nil {
		return h, nil, errors.Join(err, os.RemoveAll(h.Dir))
	}
	return h, f, nil
}

// Tidy removes a pool in which nothing is to wait, and does not. The pools are
// locked.
func (p Pool) Tidy() error {
	if _, err := p.Wanted(); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	holders, err := p.Holders()
	if err != nil || len(holders) > 0 {
		return err
	}
	return os.RemoveAll(p.Dir)
}
