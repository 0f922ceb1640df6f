// Package state is what the engine and the supervisors keep on disk, and the
// locks that order their steps.
//
//	root/                      mode 0700, survives a reboot
//	  lock                     held while names and IDs change hands
//	  workloads/<id>/          everything that is kept of one workload
//	    lock                   held by its supervisor, or by a command that changes it
//	    spec.json              what was asked; written once
//	    state.json             what is so now; its first version ends the creation
//	    state.next             the version before, for when a power cut spoils the last,
//	                           and room for the next: a full disk cannot prevent the
//	                           exit from being recorded
//	    changes.json           what commands changed of it since, see Changes
//	    health.json            what the checks of its health have shown
//	    upper/ work/ files/    the overlay's writable directories; resolv.conf and such
//	    log, log.1, …          the output
//	  names/<name>             symbolic link to the ID
//	  idrange/                 see package idrange
//	  trash/<id>/              a workload being removed
//	run/                       mode 0700, normally cleared by a reboot
//	  boot                     the boot that the rest belongs to
//	  idrange/                 the default run root only: the ranges of all roots,
//	                           see idrange.Pool.Among
//	  events, events.1         what happened, see package events
//	  warm/                    machines that wait for workloads, see package warm
//	  networks/                who has what in networks, see package bridge
//	  <id>/                    exists while a workload is created, runs, or is removed
//	    socket                 the supervisor's
//	    …                      the boundary's
//
// A workload directory below run/ is the journal: a workload that has one, and
// whose lock is free, was left half way by a process that died. Everything else
// (a name without workload, an ID range without owner, a directory in trash)
// heals by being ignored and replaced.
//
// Nothing is synced to disk while a workload is made: what a power cut loses
// then is removed as half made. A workload that is to stay is synced once
// before the command reports success, and so is its exit.
package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/warm"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Layout finds files below one pair of roots.
type Layout struct {
	Root, Run string
}

// Dir is the directory that is kept of a workload, RunDir the one that a reboot
// clears.
func (l Layout) Dir(id workload.ID) string    { return filepath.Join(l.Root, "workloads", string(id)) }
func (l Layout) RunDir(id workload.ID) string { return filepath.Join(l.Run, string(id)) }

// RunNetworks is what is so now of networks, as package bridge keeps it.
func (l Layout) RunNetworks() string { return filepath.Join(l.Run, "networks") }

// Events is the log of what happens below this run root.
func (l Layout) Events() events.Log { return events.Log{Dir: l.Run} }

// Happened records that something happened to a workload: Docker's word for it,
// and pairs of names and values beside what the specification says. An event
// that cannot be recorded is lost: it must not stop what it is about.
func (l Layout) Happened(s *workload.Spec, action string, pairs ...string) {
	a := map[string]string{"image": s.Image.Reference, "name": s.Name, "boundary": s.Boundary}
	for i := 0; i+1 < len(pairs); i += 2 {
		a[pairs[i]] = pairs[i+1]
	}
	kind := events.Workload
	if s.VM.Machine {
		kind, a["name"] = events.Tenant, strings.TrimPrefix(s.Name, "@")
		delete(a, "image")
	}
	_ = l.Events().Append(events.Event{Type: kind, Action: action, ID: string(s.ID), Attributes: a, Labels: s.Labels})
}

// Health holds what the checks of a workload's health have shown.
func (l Layout) Health(id workload.ID) string { return filepath.Join(l.Dir(id), "health.json") }

// Log is the newest log file of a workload.
func (l Layout) Log(id workload.ID) string { return filepath.Join(l.Dir(id), "log") }

// Name is the link of a workload's name. The name must be valid.
func (l Layout) Name(name string) string { return filepath.Join(l.Root, "names", name) }

// machineIDs records the ID ranges of all state roots of root's on this machine.
const machineIDs = "/run/bulkhead/idrange"

// IDs is the pool of ID ranges of this root. Only root's hand out the same IDs.
func (l Layout) IDs() *idrange.Pool {
	p := idrange.Open(filepath.Join(l.Root, "idrange"), "/etc")
	if os.Geteuid() == 0 {
		p.Among(machineIDs)
	}
	return p
}

// AllocateIDs takes a range of host IDs for a workload, by its ID, or for whatever
// else of this root can own one.
func (l Layout) AllocateIDs(owner string) (idrange.Range, error) {
	return l.IDs().Allocate(owner, l.owns)
}

