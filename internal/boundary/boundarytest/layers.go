package boundarytest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The Program and the NotExecutable of a Harness whose root is a Layer.
const (
	LayerProgram       = "/bin/program"
	LayerNotExecutable = "/etc/passwd"
)

// Layer makes a directory that holds little but the suite's program.
func Layer(t testing.TB) string {
	t.Helper()
	layer := t.TempDir()
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "vol", "scratch"} {
		if err := os.Mkdir(filepath.Join(layer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	BuildProgram(t, filepath.Join(layer, LayerProgram))
	if err := os.WriteFile(filepath.Join(layer, LayerNotExecutable), []byte("root:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return layer
}

// PrepareLayer does what the engine does before Create, for a boundary whose root
// is made of layers. The workload's cgroup is below cgroup.
func PrepareLayer(t testing.TB, s workload.Spec, layer, cgroup string) boundary.Prepared {
	t.Helper()
	dir := t.TempDir()
	p := IDs(t)
	p.Dir, p.Layers = filepath.Join(dir, "run"), []string{layer}
	p.Upper, p.Work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	p.Cgroup = cgroup + "/" + string(s.ID)
	if err := os.Mkdir(p.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{p.Upper, p.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, int(p.IDBase), int(p.IDBase)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// IDs returns a range of IDs that nobody on this machine has been given.
func IDs(t testing.TB) boundary.Prepared {
	t.Helper()
	r, err := idrange.Open(t.TempDir(), "/etc").Peek()
	if err != nil {
		t.Fatal(err)
	}
	return boundary.Prepared{IDBase: r.Base, IDCount: r.Count}
}

// RemoveCgroup removes a cgroup that is above those of a test, when that ends:
// empty by then, or it stays.
func RemoveCgroup(t testing.TB, path string) {
	t.Cleanup(func() {
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(pattern + path) // the pattern is well-formed
			for _, d := range dirs {
				os.Remove(d)
			}
		}
	})
}
