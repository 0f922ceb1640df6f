package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// compareGolden compares the verdicts of a report with testdata. machine is where
// they hold, nothing if that is everywhere.
func compareGolden(t *testing.T, r *report.Report, machine ...string) {
	t.Helper()
	var lines []string
	for _, f := range r.Findings {
		v := f.Verdict
		if v == report.NotApplicable && known(f) {
			v = report.Held // as on a machine that has it
		}
		inside := ""
		if v.Open() && f.Consequence.Inside() {
			inside = insideMark
		}
		lines = append(lines, fmt.Sprintf("%-32s %s%s\n", f.ID, v, inside))
	}
	slices.Sort(lines)
	for _, m := range machine {
		lines = slices.Insert(lines, 0, machineMark+m+"\n")
	}
	file, got := filepath.Join("testdata", r.Subject.Label+".golden"), strings.Join(lines, "")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, go test -update after looking at each:\n%s", file, diff)
	}
}

// recordedOn reports whether the verdicts for a label hold on a machine.
func recordedOn(t *testing.T, label, machine string) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", label+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(string(b), machineMark+machine+"\n")
}

func TestGoldenContainer(t *testing.T) {
	w := newWorld(t)
	d := w.decode(w.command("probe", "--json", "box"))
	compareGolden(t, &d.Reports[0])
}

// TestGoldenAll looks behind every boundary: a container, a machine, and a machine
// of a tenant that is made for it and is gone afterwards.
func TestGoldenAll(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines")
	}
	if _, _, err := qemu.Installed(); err != nil {
		t.Skipf("needs QEMU: %v", err)
	}
	w := newWorld(t)
	cache, err := vmtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	vmtest.Machine(t)
	for _, name := range []string{"kernels", "templates"} {
		if err := os.MkdirAll(filepath.Join(cache, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(cache, name), filepath.Join(w.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, code := w.command("probe", "--all", "--json", "box")
	d := w.decode(out, errs, code)
	var labels []string
	exit := 0
	for i := range d.Reports {
		r := &d.Reports[i]
		if r.Subject.Boundary == "gvisor" {
			exit = 2 // it has open doors of its own
			continue // where runsc is built, TestGoldenSandbox has it
		}
		labels = append(labels, r.Subject.Label)
		compareGolden(t, r)
		if own := r.Subject.Label != "container"; own == (r.Subject.Kernel == r.Subject.HostKernel) {
			t.Errorf("%s: kernel %s, the host's is %s", r.Subject.Label, r.Subject.Kernel, r.Subject.HostKernel)
		}
	}
	if want := []string{"container", "vm", "tenant"}; !slices.Equal(labels, want) {
		t.Errorf("looked behind %q, want %q: %s", labels, want, errs)
	}
	if left := w.must("tenant", "ls", "-q"); left != "" {
		t.Errorf("a tenant is left: %s", left)
	}
	// The same once more, as a table, with nothing changed.
	file := filepath.Join(w.dir, "all.json")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code = w.command("probe", "--all", "--diff", file, "box")
	if code != exit || !strings.Contains(out, "\nChanged since ") || !strings.HasSuffix(out, ": 0\n") || !strings.Contains(out, "\ndoor                            container  ") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}
