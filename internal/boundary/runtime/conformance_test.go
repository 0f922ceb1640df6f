package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
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
	layer := boundarytest.Layer(t)
	boundarytest.RemoveCgroup(t, testCgroup)
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: b,
		Program:  boundarytest.LayerProgram, NotExecutable: boundarytest.LayerNotExecutable,
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
			return boundarytest.PrepareLayer(t, s, layer, testCgroup)
		},
		Leaks: leakcheck.Options{Cgroups: []string{testCgroup}},
	})
}
