package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// State is what is so now of one workload: the contents of state.json.
type State struct {
	Status     workload.Status `json:"status"`
	PID        int             `json:"pid,omitempty"`
	Supervisor int             `json:"supervisor,omitempty"`
	Started    time.Time       `json:"started,omitzero"`
	Finished   time.Time       `json:"finished,omitzero"`
	// Exit is set before the status becomes Exited: in between, the workload's
	// first process has ended and the boundary is being cleaned up.
	Exit     *workload.Exit `json:"exit,omitempty"`
	LogError string         `json:"logError,omitempty"`
	// Restarts is how often the policy has brought the workload back since its
	// start, Ends how the last few of those lives ended, oldest first, and Pause how
	// long the last wait before a restart was.
	Restarts int             `json:"restarts,omitempty"`
	Ends     []workload.Exit `json:"ends,omitempty"`
	Pause    time.Duration   `json:"pause,omitempty"`
	// Stopped is set when a command ended the workload, or is about to.
	Stopped bool `json:"stopped,omitempty"`
	// Held is set while the workload is created for the sake of its files alone: a
	// command that dies then leaves it as it was.
	Held bool `json:"held,omitempty"`
	// NICs and Ports are what the workload got of networks at its last start, with
	// addresses and the host's ports. It gets the same at the next, if they are
	// free.
	NICs  []workload.NIC  `json:"nics,omitempty"`
	Ports []workload.Port `json:"ports,omitempty"`

	// What was prepared, and stays the same from creation to removal.
	Layers  []string          `json:"layers"`
	Upper   string            `json:"upper"`
	Work    string            `json:"work"`
	Files   map[string]string `json:"files,omitempty"`
	IDBase  uint32            `json:"idBase"`
	IDCount uint32            `json:"idCount"`
	Cgroup  string            `json:"cgroup"`
	// Machine is nil where the root is made of layers.
	Machine *boundary.Machine `json:"machine,omitempty"`
}

// next lists what each status can become. See workload.Status.
var next = map[workload.Status][]workload.Status{
	"":               {workload.Created},
	workload.Created: {workload.Running},
	workload.Running: {workload.Paused, workload.Exited, workload.Restarting},
	workload.Paused:  {workload.Running, workload.Exited, workload.Restarting},
	workload.Exited:  {workload.Running},

	workload.Restarting: {workload.Running, workload.Exited},
}

// To changes the status, or reports that there is no such transition.
func (s *State) To(to workload.Status) error {
	if !slices.Contains(next[s.Status], to) {
		return fmt.Errorf("workload cannot become %s while it is %s", to, s.Status)
	}
	s.Status = to
	return nil
}

// Live reports whether the state claims that there is a supervisor.
func (s *State) Live() bool {
	return s.Status == workload.Running || s.Status == workload.Paused || s.Status == workload.Restarting
}

// Active reports whether the workload runs, or will again by itself: commands
// that want it idle must stop it first.
func (s *State) Active() bool {
	return s.Live() && (s.Exit == nil || s.Status == workload.Restarting)
}

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 32 << 20

// maxSpec bounds a spec.json, in bytes: it goes to a supervisor in one message, with
// the state, and that may have 16 MiB (package wire).
const maxSpec = 14 << 20

// A state.json is filled up to whole blocks, so that the next version, a little
// longer, needs no more; both in bytes. The ends of lives are what grows.
const block, slack = 4096, 3072

// WriteSpec records what was asked of a new workload. What could never be started, for
// its size, is an error: much of it may come from an image.
func (l Layout) WriteSpec(s *workload.Spec) error {
	b, err := json.Marshal(s)
	if err == nil && len(b) > maxSpec {
		err = fmt.Errorf("its record has %d bytes, and %d are the most: there are too many labels or variables, or too long ones, perhaps the image's", len(b), maxSpec)
	}
	if err != nil {
		return fmt.Errorf("record workload: %w", err)
	}
	if err := replace(filepath.Join(l.Dir(s.ID), "spec.json"), "", b, atomic); err != nil {
		return fmt.Errorf("record workload: %w", err)
	}
	return nil
}

// ReadSpec reads back what WriteSpec wrote, with what was changed since. The error wraps os.ErrNotExist if
// there is none.
func (l Layout) ReadSpec(id workload.ID) (*workload.Spec, error) {
	var s workload.Spec
	if err := read(filepath.Join(l.Dir(id), "spec.json"), &s); err != nil {
		return nil, fmt.Errorf("read record of workload %s: %w", id.Short(), err)
	}
	if s.ID != id {
		return nil, fmt.Errorf("read record of workload %s: it says %q", id.Short(), s.ID)
	}
	c, err := l.readChanges(id)
	if err != nil {
		return nil, err
	}
	c.apply(&s)
	return &s, nil
}

