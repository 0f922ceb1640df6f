package fake

import (
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const envWorld = "FAKE_TEST_WORLD"

func TestMain(m *testing.M) {
	boundarytest.Main(m, func() boundary.Boundary { return &Boundary{World: os.Getenv(envWorld)} })
}

func TestBoundary(t *testing.T) {
	world := t.TempDir()
	t.Setenv(envWorld, world)
	const nothing = "the fake runs nothing real"
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: &Boundary{World: world},
		Program:  Program, NotExecutable: NotExecutable,
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
			return boundary.Prepared{Dir: t.TempDir()}
		},
		Lacks: map[boundarytest.Ability]string{
			boundarytest.Files: nothing, boundarytest.ReadOnlyRoot: nothing, boundarytest.Mounts: nothing,
			boundarytest.Users: nothing, boundarytest.MemoryLimits: nothing, boundarytest.PidsLimits: nothing,
			boundarytest.Descriptors: nothing, boundarytest.Descendants: nothing,
			boundarytest.Networks: nothing,
		},
		Leaks: leakcheck.Options{Paths: []string{world}, Files: true},
	})
}
