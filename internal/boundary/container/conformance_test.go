package container

import (
	"fmt"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	boundarytest.Main(m, func() boundary.Boundary { return Boundary{} })
}

// testCgroup is above the cgroups of this test process: another may run at the
// same time.
var testCgroup = fmt.Sprintf("/bulkhead-boundary-test-%d", os.Getpid())

// TestConformance runs the suite that every boundary must pass.
func TestConformance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	layer := boundarytest.Layer(t)
	boundarytest.RemoveCgroup(t, testCgroup)
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: Boundary{},
		Program:  boundarytest.LayerProgram, NotExecutable: boundarytest.LayerNotExecutable,
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
			return boundarytest.PrepareLayer(t, s, layer, testCgroup)
		},
		Leaks: leakcheck.Options{Cgroups: []string{testCgroup}},
	})
}
