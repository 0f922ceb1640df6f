package engine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kerneltest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// restarted is the spec of a workload with a restart policy.
func restarted(policy string, most int, args ...string) workload.Spec {
	s := spec(args...)
	s.Name = "r"
	s.Restart = workload.Restart{Policy: policy, Max: most}
	return s
}

// await waits until a workload's record is as ok wants it.
func (w *world) await(ref string, ok func(*Record) bool) *Record {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		r, err := w.Inspect(context.Background(), ref)
		if err != nil {
			w.t.Fatal(err)
		}
		if ok(r) {
			return r
		}
		if time.Now().After(end) {
			w.t.Fatalf("it did not come: %+v", r)
		}
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy   string
		max      int
		code     string
		restarts int // -1: it goes on
	}{
		{"", 0, "1", 0},
		{"on-failure", 0, "0", 0},
		{"on-failure", 2, "3", 2},
		{"on-failure", 0, "3", -1},
		{"always", 0, "0", -1},
		{"unless-stopped", 0, "0", -1},
	} {
		t.Run(tt.policy+" "+tt.code, func(t *testing.T) {
			w := newWorld(t)
			if _, err := w.Run(ctx(t), restarted(tt.policy, tt.max, "exit", tt.code), nil); err != nil {
				t.Fatal(err)
			}
			if tt.restarts >= 0 {
				r := w.await("r", func(r *Record) bool { return r.Status == workload.Exited })
				if r.Restarts != tt.restarts || len(r.Ends) != tt.restarts || r.Stopped {
					t.Errorf("got %+v", r)
				}
				return
			}
			w.await("r", func(r *Record) bool { return r.Restarts >= 2 })
			// In the middle of a pause, most likely: it ends at once all the same.
			if err := w.Stop(ctx(t), "r", nil); err != nil {
				t.Fatal(err)
			}
			r := w.want("r", workload.Exited)
			if !r.Stopped || len(r.Ends) < 2 || r.SupervisorPID != 0 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestRestartNotAfterCommand ends workloads by command: none comes back.
func TestRestartNotAfterCommand(t *testing.T) {
	for name, end := range map[string]func(*world) error{
		"stop": func(w *world) error { return w.Stop(ctx(w.t), "r", nil) },
		"kill": func(w *world) error { return w.Kill(ctx(w.t), "r", syscall.SIGKILL) },
		"term": func(w *world) error { return w.Kill(ctx(w.t), "r", syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if _, err := w.Run(ctx(t), restarted("always", 0, "wait-signal", "TERM"), nil); err != nil {
				t.Fatal(err)
			}
			if err := end(w); err != nil {
				t.Fatal(err)
			}
			r := w.await("r", func(r *Record) bool { return r.Status == workload.Exited })
			if !r.Stopped || r.Restarts != 0 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestRestarting looks at a workload between two of its lives.
func TestRestarting(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	session, err := w.Run(ctx(t), restarted("always", 0, "exit", "4"), &Streams{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	// Whoever is attached hears of the end of the life that was started.
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 4 {
		t.Errorf("got %+v, %v", exit, err)
	}
	// The third pause is long enough to look at.
	w.await("r", func(r *Record) bool { return r.Status == workload.Restarting && r.Restarts >= 3 })
	if _, err := w.Start(ctx(t), "r", nil); !errors.Is(err, workload.ErrRunning) {
		t.Errorf("start: got %v", err)
	}
	if err := w.Remove(ctx(t), "r", false); !errors.Is(err, workload.ErrRunning) {
		t.Errorf("remove: got %v", err)
	}
	if exit, err := w.Wait(ctx(t), "r"); err != nil || exit.Code != 4 {
		t.Errorf("wait: got %+v, %v", exit, err)
	}
	if err := w.Kill(ctx(t), "r", syscall.SIGKILL); err != nil && !errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("kill: got %v", err)
	}
	r := w.await("r", func(r *Record) bool { return r.Status == workload.Exited })
	if r.Exit.Code != 4 && r.Exit.Code != 137 {
		t.Errorf("got %+v", r.Exit)
	}
}

// TestStartAgain starts workloads that were stopped between two lives, or lost their
// supervisor there: one that cannot be started stays what it was, and the first pause
// of one that can is as short as ever.
func TestStartAgain(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w := newWorld(t)
		if _, err := w.Run(ctx(t), restarted("unless-stopped", 0, "exit", "4"), nil); err != nil {
			t.Fatal(err)
		}
		r := w.await("r", func(r *Record) bool { return r.Restarts >= 3 && r.Status == workload.Restarting })
		if lost {
			if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		} else if err := w.Stop(ctx(t), "r", nil); err != nil {
			t.Fatal(err)
		}
		before := w.await("r", func(r *Record) bool { return r.Status == workload.Exited })
		spec := before.Spec
		args := spec.Process.Args
		spec.Process.Args = []string{"missing"}
		if err := w.layout.WriteSpec(&spec); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Start(ctx(t), "r", nil); !errors.Is(err, workload.ErrCommandNotFound) {
			t.Errorf("got %v", err)
		}
		if r := w.want("r", workload.Exited); r.Restarts != before.Restarts || len(r.Ends) != len(before.Ends) || r.Stopped == lost {
			t.Errorf("after a start that failed: %+v, before %+v", r, before)
		}
		spec.Process.Args = args
		if err := w.layout.WriteSpec(&spec); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Start(ctx(t), "r", nil); err != nil {
			t.Fatal(err)
		}
		w.await("r", func(*Record) bool {
			st, err := w.layout.ReadState(spec.ID)
			if err != nil {
				t.Fatal(err)
			}
			if want := 100 * time.Millisecond << max(0, st.Restarts-1); st.Restarts > 0 && st.Pause != want {
				t.Errorf("the pause before restart %d: %v, want %v", st.Restarts, st.Pause, want)
			}
			return st.Restarts > 0
		})
		if err := w.Remove(ctx(t), "r", true); err != nil {
			t.Error(err)
		}
	}
}

// TestRestartFails takes away what a life needs: each try counts, its reason is
// kept, and when it is there again the workload runs.
func TestRestartFails(t *testing.T) {
	if os.Getenv(envReal) != "" {
		t.Skip("it breaks the fake's world")
	}
	w := newWorld(t)
	if _, err := w.Run(ctx(t), restarted("always", 0, "wait-signal", "USR1"), nil); err != nil {
		t.Fatal(err)
	}
	world := filepath.Join(w.dir, "world")
	if err := os.Rename(world, world+".away"); err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(ctx(t), "r", syscall.SIGUSR1); err != nil { // exits with 7
		t.Fatal(err)
	}
	r := w.await("r", func(r *Record) bool { return r.Restarts >= 2 })
	last := r.Ends[len(r.Ends)-1]
	if r.Status != workload.Restarting || last.Code != 125 || !strings.Contains(last.Error, "create fake instance") {
		t.Errorf("got %+v", r)
	}
	if err := os.Rename(world+".away", world); err != nil {
		t.Fatal(err)
	}
	w.await("r", func(r *Record) bool { return r.Status == workload.Running })
	// A supervisor that is killed takes the policy with it.
	if err := syscall.Kill(w.want("r", workload.Running).SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitDeath(r.Spec.ID)
	w.reopen()
	if r := w.want("r", workload.Exited); r.Exit.Error != "supervisor lost" {
		t.Errorf("got %+v", r.Exit)
	}
}

// TestSupervisorLostBetweenLives kills a supervisor that waits.
func TestSupervisorLostBetweenLives(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Run(ctx(t), restarted("always", 0, "exit", "4"), nil); err != nil {
		t.Fatal(err)
	}
	r := w.await("r", func(r *Record) bool { return r.Status == workload.Restarting && r.Restarts >= 3 })
	if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitDeath(r.Spec.ID)
	r = w.want("r", workload.Exited)
	if r.Exit.Code != 4 && r.Exit.Code != 255 || !strings.HasPrefix(r.Exit.Error, "supervisor lost") {
		t.Errorf("got %+v", r.Exit)
	}
}

// TestFollowOverRestarts follows a log through several lives.
func TestFollowOverRestarts(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Run(ctx(t), restarted("on-failure", 2, "kill", "USR1"), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Logs(ctx(t), "r", LogOptions{Follow: true, Tail: -1}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if r := w.want("r", workload.Exited); r.Restarts != 2 {
		t.Errorf("the following ended early: %+v", r)
	}
}

// TestKernelReplaced: a workload's lives go on with the kernel that it was started
// with, by its policy and by a command, after another has got the name. Nothing is
// left of the kernel when nobody can want it.
func TestKernelReplaced(t *testing.T) {
	w := newWarmWorld(t)
	for name, content := range map[string][]byte{"agent": []byte("an agent"), "vmlinux": kerneltest.Image("6.1.0-99-test")} {
		kerneltest.Write(t, filepath.Join(w.dir, name), content)
	}
	store, err := kernel.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	replace := func() {
		t.Helper()
		modules := filepath.Join(t.TempDir(), "modules")
		kerneltest.Modules(t, modules, map[string][]byte{"kernel/a.ko": kerneltest.Module("6.1.0-99-test", "depends=")}, "c")
		if _, err := store.Add(ctx(t), "k", kernel.AddOptions{Image: filepath.Join(w.dir, "vmlinux"), Modules: modules, Replace: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The name, and what it leads to; and the archives.
	wantKept := func(when string, kernels, archives int) {
		t.Helper()
		for dir, want := range map[string]int{"store": kernels + 1, "initramfs": archives} {
			if got, err := os.ReadDir(filepath.Join(w.dir, "kernels", dir)); err != nil || len(got) != want {
				t.Errorf("%s: in %s are %v, %v, want %d", when, dir, got, err, want)
			}
		}
	}
	lives := func(n int) *Record {
		t.Helper()
		return w.await("r", func(r *Record) bool { return r.Restarts >= n })
	}
	replace()
	if _, err := w.Run(ctx(t), restarted("always", 0, "exit", "1"), nil); err != nil {
		t.Fatal(err)
	}
	replace()
	replace()
	r := lives(lives(0).Restarts + 2)
	for _, e := range r.Ends {
		if e.Error != "" || e.Code != 1 {
			t.Errorf("a life ended with %d: %s", e.Code, e.Error)
		}
	}
	wantKept("while it runs", 2, 1)
	if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.awaitDeath(r.Spec.ID)
	// Whoever looks for a kernel next cleans up.
	if _, err := w.Start(ctx(t), "r", nil); err != nil {
		t.Fatal(err)
	}
	wantKept("after the supervisor was killed", 1, 1)
	if err := w.Stop(ctx(t), "r", nil); err != nil {
		t.Fatal(err)
	}
	replace()
	wantKept("stopped", 1, 0)

	once := spec("pause")
	once.Name, once.AutoRemove = "once", true
	if _, err := w.Run(ctx(t), once, nil); err != nil {
		t.Fatal(err)
	}
	replace()
	none := time.Duration(0)
	if err := w.Restart(ctx(t), "once", &none, 0); err != nil {
		t.Error(err)
	}
	if err := w.Stop(ctx(t), "once", &none); err != nil {
		t.Fatal(err)
	}
	if err := store.Remove(ctx(t), "k"); err != nil {
		t.Fatal(err)
	}
	wantKept("removed", -1, 0)
}