// owns tells whether the owner of a range of IDs is still there.
func (l Layout) owns(owner string) bool {
	if name, ok := strings.CutPrefix(owner, network.IDOwner); ok {
		_, err := os.Lstat(filepath.Join(l.Root, "networks", name+".json"))
		return err == nil
	}
	if warm.Exists(l.Run, owner) {
		return true
	}
	id, err := workload.ParseID(owner)
	if err != nil {
		return false
	}
	_, err = os.Lstat(l.Dir(id))
	return err == nil
}

// Step is called after each step that changes something, with its name. It is
// nil but in tests, which end the process there.
var Step func(name string)

// Did reports a step to the hook of tests.
func Did(name string) {
	if Step != nil {
		Step(name)
	}
}

// Make makes the directories that are missing. It returns true if the run root
// belongs to an earlier boot or is new, so that nothing that is said to run does.
func (l Layout) Make() (rebooted bool, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, fmt.Errorf("read the boot ID: %w", err)
	}
	known, err := os.ReadFile(filepath.Join(l.Run, "boot"))
	if err == nil && bytes.Equal(known, boot) {
		return false, nil
	}
	if err := private(l.Root); err != nil {
		return false, err
	}
	for _, d := range []string{"workloads", "names", "idrange", "trash"} {
		if err := os.Mkdir(filepath.Join(l.Root, d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return false, fmt.Errorf("make state directory: %w", err)
		}
	}
	return true, private(l.Run)
}

// SetBooted notes that what an earlier boot left has been cleaned up.
func (l Layout) SetBooted() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the boot ID: %w", err)
	}
	return replace(filepath.Join(l.Run, "boot"), "", boot, atomic)
}

// private makes a directory that only its owner, who must be the caller, can
// enter: whoever else could write there would command our supervisors.
func private(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make state directory: %w", err)
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check state directory: %w", err)
	}
	if st := fi.Sys().(*syscall.Stat_t); !fi.IsDir() || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("check state directory: %s is not a directory of user %d", dir, os.Geteuid())
	}
	if fi.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("close state directory to others: %w", err)
		}
	}
	return nil
}

// All returns the IDs of all workloads, Active those that have a run-time
// directory.
func (l Layout) All() ([]workload.ID, error)    { return ids(filepath.Join(l.Root, "workloads")) }
func (l Layout) Active() ([]workload.ID, error) { return ids(l.Run) }

// Trash returns the workloads whose removal was not finished.
func (l Layout) Trash() ([]workload.ID, error) { return ids(filepath.Join(l.Root, "trash")) }

func ids(dir string) ([]workload.ID, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("list workloads: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list workloads: %w", err)
	}
	var out []workload.ID
	for _, n := range names {
		if id, err := workload.ParseID(n); err == nil {
			out = append(out, id)
		}
	}
	return out, nil
}

// maxName is the length of the longest name, in bytes.
const maxName = 128

// CheckName reports what is wrong with a workload's name: names begin with a
// letter or digit, go on with these and "_", "." and "-", and do not look like
// a whole ID.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && strings.IndexByte("_.-", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("name %q: want at most %d letters, digits, \"_\", \".\" and \"-\", the first a letter or digit", name, maxName)
	}
	if _, err := workload.ParseID(name); err == nil {
		return fmt.Errorf("name %q looks like an ID", name)
	}
	return nil
}

// Named returns the workload that has a name, which is not checked.
func (l Layout) Named(name string) (workload.ID, bool) {
	to, err := os.Readlink(l.Name(name))
	if err != nil {
		return "", false
	}
	id, err := workload.ParseID(to)
	if err != nil {
		return "", false
	}
	return id, l.holds(id, name)
}

// Find returns the workload that ref means: a whole ID, a name, or the
// beginning of an ID, tried in this order.
func (l Layout) Find(ref string) (workload.ID, error) {
	if id, err := workload.ParseID(ref); err == nil {
		if _, err := os.Lstat(l.Dir(id)); err == nil {
			return id, nil
		}
		return "", fmt.Errorf("%w: %q", workload.ErrNotFound, ref)
	}
	if CheckName(ref) != nil {
		return "", fmt.Errorf("%w: %q", workload.ErrNotFound, ref)
	}
	if id, ok := l.Named(ref); ok {
		return id, nil
	}
	all, err := l.All()
	if err != nil {
		return "", err
	}
	var found workload.ID
	for _, id := range all {
		if !strings.HasPrefix(string(id), ref) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%w: %q", workload.ErrAmbiguous, ref)
		}
		found = id
	}
	if found == "" {
		return "", fmt.Errorf("%w: %q", workload.ErrNotFound, ref)
	}
	return found, nil
}
