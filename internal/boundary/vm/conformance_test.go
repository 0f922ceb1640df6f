package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/datadisk"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/erofs"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	boundarytest.Main(m, func() boundary.Boundary { return Boundary{} })
}

// testCgroup is above the cgroups of this test process.
var testCgroup = fmt.Sprintf("/bulkhead-vm-test-%d", os.Getpid())

// dataBytes is the size of the writable disks of tests.
const dataBytes = 256 * mib

// TestConformance runs the suite that every boundary must pass, each workload
// in a machine of its own.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine for each test; TestTenantConformance runs the same in one")
	}
	newFixture(t).conform(t, Boundary{})
}

// TestCloneConformance runs the same suite in machines that go on from templates.
func TestCloneConformance(t *testing.T) {
	slow(t)
	f := newFixture(t)
	f.templates(t)
	f.conform(t, &cloneBoundary{t: t, ensure: func(s workload.Spec, p boundary.Prepared) bool {
		f.ensure(t, s, p)
		return true
	}})
}

// TestImageConformance runs the same suite with workloads that were made for nobody,
// in machines that go on from templates of the image.
func TestImageConformance(t *testing.T) {
	slow(t)
	f := newFixture(t)
	f.templates(t)
	b := &cloneBoundary{t: t, ensure: func(s workload.Spec, p boundary.Prepared) bool {
		like, ok := nobody(s, p)
		if ok = ok && flows(p.Stdio, like); ok {
			f.ensureImage(t, s, p)
		}
		return ok
	}}
	f.conform(t, b)
	if b.clones < 20 {
		t.Errorf("only %d workloads went on from a template of the image", b.clones)
	}
}

// conform runs the suite with machines of the workloads' own.
func (f *fixture) conform(t *testing.T, b boundary.Boundary) {
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: b, Program: "/bin/program", NotExecutable: "/etc/passwd",
		Prepare: f.prepare,
		Leaks:   leakcheck.Options{Cgroups: []string{testCgroup}},
	})
}

// cloneBoundary makes a template for each workload before it creates that. ensure
// tells whether there can be one; if so, another start is an error.
type cloneBoundary struct {
	Boundary
	t      *testing.T
	ensure func(workload.Spec, boundary.Prepared) bool
	clones int
}

func (b *cloneBoundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	s.KeepStdin = p.Stdio.In != nil
	if b.ensure(s, p) {
		said := p.Notice
		p.Notice = func(line string) {
			if strings.Contains(line, "template") {
				b.t.Error(line)
			}
			if said != nil {
				said(line)
			}
		}
		b.clones++
	}
	return b.Boundary.Create(ctx, s, p)
}

// TestTenantConformance runs the same suite with all workloads in the machine
// of one tenant, which goes on from a template, as those of users do.
func TestTenantConformance(t *testing.T) {
	f := newFixture(t)
	f.templates(t)
	s := workload.Spec{ID: workload.NewID(), Boundary: "vm", VM: workload.VM{Machine: true}, Created: time.Now()}
	f.ensure(t, s, f.prepare(t, s))
	p := f.prepare(t, s)
	p.Notice = func(line string) { t.Errorf("a notice: %s", line) }
	host, err := Boundary{}.Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Delete(context.Background()); err != nil {
			t.Errorf("delete the tenant's machine: %v", err)
		}
	})
	tenant := tenantBoundary{Boundary{Reach: func(string) boundary.Host { return host.(boundary.Host) }}}
	within := func(p *boundary.Prepared) { p.Machine.Data, p.Machine.Socket = "", "tenant" }
	// What the kernel of an emulated machine tells the time by, since it was told.
	if f.machine.TSC != 0 {
		const source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
		if c := f.runBehind(t, tenant, program("read", source), within); !strings.HasPrefix(c.out, "tsc") {
			t.Errorf("the clock source is %q, want the time stamp counter", c.out)
		}
	}
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: tenant,
		Program:  "/bin/program", NotExecutable: "/etc/passwd",
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
			p := f.prepare(t, s)
			within(&p)
			return p
		},
		Lacks: map[boundarytest.Ability]string{
			boundarytest.CreatorDies: "the machine belongs to the test's own process, which another cannot reach",
		},
		Leaks: leakcheck.Options{Cgroups: []string{testCgroup}},
	})
}

// tenantBoundary runs every workload in the machine of the test's tenant.
type tenantBoundary struct{ Boundary }

func (b tenantBoundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	s.VM.Tenant = "test"
	return b.Boundary.Create(ctx, s, p)
}

// fixture is what the workloads of a test have in common.
type fixture struct {
	machine boundary.Machine
	image   string
	pool    *idrange.Pool
	disks   string // templates of data disks
	written bool   // disks are not empty: no template of an image is for them

	patience time.Duration // BootTimeout of run
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{machine: vmtest.Machine(t), disks: t.TempDir(), pool: idrange.Open(t.TempDir(), "/etc")}
	layer := boundarytest.Layer(t)
	for _, name := range []string{"do-panic", "do-exit", "do-chatter"} { // what a hostile agent waits for
		if err := os.Symlink("program", filepath.Join(layer, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	f.image = writeImage(t, layer)
	boundarytest.RemoveCgroup(t, testCgroup)
	return f
}

// writeImage makes an EROFS image of layers.
func writeImage(t testing.TB, layers ...string) string {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	out, scratch := open("image"), open("scratch")
	defer out.Close()
	defer scratch.Close()
	if _, err := erofs.Write(t.Context(), out, layers, erofs.Options{Scratch: scratch}); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// prepare does what the engine does before Create.
func (f *fixture) prepare(t testing.TB, s workload.Spec) boundary.Prepared {
	t.Helper()
	dir := t.TempDir()
	m := f.machine
	p := boundary.Prepared{Dir: filepath.Join(dir, "run"), Cgroup: testCgroup + "/" + string(s.ID), Machine: &m}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := f.pool.Peek()
	if err != nil {
		t.Fatal(err)
	}
	p.IDBase, p.IDCount = r.Base, r.Count
	m.Image, m.Data = f.image, filepath.Join(dir, "data")
	if err := datadisk.Make(t.Context(), m.Data, dataBytes, datadisk.Templates(f.disks)); err != nil {
		t.Fatal(err)
	}
	if !f.written {
		if m.Blank, err = identity(m.Data); err != nil {
			t.Fatal(err)
		}
	}
	m.GuestIDs = boundary.GuestIDs
	return p
}
