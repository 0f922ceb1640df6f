package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	boundarytest.Main(m, func() boundary.Boundary {
		// The process that the suite kills knows which one by its environment.
		path := os.Getenv(runtimeVariable)
		return Boundary{workload.Runtime{Name: filepath.Base(path), Path: path}}
	})
}

// testCgroup is above the cgroups of this test process: another may run at the
// same time.
var testCgroup = fmt.Sprintf("/bulkhead-runtime-test-%d", os.Getpid())

const runtimeVariable = "BULKHEAD_TEST_RUNTIME"

// TestConformance runs the suite that every boundary must pass with each runtime
// that is installed.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skip(err)
			}
			t.Setenv(runtimeVariable, path)
			conform(t, Boundary{workload.Runtime{Name: name, Path: path}})
		})
	}
}

func conform(t *testing.T, b Boundary) {
	layer := layerWithProgram(t)
	t.Cleanup(func() { // empty by now; removing fails otherwise
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(pattern + testCgroup)
			for _, d := range dirs {
				os.Remove(d)
			}
		}
	})
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: b,
		Program:  "/bin/program", NotExecutable: "/etc/passwd",
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared { return prepare(t, s, layer) },
		Leaks:   leakcheck.Options{Cgroups: []string{testCgroup}},
	})
}

// layerWithProgram makes a layer that holds little but the suite's program.
func layerWithProgram(t *testing.T) string {
	t.Helper()
	layer := t.TempDir()
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "vol", "scratch"} {
		if err := os.Mkdir(filepath.Join(layer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	boundarytest.BuildProgram(t, filepath.Join(layer, "bin", "program"))
	if err := os.WriteFile(filepath.Join(layer, "etc", "passwd"), []byte("root:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return layer
}

// prepare does what the engine does before Create.
func prepare(t testing.TB, s workload.Spec, layer string) boundary.Prepared {
	t.Helper()
	dir := t.TempDir()
	p := boundary.Prepared{
		Dir:    filepath.Join(dir, "run"),
		Layers: []string{layer}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Cgroup: testCgroup + "/" + string(s.ID),
	}
	pool := idrange.Open(t.TempDir(), "/etc")
	r, err := pool.Peek()
	if err != nil {
		t.Fatal(err)
	}
	p.IDBase, p.IDCount = r.Base, r.Count
	for _, d := range []string{p.Dir, p.Upper, p.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if d != p.Dir {
			if err := os.Chown(d, int(r.Base), int(r.Base)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}