// WriteState replaces a workload's state. After a power cut there is this version
// or one before, if kept says that the workload survives that; one that goes
// at its end does not, and need not wait for the disk.
func (l Layout) WriteState(id workload.ID, s *State, kept bool) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("record state of workload %s: %w", id.Short(), err)
	}
	how := atomic
	if kept {
		how = ordered
	}
	if err := replace(l.state(id), l.nextState(id), seal(b), how); err != nil {
		return fmt.Errorf("record state of workload %s: %w", id.Short(), err)
	}
	return nil
}

func (l Layout) state(id workload.ID) string { return filepath.Join(l.Dir(id), "state.json") }

// nextState is where the next version is written, and the one before kept.
func (l Layout) nextState(id workload.ID) string { return filepath.Join(l.Dir(id), "state.next") }

// RestoreState puts the version before in the place of a state that a power cut has
// left blank or torn; unread is the error of ReadState. The error wraps
// os.ErrNotExist if there is none, or if it is not that which is wrong. The caller
// holds the workload's lock.
func (l Layout) RestoreState(id workload.ID, unread error) (*State, error) {
	if _, err := os.Lstat(l.state(id)); err != nil {
		return nil, err // there never was one
	}
	if !torn(unread) && !errors.Is(unread, os.ErrNotExist) {
		return nil, os.ErrNotExist
	}
	next := l.nextState(id)
	s, err := decodeState(id, next)
	if err != nil {
		return nil, err
	}
	if err = exchange(next, l.state(id)); err == nil {
		err = l.Sync(id)
	}
	if err != nil {
		return nil, fmt.Errorf("restore state of workload %s: %w", id.Short(), err)
	}
	return s, nil
}

// Reserve keeps room for all later versions of a state on a disk that may be
// full by then: each is written over the one before the last. Blanks behind that
// one are the room.
func (l Layout) Reserve(id workload.ID, s *State) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = extend(l.nextState(id), (len(b)+slack+block-1)/block*block)
	}
	if err != nil {
		return fmt.Errorf("reserve room for the state of workload %s: %w", id.Short(), err)
	}
	return nil
}

// extend makes a file at least n bytes long, with blanks at its end.
func extend(path string, n int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if more := n - int(fi.Size()); more > 0 {
		_, err = f.Write(bytes.Repeat([]byte{' '}, more))
	}
	return err
}

// Sync brings a workload's records and their directory entries to the disk.
func (l Layout) Sync(id workload.ID) error {
	dir := l.Dir(id)
	for _, p := range []string{dir + "/spec.json", l.state(id), l.nextState(id), dir, filepath.Dir(dir), filepath.Join(l.Root, "names")} {
		f, err := os.Open(p)
		if p == l.nextState(id) && errors.Is(err, os.ErrNotExist) {
			continue // it comes with the room that is reserved
		}
		if err == nil {
			err = f.Sync()
			f.Close()
		}
		if err != nil {
			return fmt.Errorf("sync workload %s to disk: %w", id.Short(), err)
		}
	}
	return nil
}

// ReadState reads a workload's state. The error wraps os.ErrNotExist if its
// creation was not finished.
//
// It needs no lock. A reader that has the file open while its contents are replaced
// twice has the room of the second version in its hands, and sees how that is filled;
// it then reads again.
func (l Layout) ReadState(id workload.ID) (s *State, err error) {
	const attempts = 10 // each but the last lost a race against two versions
	for range attempts {
		if s, err = decodeState(id, l.state(id)); !torn(err) {
			break
		}
	}
	return s, err
}

// decodeState reads one of the two files of a state, once.
func decodeState(id workload.ID, path string) (*State, error) {
	var s State
	b, err := contents(path)
	if err == nil {
		if err = unseal(b); err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read state of workload %s: %w", id.Short(), err)
	}
	if _, ok := next[s.Status]; !ok || s.Status == "" {
		return nil, fmt.Errorf("read state of workload %s: unknown status %q", id.Short(), s.Status)
	}
	return &s, nil
}

// A seal is the last member of a state's JSON: the checksum of all before it, CRC-32C
// as in RFC 3720, appendix B.4. Without it, parts of two versions may make a third that
// never was.
const (
	sealKey  = `,"crc32c":"`
	sealSize = len(sealKey) + 8 + len(`"}`)
)

