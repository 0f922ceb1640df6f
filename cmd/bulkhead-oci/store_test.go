package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

const config = `{"ociVersion":"1.3.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["sh"]},"linux":{}}`

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A_b+c-d.9": true, strings.Repeat("a", 255): true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "~deleted-1": false, "é": false,
		"\n": false, strings.Repeat("a", 256): false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("%q: got %v, want accepted: %v", id, err, ok)
		}
	}
}

func TestStoreLifecycle(t *testing.T) {
	s := store{filepath.Join(t.TempDir(), "root")}
	if _, err := s.open(t.Context(), "one"); !errors.Is(err, errNotExist) {
		t.Errorf("open before create: %v", err)
	}
	e, err := s.create(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.create(t.Context(), "one"); !errors.Is(err, errExist) {
		t.Errorf("second create: %v", err)
	}
	want := record{Version: "1.3.0", ID: "one", Created: time.Unix(1, 0).UTC(), Cgroup: "/c"}
	if err := errors.Join(e.keepConfig([]byte(config)), e.save(&want)); err != nil {
		t.Fatal(err)
	}
	got, err := s.load("one")
	if err != nil || got.record != want || got.spec.Process.Args[0] != "sh" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if st, err := got.status(); err != nil || st != specs.StateCreating || got.pid(st) != 0 {
		t.Errorf("a container that was never made is %s, %v", st, err)
	}
	if ids, err := s.list(); err != nil || len(ids) != 1 || ids[0] != "one" {
		t.Errorf("list: %v, %v", ids, err)
	}
	if err := e.remove(); err != nil {
		t.Fatal(err)
	}
	e.Close()
	if left, _ := os.ReadDir(s.root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := s.load("one"); !errors.Is(err, errNotExist) {
		t.Errorf("load after remove: %v", err)
	}
}

// TestLoadDuringRemoval: a container that is deleted while it is read does not exist,
// whichever of its files was gone first.
func TestLoadDuringRemoval(t *testing.T) {
	s := store{t.TempDir()}
	ended := make(chan error, 1)
	go func() {
		for range 300 {
			e, err := s.create(context.Background(), "one")
			if err == nil {
				err = errors.Join(e.keepConfig([]byte(config)), e.save(&record{ID: "one"}), e.remove())
				e.Close()
			}
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for {
		b, err := s.load("one")
		if err == nil {
			b.Close()
		} else if !errors.Is(err, errNotExist) {
			t.Errorf("got %v, want %v", err, errNotExist)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

// A command that waited for the lock of a container that is deleted meanwhile
// must not go on with what is no longer there.
func TestOpenAfterRemoval(t *testing.T) {
	s := store{t.TempDir()}
	e, err := s.create(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.open(t.Context(), "one") })
	}
	if err := e.remove(); err != nil {
		t.Fatal(err)
	}
	e.Close()
	wg.Wait()
	for _, err := range errs {
		if !errors.Is(err, errNotExist) {
			t.Errorf("got %v, want that it does not exist", err)
		}
	}
}

func TestCreateIsExclusive(t *testing.T) {
	s := store{t.TempDir()}
	var wg sync.WaitGroup
	made := make([]bool, 16)
	for i := range made {
		wg.Go(func() {
			e, err := s.create(t.Context(), "one")
			if err == nil {
				made[i] = true
				e.Close()
			}
		})
	}
	wg.Wait()
	n := 0
	for _, m := range made {
		if m {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d commands created the same container", n)
	}
}

func TestListOfMissingRoot(t *testing.T) {
	if _, err := (store{filepath.Join(t.TempDir(), "none")}).list(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestDamagedRecordIsAnError(t *testing.T) {
	s := store{t.TempDir()}
	e, err := s.create(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, text := range []string{"", "{", "[]", `{"id":1}`} {
		if err := os.WriteFile(filepath.Join(e.dir, recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.load("one"); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestRecordKeepsItsForm(t *testing.T) {
	b, err := json.Marshal(record{Version: "1.3.0", ID: "a", Bundle: "/b", Rootfs: "/b/r",
		Created: time.Unix(0, 0).UTC(), Cgroup: "/c"})
	want := `{"ociVersion":"1.3.0","id":"a","bundle":"/b","rootfs":"/b/r","created":"1970-01-01T00:00:00Z",` +
		`"owner":0,"cgroup":"/c"}`
	if err != nil || string(b) != want {
		t.Errorf("got  %s, %v\nwant %s", b, err, want)
	}
}

func TestWriteAtomicallyLeavesNothingOnFailure(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.MkdirAll(filepath.Join(target, "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeAtomically(target, []byte("x"), 0o600); err == nil {
		t.Fatal("a directory was replaced")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestBusy: a command that waits for another one ends when it is told to, and at the
// latest when that has had its time.
func TestBusy(t *testing.T) {
	defer func(was time.Duration) { lockTime = was }(lockTime)
	root := t.TempDir()
	s := store{root}
	e, err := s.create(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.open(ctx, "one"); !errors.Is(err, errBusy) || !strings.Contains(err.Error(), "told to end") {
		t.Errorf("got %v", err)
	}
	lockTime = 10 * time.Millisecond
	for _, verb := range []string{"pause", "resume", "start", "update", "delete"} {
		code, _, errs := call(t, "--root", root, verb, "one")
		if code != 1 || !strings.Contains(errs, "another command is working on the container") || !strings.Contains(errs, "hook") {
			t.Errorf("%s: %d, %q", verb, code, errs)
		}
	}
	// The waits that were given up do not keep the lock.
	lockTime = time.Minute
	e.Close()
	if e, err = s.open(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	e.unlock()
	if err := e.relock(t.Context()); err != nil {
		t.Error(err)
	}
	e.Close()
}

// TestSignalWhileBusy: the process ends by a signal.
func TestSignalWhileBusy(t *testing.T) {
	root := t.TempDir()
	e, err := store{root}.create(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	also := make(chan os.Signal, 1) // this process is to live through what comes too early
	signal.Notify(also, syscall.SIGTERM)
	defer signal.Stop(also)
	ended := make(chan int)
	go func() {
		code, _, _ := call(t, "--root", root, "pause", "one")
		ended <- code
	}()
	for {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case code := <-ended:
			if code != 1 {
				t.Errorf("got %d", code)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestCutOffRemoval: what a removal left that was killed goes with the next one, and
// what one is still at does not.
func TestCutOffRemoval(t *testing.T) {
	root := t.TempDir()
	left := func(name string) string {
		t.Helper()
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Join(dir, "below"), 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "below", "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	busy, err := os.Open(left("~deleted-2"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := flock.Take(busy, syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"delete", "none"}, {"delete", "--force", "none"}, {"list"}} {
		left("~deleted-1")
		call(t, append([]string{"--root", root}, args...)...)
		if now, _ := os.ReadDir(root); len(now) != 1 || now[0].Name() != "~deleted-2" {
			t.Errorf("%v: left %v", args, now)
		}
	}
	busy.Close()
	s := store{root}
	e, err := s.create(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	if code, _, errs := call(t, "--root", root, "delete", "one"); code != 0 || errs != "" {
		t.Errorf("%d, %q", code, errs)
	}
	if now, _ := os.ReadDir(root); len(now) != 0 {
		t.Errorf("left %v", now)
	}
}
