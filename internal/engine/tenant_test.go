package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// newTenant runs a tenant's machine and a workload of it, both of which are
// only said to be: the engine tells them by their specs.
func newTenant(t *testing.T, w *world, inside workload.Spec) (machine workload.ID) {
	t.Helper()
	m := spec("pause")
	m.Name, m.VM.Machine = TenantName("acme"), true
	inside.Name, inside.VM.Tenant = "inside", "acme"
	s, err := w.Run(ctx(t), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Run(ctx(t), inside, nil); err != nil {
		t.Fatal(err)
	}
	return s.Record.Spec.ID
}

// TestTenantInUse: a machine that other workloads run in is not removed, and
// not ended for that either.
func TestTenantInUse(t *testing.T) {
	w := newWorld(t)
	machine := newTenant(t, w, spec("pause"))
	if err := w.Remove(ctx(t), string(machine), true); !errors.Is(err, ErrTenantInUse) {
		t.Errorf("got %v, want %v", err, ErrTenantInUse)
	}
	w.want(string(machine), workload.Running)
	w.want("inside", workload.Running)

	// Nor where its record cannot be read.
	record := filepath.Join(w.layout.Dir(machine), "spec.json")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(ctx(t), string(machine), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx(t), string(machine), true); !errors.Is(err, ErrTenantInUse) {
		t.Errorf("unreadable: got %v, want %v", err, ErrTenantInUse)
	}
	if err := os.WriteFile(record, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveTenant(ctx(t), "acme", true); err != nil {
		t.Fatal(err)
	}
	w.wantEmpty()
}

// TestRenameTenant: a tenant's machine keeps its name, running or not, and so its
// workloads keep it.
func TestRenameTenant(t *testing.T) {
	w := newWorld(t)
	machine := newTenant(t, w, spec("pause"))
	for _, status := range []workload.Status{workload.Running, workload.Exited} {
		if err := w.Rename(ctx(t), string(machine), "other"); !errors.Is(err, workload.ErrUnsupported) {
			t.Errorf("%s: got %v, want %v", status, err, workload.ErrUnsupported)
		}
		if r := w.want(string(machine), status); r.Spec.Name != TenantName("acme") {
			t.Errorf("%s: it is called %q", status, r.Spec.Name)
		}
		if err := w.Remove(ctx(t), string(machine), true); !errors.Is(err, ErrTenantInUse) {
			t.Errorf("%s: remove: got %v, want %v", status, err, ErrTenantInUse)
		}
		if err := w.StopTenant(ctx(t), "acme"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.RemoveTenant(ctx(t), "acme", true); err != nil {
		t.Fatal(err)
	}
	w.wantEmpty()
}

// TestStopTenant: a workload that cannot be stopped does not keep the machine
// from it.
func TestStopTenant(t *testing.T) {
	w := newWorld(t)
	s := spec("pause")
	s.StopSignal = "none"
	machine := newTenant(t, w, s)
	if err := w.Stop(ctx(t), "inside", nil); err == nil {
		t.Fatal("the workload was stopped by a signal that does not exist")
	}
	if err := w.StopTenant(ctx(t), "acme"); err != nil {
		t.Error(err)
	}
	w.want(string(machine), workload.Exited)
	// The machine would have taken it along.
	if err := w.Kill(ctx(t), "inside", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Wait(ctx(t), "inside"); err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveTenant(ctx(t), "acme", true); err != nil {
		t.Fatal(err)
	}
	w.wantEmpty()
}

// TestTenantData: what a workload wrote is not removed from its tenant's disk because its
// record cannot be read.
func TestTenantData(t *testing.T) {
	w := newWorld(t)
	newTenant(t, w, spec("pause"))
	other, err := w.Run(ctx(t), spec("pause"), nil)
	if err != nil {
		t.Fatal(err)
	}
	inside := w.want("inside", workload.Running).Spec.ID
	kept := func(when string) {
		t.Helper()
		keep, err := w.tenantData("acme")
		if err != nil || !slices.Contains(keep, inside) || slices.Contains(keep, other.Record.Spec.ID) {
			t.Errorf("%s: kept are %v, %v, want %s and not %s", when, keep, err, inside, other.Record.Spec.ID)
		}
	}
	kept("whole")
	record := filepath.Join(w.layout.Dir(inside), "spec.json")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	kept("its record is cut off")
	if err := os.WriteFile(record, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx(t), string(other.Record.Spec.ID), true); err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveTenant(ctx(t), "acme", true); err != nil {
		t.Fatal(err)
	}
	w.wantEmpty()
}
