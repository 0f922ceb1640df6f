package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// oneFile is an archive of one file.
func oneFile(name, content string) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
	io.WriteString(w, content)
	w.Close()
	return &b
}

// copyBothWays does everything there is to do with a workload's files.
func copyBothWays(ctx context.Context, e *Engine, ref string) error {
	f, err := e.Files(ctx, ref)
	if err != nil {
		return err
	}
	var back bytes.Buffer
	err = f.WriteArchive(ctx, "/", boundary.ArchiveOptions{NoOverwriteDir: true}, oneFile("file", "text"))
	if err == nil {
		_, err = f.StatPath(ctx, "/file")
	}
	if err == nil {
		err = f.ReadArchive(ctx, "/file", boundary.ReadOptions{}, &back)
	}
	if err == nil && !bytes.Contains(back.Bytes(), []byte("text")) {
		err = errors.New("the file does not come back")
	}
	if err == nil {
		_, err = f.Changes(ctx)
	}
	return errors.Join(err, f.Close())
}

// TestCopyEveryState copies before, while and after a workload runs.
func TestCopyEveryState(t *testing.T) {
	w := newWorld(t)
	s := spec("pause")
	s.Name = "k"
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	check := func(when string, status workload.Status) {
		t.Helper()
		before := w.want("k", status)
		if err := copyBothWays(ctx(t), w.Engine, "k"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		after := w.want("k", status)
		if after.PID != before.PID || after.Started != before.Started || (after.Exit == nil) != (before.Exit == nil) {
			t.Errorf("%s: before %+v, after %+v", when, before, after)
		}
		if status != workload.Running {
			if _, err := os.Lstat(after.RunDir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: the run-time directory is left", when)
			}
		}
	}
	check("created", workload.Created)
	if _, err := w.Start(ctx(t), "k", nil); err != nil {
		t.Fatal(err)
	}
	check("running", workload.Running)
	if err := w.Stop(ctx(t), "k", new(time.Duration)); err != nil {
		t.Fatal(err)
	}
	check("exited", workload.Exited)
	if _, err := w.Files(ctx(t), "nothing"); !errors.Is(err, workload.ErrNotFound) {
		t.Error(err)
	}
}

// TestHeldIsNotRunning asks a workload that is held for what only one that runs
// can do, and waits with what would start it.
func TestHeldIsNotRunning(t *testing.T) {
	w := newWorld(t)
	s := spec("pause")
	s.Name = "k"
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	f, err := w.Files(ctx(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(ctx(t), "k", 15); !errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("kill: %v", err)
	}
	if err := w.Pause(ctx(t), "k"); !errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("pause: %v", err)
	}
	if _, err := w.Exec(ctx(t), "k", process("echo"), nil); !errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("exec: %v", err)
	}
	started := make(chan error)
	go func() {
		_, err := w.Start(ctx(t), "k", nil)
		started <- err
	}()
	select {
	case err := <-started:
		t.Errorf("start beside a copy: %v", err)
	case <-time.After(100 * time.Millisecond):
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
	w.want("k", workload.Running)
	// What a hostile archive does is an error, and no more.
	f, err = w.Files(ctx(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WriteArchive(ctx(t), "/", boundary.ArchiveOptions{}, oneFile("../x", strings.Repeat("x", 1<<20))); err == nil || !strings.Contains(err.Error(), "hostile") {
		t.Error(err)
	}
	broken := errors.New("the input broke")
	if err := f.WriteArchive(ctx(t), "/", boundary.ArchiveOptions{}, io.MultiReader(strings.NewReader(strings.Repeat("\x00", 100)), errorReader{broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := f.ReadArchive(ctx(t), "/", boundary.ReadOptions{}, errorWriter{broken}); !errors.Is(err, broken) {
		t.Error(err)
	}
	// A reader that takes nothing does not hold up the workload's end.
	r, pw := io.Pipe()
	done := make(chan error)
	if err := os.WriteFile(filepath.Join(w.want("k", workload.Running).Upper, "big"), make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { done <- f.ReadArchive(ctx(t), "/", boundary.ReadOptions{}, pw) }()
	if _, err := io.ReadFull(r, make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(ctx(t), "k", new(time.Duration)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r)
	if err := <-done; err == nil {
		t.Error("an archive that was cut off is taken for a whole one")
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

type errorWriter struct{ err error }

func (e errorWriter) Write([]byte) (int, error) { return 0, e.err }

// TestCrashKeepsCreated kills a copy, or its supervisor, at each step: a workload
// that is to be removed at its end has not had one.
func TestCrashKeepsCreated(t *testing.T) {
	w := newWorld(t)
	s := spec("both")
	s.Name, s.AutoRemove = "k", true
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "steps")
	if _, out := w.child(command{Op: "copy", Ref: "k"}, envSteps+"="+list); out != "" {
		t.Fatal(out)
	}
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	steps := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(steps) < 6 {
		t.Errorf("steps: %q", steps)
	}
	for _, step := range steps {
		w.child(command{Op: "copy", Ref: "k"}, envCrash+"="+step, envCrashed+"="+filepath.Join(t.TempDir(), "crashed"))
		if id, err := w.layout.Find("k"); err == nil {
			w.awaitDeath(id)
		}
		w.reopen()
		if r := w.want("k", workload.Created); r == nil {
			t.Fatalf("%s: it is gone", step)
		}
	}
	if err := copyBothWays(ctx(t), w.Engine, "k"); err != nil {
		t.Error(err)
	}
}
