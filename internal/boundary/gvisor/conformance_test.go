package gvisor

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	boundarytest.Main(m, func() boundary.Boundary { return testBoundary() })
}

// testBoundary uses the runsc of make runsc, or an installed one.
func testBoundary() Boundary {
	program, _ := exec.LookPath("runsc") // "" finds none, and says so
	return Boundary{Program: program}
}

// testCgroup is above the cgroups of this test process: another may run at the
// same time.
var testCgroup = fmt.Sprintf("/bulkhead-gvisor-test-%d", os.Getpid())

// TestConformance runs the suite that every boundary must pass.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	layer := boundarytest.Layer(t)
	boundarytest.RemoveCgroup(t, testCgroup)
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: testBoundary(),
		Program:  boundarytest.LayerProgram, NotExecutable: boundarytest.LayerNotExecutable,
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
			return boundarytest.PrepareLayer(t, s, layer, testCgroup)
		},
		Lacks: map[boundarytest.Ability]string{
			boundarytest.Survivors: "memory is short for the sandbox as a whole, which ends",
			boundarytest.EnvOrder:  "runsc keeps it in a map",
			boundarytest.NoDevices: "a character device of a volume is one of gVisor's own, by its number",
		},
		Leaks: leakcheck.Options{Cgroups: []string{testCgroup}},
	})
}
