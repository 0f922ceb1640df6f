package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestLostInEachState kills supervisors of workloads in every state that one can
// be in. Each becomes exited, says why, leaves nothing, and can be started again.
func TestLostInEachState(t *testing.T) { testLostInEachState(t, newWorld) }

// TestLostContainersInEachState is the same with containers: nothing of cgroups,
// mounts and processes is left either.
func TestLostContainersInEachState(t *testing.T) { testLostInEachState(t, newRealWorld) }

func testLostInEachState(t *testing.T, newWorld func(*testing.T) *world) {
	newWorld(t) // says whether containers can be made
	hangs := checked("pause")
	hangs.Health.Timeout = time.Hour
	states := map[string]struct {
		spec workload.Spec
		into func(w *world)
	}{
		"running": {spec("wait-signal", "TERM"), func(*world) {}},
		"paused": {spec("wait-signal", "TERM"), func(w *world) {
			if err := w.Pause(ctx(w.t), "h"); err != nil {
				w.t.Fatal(err)
			}
		}},
		"restarting": {restarted("always", 0, "exit", "4"), func(w *world) {
			w.await("h", func(r *Record) bool { return r.Status == workload.Restarting && r.Restarts >= 3 })
		}},
		"healthy": {checked("exit", "0"), func(w *world) {
			if _, err := w.WaitFor(ctx(w.t), "h", workload.Healthy); err != nil {
				w.t.Fatal(err)
			}
		}},
		"in a check that hangs": {hangs, func(w *world) {
			w.await("h", func(*Record) bool { ps, err := w.Processes(ctx(w.t), "h"); return err == nil && len(ps) == 2 })
		}},
		"with a policy": {restarted("always", 0, "wait-signal", "TERM"), func(*world) {}},
	}
	for name, tt := range states {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.spec.Name = "h"
			if _, err := w.Run(ctx(t), tt.spec, nil); err != nil {
				t.Fatal(err)
			}
			tt.into(w)
			waited := make(chan error, 1)
			go func() { _, err := w.WaitFor(ctx(t), "h", "exited"); waited <- err }()
			r, err := w.Inspect(ctx(t), "h")
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			w.awaitDeath(r.Spec.ID)
			if err := <-waited; err != nil {
				t.Errorf("who waited: %v", err)
			}
			r = w.want("h", workload.Exited)
			if r.Exit == nil || r.Exit.Error == "" || r.SupervisorPID != 0 || r.PID != 0 {
				t.Errorf("got %+v, exit %+v", r, r.Exit)
			}
			if _, err := w.WaitFor(ctx(t), "h", workload.Healthy); !errors.Is(err, ErrCondition) {
				t.Errorf("healthy: got %v", err)
			}
			died := false
			err = w.Events(ctx(t), events.Options{}, func(e events.Event) error {
				died = died || e.Action == "die" && e.ID == string(r.Spec.ID)
				return nil
			})
			if err != nil || !died {
				t.Errorf("no event of its end: %v", err)
			}
			if _, err := w.Start(ctx(t), "h", nil); err != nil {
				t.Fatal(err)
			}
			if err := w.Stop(ctx(t), "h", new(time.Duration)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRemoveUnreadable removes workloads whose records are damaged, whether they
// run, ran or lost their supervisor: nothing is left of them but what has a name.
func TestRemoveUnreadable(t *testing.T) {
	for what, damage := range map[string]map[string]string{
		"state": {"state.json": `{"status":"odd"}`}, "spec": {"spec.json": "{"}, "no spec": {"spec.json": ""},
		"both": {"state.json": `{"status":`, "state.next": "", "spec.json": `{"id":"x"}`}, "changes": {"changes.json": "["},
	} {
		for _, how := range []string{"created", "running", "lost"} {
			w := newWorld(t)
			s := spec("pause")
			s.Name = "d"
			if how != "created" {
				if _, err := w.Run(ctx(t), s, nil); err != nil {
					t.Fatal(err)
				}
			} else if _, err := w.Create(ctx(t), s); err != nil {
				t.Fatal(err)
			}
			r, err := w.Inspect(ctx(t), "d")
			if err != nil {
				t.Fatal(err)
			}
			if how == "lost" {
				if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				w.awaitDeath(r.Spec.ID)
			}
			for file, text := range damage {
				if how == "running" && strings.HasPrefix(file, "state.") {
					continue // which the supervisor writes, and nothing else
				}
				if err := os.WriteFile(filepath.Join(r.Dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Remove(ctx(t), string(r.Spec.ID), how == "running"); err != nil {
				t.Errorf("%s, %s: %v", what, how, err)
			}
			w.wantEmpty()
		}
	}
}
