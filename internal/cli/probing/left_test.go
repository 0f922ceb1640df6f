package probing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// forget is the end of a process with canaries: what only the process has goes.
func (c *Canaries) forget() {
	for _, l := range c.listeners {
		l.Close()
	}
	c.serving.Wait()
}

// TestClear removes what a process left that was killed, and nothing that others
// have made in its place.
func TestClear(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	record := t.TempDir()
	c, err := PutUp(record)
	if err != nil {
		t.Fatal(err)
	}
	c.forget()
	if err := Clear(record); err != nil {
		t.Fatal(err)
	}
	for _, dir := range c.left.Dirs {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a directory: %v", err)
		}
	}
	if c.Targets.ShmKey != 0 {
		if _, err := unix.SysvShmGet(c.left.Key, 0, 0); !errors.Is(err, unix.ENOENT) {
			t.Errorf("the segment: %v", err)
		}
	}
	if left, err := os.ReadDir(record); err != nil || len(left) > 0 {
		t.Errorf("%v is written down: %v", left, err)
	}
	if err := Clear(record); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// TestClearForeign: a directory that others can write in, or that is theirs, and a
// segment of another process stay.
func TestClearForeign(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	record := t.TempDir()
	for name, take := range map[string]func(dir string) error{
		"writable by all": func(dir string) error { return os.Chmod(dir, 0o777) },
		"another user's": func(dir string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(dir, 0o777)
			}
			return os.Chown(dir, 65534, 65534)
		},
		"a link": func(dir string) error {
			if err := os.Rename(dir, dir+".moved"); err != nil {
				return err
			}
			return os.Symlink(dir+".moved", dir)
		},
	} {
		c, err := PutUp(record)
		if err != nil {
			t.Fatal(err)
		}
		c.forget()
		other := c.left
		other.PID = 1
		if err := errors.Join(take(c.left.Dirs[0]), other.write(record), Clear(record)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(c.Targets.Files[0]); err != nil {
			t.Errorf("%s: the file has gone: %v", name, err)
		}
		if c.Targets.ShmKey != 0 {
			if _, err := unix.SysvShmGet(c.left.Key, 0, 0); err != nil {
				t.Errorf("the segment of another process has gone: %v", err)
			}
			if err := c.left.removeShm(); err != nil {
				t.Error(err)
			}
		}
	}
}

// remover is an engine that records what is removed.
type remover struct {
	records []*engine.Record
	tenants []string
	fails   bool
	removed []string
}

func (r *remover) List(context.Context) ([]*engine.Record, error) { return r.records, nil }

func (r *remover) Remove(_ context.Context, ref string, _ bool) error {
	r.removed = append(r.removed, ref)
	return nil
}

func (r *remover) RemoveTenant(_ context.Context, tenant string, _ bool) error {
	if r.fails {
		return errors.New("it does not end")
	}
	if !slices.Contains(r.tenants, tenant) {
		return fmt.Errorf("%w: %s", engine.ErrNoTenant, tenant)
	}
	r.removed = append(r.removed, tenant)
	return nil
}

// TestSweep: the workloads and the tenant of a probe that was killed go, and those
// with names and labels of others stay.
func TestSweep(t *testing.T) {
	parent := scratch.Below(t.TempDir(), "probe")
	killed, _, err := scratch.Open(parent)
	if err != nil {
		t.Fatal(err)
	}
	killed.Close()
	record := func(id, label string) *engine.Record {
		return &engine.Record{Spec: workload.Spec{ID: workload.ID(id), Labels: map[string]string{Label: label}}}
	}
	e := &remover{
		records: []*engine.Record{record("ours", killed.ID), record("other", "0123"), {}},
		tenants: []string{TenantName(killed.ID), "probe-0123"}, fails: true,
	}
	for _, tt := range []struct {
		fails bool
		told  int
		want  []string
	}{{true, 1, []string{"ours"}}, {false, 0, []string{"ours", TenantName(killed.ID)}}} {
		running, stale, err := scratch.Open(parent)
		if err != nil {
			t.Fatal(err)
		}
		defer running.Close()
		stale = slices.DeleteFunc(stale, func(d *scratch.Dir) bool { return d.ID != killed.ID })
		if len(stale) != 1 {
			t.Fatalf("failing %v: the directory is not stale", tt.fails)
		}
		told := 0
		e.fails, e.removed = tt.fails, nil
		Sweep(t.Context(), e, stale, func(string) { told++ })
		if told != tt.told || !slices.Equal(e.removed, tt.want) {
			t.Errorf("failing %v: removed %q, told %d; want %q, %d", tt.fails, e.removed, told, tt.want, tt.told)
		}
	}
	if _, err := os.Stat(killed.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}
