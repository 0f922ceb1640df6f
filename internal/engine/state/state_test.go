package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// layout makes a layout with one workload's directories.
func layout(t *testing.T) (Layout, workload.ID) {
	t.Helper()
	dir := t.TempDir()
	l := Layout{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "root", "run")}
	if rebooted, err := l.Make(); err != nil || !rebooted {
		t.Fatalf("make: %v, %v", rebooted, err)
	}
	id := workload.NewID()
	for _, d := range []string{l.Dir(id), l.RunDir(id)} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(l.Dir(id), "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return l, id
}

func TestTransitions(t *testing.T) {
	all := []workload.Status{"", workload.Created, workload.Running, workload.Paused, workload.Exited}
	want := map[string]bool{
		" created": true, "created running": true, "running paused": true, "running exited": true,
		"paused running": true, "paused exited": true, "exited running": true,
	}
	for _, from := range all {
		for _, to := range all {
			s := State{Status: from}
			err := s.To(to)
			if key := fmt.Sprintf("%s %s", from, to); (err == nil) != want[key] || err == nil && s.Status != to || err != nil && s.Status != from {
				t.Errorf("%s: got %v, status %s", key, err, s.Status)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "A-b_c.9": true, "0": true, strings.Repeat("x", 128): true,
		"": false, ".a": false, "-a": false, "a/b": false, "..": false, "a b": false, "a\n": false, "ä": false,
		strings.Repeat("x", 129): false, strings.Repeat("a", 64): false, strings.Repeat("g", 64): true,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// twoVersions is a state whose parts are of two versions.
const twoVersions = `{"status":"created","crc32c":"00000000"}`

// TestTorn reads what a power cut may leave of a record.
func TestTorn(t *testing.T) {
	l, id := layout(t)
	if _, err := l.ReadState(id); Exists(err) {
		t.Errorf("no record: got %v", err)
	}
	for text, exists := range map[string]bool{"": false, "   \n": false, "\x00\x00": false, `{"sta`: true, `{"status":"odd"}`: true, "{}": true, twoVersions: true} {
		if err := os.WriteFile(filepath.Join(l.Dir(id), "state.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.ReadState(id); err == nil || Exists(err) != exists {
			t.Errorf("%q: got %v, want it to exist: %v", text, err, exists)
		}
	}
}

// TestRestore reads a state that a power cut spoilt, with the version before
// beside it.
func TestRestore(t *testing.T) {
	const want = "first"
	for _, text := range []string{"", "    ", `{"sta`, twoVersions} {
		l, id := layout(t)
		if err := l.WriteSpec(&workload.Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(l.Root, "names"), 0o700); err != nil {
			t.Fatal(err)
		}
		var unread error
		spoil := func() {
			t.Helper()
			if err := os.WriteFile(l.state(id), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, unread = l.ReadState(id)
		}
		write := func(what string) *State {
			t.Helper()
			s := &State{Status: workload.Created, LogError: what}
			if err := l.WriteState(id, s, true); err != nil {
				t.Fatal(err)
			}
			return s
		}
		// Its creation was not finished.
		spoil()
		if s, err := l.RestoreState(id, unread); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q, and nothing before it: %+v, %v", text, s, err)
		}
		if err := l.Reserve(id, write("first")); err != nil {
			t.Fatal(err)
		}
		spoil()
		if s, err := l.RestoreState(id, unread); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q, and room for the next: %+v, %v", text, s, err)
		}
		if err := l.Reserve(id, write("first")); err != nil {
			t.Fatal(err)
		}
		write("second")
		spoil()
		s, err := l.RestoreState(id, unread)
		if err != nil || s.LogError != want {
			t.Errorf("%q: got %+v, %v, want %s", text, s, err, want)
		}
		if s, err := l.ReadState(id); err != nil || s.LogError != want {
			t.Errorf("%q, afterwards: got %+v, %v", text, s, err)
		}
		write("third")
		if s, err := l.ReadState(id); err != nil || s.LogError != "third" {
			t.Errorf("%q, another version: got %+v, %v", text, s, err)
		}
		// What else is wrong is not for this: another version of the program may know
		// the status, and without a state a creation was not finished.
		if err := os.WriteFile(l.state(id), []byte(`{"status":"odd"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		_, unread = l.ReadState(id)
		if s, err := l.RestoreState(id, unread); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a status of another version: %+v, %v", s, err)
		}
		if err := os.Remove(l.state(id)); err != nil {
			t.Fatal(err)
		}
		_, unread = l.ReadState(id)
		if s, err := l.RestoreState(id, unread); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no state: %+v, %v", s, err)
		}
	}
}

// TestLargeSpec records what is too large to be started: nothing is written.
func TestLargeSpec(t *testing.T) {
	l, id := layout(t)
	s := &workload.Spec{ID: id, Labels: map[string]string{"large": strings.Repeat("<", maxSpec/6)}} // JSON has 6 bytes for each
	if err := l.WriteSpec(s); err == nil {
		t.Error("no error")
	}
	if _, err := l.ReadSpec(id); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestVersions writes ever different versions and reads each back, with and
// without room reserved for them.
func TestVersions(t *testing.T) {
	l, id := layout(t)
	s := &State{Status: workload.Created}
	for i := range 10 {
		s.LogError = strings.Repeat("x", (i*997)%3000)
		if err := l.WriteState(id, s, true); err != nil {
			t.Fatal(err)
		}
		got, err := l.ReadState(id)
		if err != nil || got.LogError != s.LogError {
			t.Errorf("version %d: got %+v, %v", i, got, err)
		}
		if i == 5 {
			if err := l.Reserve(id, s); err != nil {
				t.Fatal(err)
			}
		}
		if i >= 5 {
			fi, err := os.Stat(filepath.Join(l.Dir(id), "state.next"))
			if err != nil || fi.Size() == 0 {
				t.Errorf("version %d: the room is gone: %v", i, err)
			}
		}
	}
	if err := l.Sync(id); err == nil {
		t.Error("sync without a spec: no error")
	}
}

// TestReadWhileWritten reads a state over and over while it is replaced as often: each
// reader gets one version, whole, although the file that it has open may be the room
// into which the version after the next goes.
func TestReadWhileWritten(t *testing.T) {
	l, id := layout(t)
	version := func(n int) *State { // about 40 kB, of one digit
		digit := strconv.Itoa(n % 10)
		s := &State{Status: workload.Running, LogError: digit, Upper: digit}
		for range 10 {
			s.Layers = append(s.Layers, strings.Repeat(digit, 4000-n%100))
		}
		return s
	}
	if err := l.WriteState(id, version(0), false); err != nil {
		t.Fatal(err)
	}
	if err := l.Reserve(id, version(0)); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	read := make([]int, 4)
	done := make(chan struct{})
	for i := range read {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s, err := l.ReadState(id)
				if err != nil {
					t.Error(err)
					return
				}
				read[i]++
				if digits := s.LogError + s.Upper + strings.Join(s.Layers, ""); strings.Trim(digits, s.LogError) != "" {
					t.Errorf("a state of several versions: %.200s", digits)
					return
				}
			}
		})
	}
	for n := range 3000 {
		if err := l.WriteState(id, version(n), false); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	readers.Wait()
	if slices.Max(read) == 0 {
		t.Error("nothing was read")
	}
}

// TestCutOff replaces a record that, unlike a state, has no room beside it, after a
// write of it was cut off: what that has left does not become room, into which a third
// version would go under the eyes of a reader of the first.
func TestCutOff(t *testing.T) {
	l, id := layout(t)
	if err := l.WriteHealth(id, &workload.HealthState{Status: "before"}); err != nil {
		t.Fatal(err)
	}
	next := l.Health(id) + ".next"
	if err := os.WriteFile(next, []byte(`{"status":"star`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteHealth(id, &workload.HealthState{Status: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(next); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("beside it: %v", err)
	}
	if h, err := l.ReadHealth(id); err != nil || h.Status != "x" {
		t.Errorf("got %+v, %v", h, err)
	}
}

func TestLock(t *testing.T) {
	l, id := layout(t)
	k, err := l.TryLock(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.TryLock(id); !errors.Is(err, ErrLocked) {
		t.Errorf("twice: got %v", err)
	}
	if err := l.Remove(id, "", 0); err != nil {
		t.Fatal(err)
	}
	k.Unlock()
	if _, err := l.TryLock(id); !errors.Is(err, workload.ErrNotFound) {
		t.Errorf("removed: got %v", err)
	}
}

// TestPrivate refuses a state directory that others own, and closes one that
// they could enter.
func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	if err := private(dir); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
	link := dir + "-link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := private(link); err == nil {
		t.Error("a symbolic link: no error")
	}
	if os.Geteuid() != 0 {
		t.Skip("the rest needs root, to give a directory away")
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := private(dir); err == nil {
		t.Error("somebody else's directory: no error")
	}
}
