package agent

import (
	"fmt"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// envSocket leads the creator that dies to the agent.
const envSocket = "AGENT_TEST_SOCKET"

func TestMain(m *testing.M) {
	boundarytest.Main(m, func() boundary.Boundary {
		return &remote{c: client.New(dialer(os.Getenv(envSocket)))}
	})
}

// routes are the ways from a client to an agent: a stream of the session, and
// a connection that is relayed to one.
var routes = map[string]bool{"session": false, "relayed": true}

// remoteOf makes a remote boundary and the agent that it talks to.
func remoteOf(t *testing.T, c Config, relayed bool) *remote {
	m := c.Guest.(*machine)
	s := link(t, New(c))
	path := relay(t, s)
	t.Setenv(envSocket, path)
	r := &remote{c: client.OverSession(s), m: m, Boundary: c.Boundary}
	if relayed {
		r.c = client.New(dialer(path))
	}
	t.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.images != 0 || len(m.attached) != 0 {
			t.Errorf("left behind: %d images, volumes %v", m.images, m.attached)
		}
	})
	return r
}

func TestConformanceOfTheFake(t *testing.T) {
	for name, relayed := range routes {
		t.Run(name, func(t *testing.T) {
			world, run := t.TempDir(), t.TempDir()
			const nothing = "the fake runs nothing real"
			boundarytest.Run(t, boundarytest.Harness{
				Boundary: remoteOf(t, Config{
					Guest: newMachine(t.TempDir(), t.TempDir()), Boundary: &fake.Boundary{World: world}, RunDir: run,
				}, relayed),
				Program: fake.Program, NotExecutable: fake.NotExecutable,
				Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
					return boundary.Prepared{Dir: t.TempDir()}
				},
				Lacks: map[boundarytest.Ability]string{
					boundarytest.Files: nothing, boundarytest.ReadOnlyRoot: nothing, boundarytest.Mounts: nothing,
					boundarytest.Users: nothing, boundarytest.MemoryLimits: nothing, boundarytest.PidsLimits: nothing,
					boundarytest.Descriptors: nothing, boundarytest.Descendants: nothing,
					boundarytest.Networks: nothing,
				},
				Leaks: leakcheck.Options{Paths: []string{world, run}, Files: true},
			})
		})
	}
}

// testCgroup is above the cgroups of this test process: another may run at the
// same time.
var testCgroup = fmt.Sprintf("/bulkhead-agent-test-%d", os.Getpid())

func TestConformanceOfContainers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, relayed := range routes {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			boundarytest.Run(t, boundarytest.Harness{
				Boundary: remoteOf(t, containers(t, run), relayed),
				Program:  "/bin/program", NotExecutable: "/etc/passwd",
				Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared { return boundarytest.IDs(t) },
				Lacks: map[boundarytest.Ability]string{
					boundarytest.VolumeOwners: "its volumes are plain directories, which nobody shifts",
					boundarytest.Networks:     "they are devices of a machine, and this is none",
				},
				Leaks: leakcheck.Options{Cgroups: []string{testCgroup}, Paths: []string{run}, Files: true},
			})
		})
	}
}

// containers is an agent that makes containers on this host.
func containers(t *testing.T, run string) Config {
	t.Helper()
	boundarytest.RemoveCgroup(t, testCgroup)
	return Config{
		Guest: newMachine(boundarytest.Layer(t), t.TempDir()), Boundary: container.Boundary{}, RunDir: run, Cgroup: testCgroup,
	}
}