var errSeal = errors.New("its checksum is of other contents")

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// seal adds a seal to a JSON object that has members.
func seal(b []byte) []byte {
	b = b[:len(b)-1] // its closing brace
	return fmt.Appendf(b, `%s%08x"}`, sealKey, checksum(b))
}

// unseal checks the seal. A state of an earlier version of the program has none: the
// last bytes of a state that is torn are not the end of any other.
func unseal(b []byte) error {
	end := max(len(b)-sealSize, 0)
	if want, ok := bytes.CutPrefix(b[end:], []byte(sealKey)); ok && string(want) != fmt.Sprintf(`%08x"}`, checksum(b[:end])) {
		return errSeal
	}
	return nil
}

// torn reports whether err says that a state is not as any was written.
func torn(err error) bool {
	var syntax *json.SyntaxError
	return errors.Is(err, errSeal) || errors.As(err, &syntax)
}

// WriteHealth replaces what a workload's health checks have shown.
func (l Layout) WriteHealth(id workload.ID, h *workload.HealthState) error {
	b, err := json.Marshal(h)
	if err == nil {
		err = replace(l.Health(id), "", b, atomic)
	}
	if err != nil {
		return fmt.Errorf("record health of workload %s: %w", id.Short(), err)
	}
	return nil
}

// ReadHealth reads it back. The error wraps os.ErrNotExist if there is none.
func (l Layout) ReadHealth(id workload.ID) (*workload.HealthState, error) {
	var h workload.HealthState
	if err := read(l.Health(id), &h); err != nil {
		return nil, fmt.Errorf("read health of workload %s: %w", id.Short(), err)
	}
	return &h, nil
}

// read decodes the JSON in path. A file without contents counts as missing.
func read(path string, v any) error {
	b, err := contents(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// contents returns what is in a file, but for the blanks around it. One that is empty
// or blank, as a power cut may leave it, counts as missing.
func contents(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRecord {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxRecord)
	}
	if b = bytes.Trim(b, " \n\x00"); len(b) == 0 {
		return nil, &os.PathError{Op: "read", Path: path, Err: os.ErrNotExist}
	}
	return b, nil
}

// durability is what a power cut may do to a file that replace has written.
type durability int

const (
	// atomic: a reader sees the old or the new contents, and never a part. A power
	// cut soon after it may leave nothing.
	atomic durability = iota
	// ordered: the contents are on the disk before they take the place of others,
	// so that one of both is there. An exchange, unlike a rename, makes no file
	// system see to that.
	ordered
	// durable: they are on the disk, with their name, when replace returns.
	durable
)

// replace puts b in the place of path. It writes into next first, whose blocks it
// reuses; "" stands for a name of its own. If next was there, it is there
// afterwards, with the old contents.
func replace(path, next string, b []byte, d durability) error {
	flags := os.O_CREATE | os.O_WRONLY
	if next == "" {
		next = path + ".next"
		flags |= os.O_TRUNC // what a write that was cut off has left is no room
	}
	f, err := os.OpenFile(next, flags, 0o600)
	if err != nil {
		return err
	}
	reserved, err := write(f, b, d)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && reserved {
		err = exchange(next, path)
	} else if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		if !reserved {
			os.Remove(next)
		}
		return err
	}
	if d != durable {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// exchange swaps two files, or renames next if there is no path.
func exchange(next, path string) error {
	err := sys.Exchange(next, path)
	if errors.Is(err, os.ErrNotExist) {
		err = os.Rename(next, path)
	}
	return err
}

// write fills f with b and blanks up to f's old length: shortening it would
// give blocks back. It reports whether f had a length.
func write(f *os.File, b []byte, d durability) (reserved bool, err error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	reserved = fi.Size() > 0
	if pad := fi.Size() - int64(len(b)); pad > 0 {
		b = append(b, bytes.Repeat([]byte{' '}, int(pad))...)
	}
	if _, err := f.Write(b); err != nil {
		return reserved, err
	}
	switch {
	case d == durable:
		return reserved, f.Sync()
	case d == ordered && reserved:
		return reserved, os.NewSyscallError("fdatasync", syscall.Fdatasync(int(f.Fd())))
	}
	return reserved, nil
}

// Exists reports whether err, of ReadSpec or ReadState, says anything else than
// that there is no record.
func Exists(err error) bool { return !errors.Is(err, os.ErrNotExist) }
