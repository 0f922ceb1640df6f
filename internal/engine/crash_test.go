package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestCrash ends the command, and then the supervisor, with SIGKILL after each
// step of what they do. The next command must find nothing of a workload that was
// to be removed or was not finished, a true record of every other, and nothing
// running or left over; and a second workload must not notice.
func TestCrash(t *testing.T) { testCrash(newWorld(t)) }

func testCrash(w *world) {
	t := w.t
	bystander := spec("wait-signal", "USR1")
	bystander.Name = "bystander"
	if _, err := w.Run(ctx(t), bystander, nil); err != nil {
		t.Fatal(err)
	}
	keep := func(args ...string) workload.Spec {
		s := spec(args...)
		s.Name = "victim"
		return s
	}
	once := keep("both")
	once.AutoRemove = true
	twice := keep("pause")
	twice.AutoRemove = true
	joined := networkSpec("victim", "both")
	stays := networkSpec("victim", "pause")
	again := keep("exit", "3")
	again.Restart = workload.Restart{Policy: workload.RestartOnFailure, Max: 2}
	tests := []struct {
		name string
		do   []command
		kept bool // the workload may be there afterwards
	}{
		{"create", []command{{Op: "create", Spec: keep("both")}}, true},
		{"run", []command{{Op: "run", Spec: keep("both")}}, true},
		{"run and remove", []command{{Op: "run", Spec: once}}, false},
		{"start", []command{{Op: "create", Spec: keep("both")}, {Op: "start", Ref: "victim"}}, true},
		{"network", []command{{Op: "run", Spec: joined}}, true},
		{"connect", []command{{Op: "run-detached", Spec: stays}, {Op: "connect", Ref: "victim"}, {Op: "disconnect", Ref: "victim"}, {Op: "stop", Ref: "victim"}}, true},
		{"exec", []command{{Op: "run-detached", Spec: twice}, {Op: "exec", Ref: "victim"}, {Op: "stop", Ref: "victim"}}, false},
		{"stop", []command{{Op: "run-detached", Spec: keep("pause")}, {Op: "stop", Ref: "victim"}}, true},
		{"restart", []command{{Op: "run-detached", Spec: again}, {Op: "wait", Ref: "victim"}}, true},
		{"copy", []command{{Op: "create", Spec: keep("both")}, {Op: "copy", Ref: "victim"}}, true},
		{"copy while it runs", []command{{Op: "run-detached", Spec: twice}, {Op: "copy", Ref: "victim"}, {Op: "stop", Ref: "victim"}}, false},
		{"rename", []command{{Op: "create", Spec: keep("both")}, {Op: "rename", Ref: "victim"}, {Op: "rename-back", Ref: "renamed"}}, true},
		{"remove", []command{{Op: "run-detached", Spec: keep("pause")}, {Op: "remove", Ref: "victim"}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			for _, step := range w.steps(tt.do) {
				w.crashAt(step, tt.do, tt.kept)
			}
		})
	}
	w.t = t
	r := w.want("bystander", workload.Running)
	if err := syscall.Kill(r.SupervisorPID, 0); err != nil {
		t.Error(err)
	}
	if err := w.Kill(ctx(t), "bystander", syscall.SIGUSR1); err != nil {
		t.Error(err)
	}
	if exit, err := w.Wait(ctx(t), "bystander"); err != nil || exit.Code != 7 {
		t.Errorf("bystander: got %+v, %v", exit, err)
	}
}

// steps runs commands undisturbed and returns the steps that they and their
// supervisors reported.
func (w *world) steps(do []command) []string {
	w.t.Helper()
	list := filepath.Join(w.t.TempDir(), "steps")
	for _, c := range do {
		if _, out := w.child(c, envSteps+"="+list); strings.Contains(out, "workload") {
			w.t.Fatalf("%s: %s", c.Op, out)
		}
	}
	if err := w.Remove(ctx(w.t), "victim", true); err != nil && !errors.Is(err, workload.ErrNotFound) {
		w.t.Fatal(err)
	}
	w.wantOnlyBystander("undisturbed")
	b, err := os.ReadFile(list)
	if err != nil {
		w.t.Fatal(err)
	}
	steps := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(steps)
	return slices.Compact(steps)
}

func (w *world) crashAt(step string, do []command, kept bool) {
	w.t.Helper()
	crashed := filepath.Join(w.t.TempDir(), "crashed")
	for _, c := range do {
		killed, _ := w.child(c, envCrash+"="+step, envCrashed+"="+crashed)
		if killed || exists(crashed) {
			break
		}
	}
	for end := time.Now().Add(patience); !exists(crashed); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: never reached", step)
		}
	}
	if id, err := w.layout.Find("victim"); err == nil && strings.HasPrefix(step, "supervisor: ") {
		w.awaitDeath(id)
	}
	w.reopen() // the next command
	w.oneName(step)
	r, err := w.Inspect(ctx(w.t), "victim")
	switch {
	case errors.Is(err, workload.ErrNotFound):
	case err != nil:
		w.t.Errorf("%s: %v", step, err)
	case r.Status == workload.Running && strings.HasPrefix(step, "command: "):
		// Its supervisor goes on, as it should.
		if r.Spec.Process.Args[1] == "pause" {
			now := time.Duration(0)
			err = w.Stop(ctx(w.t), "victim", &now)
		} else {
			_, err = w.Wait(ctx(w.t), "victim")
		}
		if err != nil && !errors.Is(err, workload.ErrNotFound) {
			w.t.Errorf("%s: %v", step, err)
		}
	case r.Status == workload.Restarting && strings.HasPrefix(step, "command: "):
	case r.Status != workload.Created && r.Status != workload.Exited:
		w.t.Errorf("%s: got status %s", step, r.Status)
	case !kept && !strings.HasPrefix(step, "command: remove") && !slices.Contains([]string{"stop", "remove"}, do[len(do)-1].Op):
		w.t.Errorf("%s: the workload is kept: %+v", step, r)
	}
	if r != nil && r.Status == workload.Exited {
		w.wantTrueExit(step, r)
	}
	if err := w.Remove(ctx(w.t), "victim", true); err != nil && !errors.Is(err, workload.ErrNotFound) {
		w.t.Errorf("%s: remove: %v", step, err)
	}
	w.wantOnlyBystander(step)
	if len(w.said) > 0 && !strings.Contains(strings.Join(w.said, ""), "supervisor was lost") {
		w.t.Errorf("%s: warnings: %q", step, w.said)
	}
	w.said = nil
}

// oneName makes sure that a workload which was being renamed has one of its
// names, and that the other is free.
func (w *world) oneName(step string) {
	w.t.Helper()
	err := w.Rename(ctx(w.t), "renamed", "victim")
	if err != nil && !errors.Is(err, workload.ErrNotFound) {
		w.t.Errorf("%s: %v", step, err)
	}
	if _, err := w.Inspect(ctx(w.t), "renamed"); !errors.Is(err, workload.ErrNotFound) {
		w.t.Errorf("%s: two names: %v", step, err)
	}
}

// awaitDeath waits until nobody holds a workload's lock.
func (w *world) awaitDeath(id workload.ID) {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		k, err := w.layout.TryLock(id)
		if err == nil {
			k.Unlock()
		}
		if !errors.Is(err, state.ErrLocked) {
			return
		}
	}
	w.t.Fatal("the supervisor does not die")
}

// wantTrueExit checks that an exit is either what the process did or says that
// nobody knows.
func (w *world) wantTrueExit(step string, r *Record) {
	w.t.Helper()
	want := []int{0}
	switch r.Spec.Process.Args[1] {
	case "pause":
		// A SIGTERM that comes before the program has begun to ignore it ends it: Go's
		// runtime cannot die of that as the first process, and exits with 2.
		want = []int{137, 2}
	case "exit":
		want = []int{3}
	}
	lost := r.Exit != nil && (r.Exit.Code == 255 || r.Restarts > 0) && strings.HasPrefix(r.Exit.Error, "supervisor lost")
	if r.Exit == nil || !slices.Contains(want, r.Exit.Code) && !lost {
		w.t.Errorf("%s: got exit %+v", step, r.Exit)
	}
	if r.PID != 0 || r.SupervisorPID != 0 || r.Finished.IsZero() {
		w.t.Errorf("%s: got record %+v", step, r)
	}
}

// wantOnlyBystander waits until only the second workload's things are there: a
// supervisor whose command was killed may still be ending.
func (w *world) wantOnlyBystander(step string) {
	w.t.Helper()
	r := w.want("bystander", workload.Running)
	var left []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.reopen()
		left = slices.DeleteFunc(w.left(), func(name string) bool {
			if filepath.Base(name) == "bystander" || filepath.Base(name) == string(r.Spec.ID) {
				return true
			}
			to, _ := os.Readlink(filepath.Join(w.dir, name))
			return to == string(r.Spec.ID)
		})
		if len(left) == 0 {
			return
		}
	}
	w.t.Fatalf("%s: left behind: %v", step, left)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestKillSupervisor ends a supervisor in the middle of its work and looks at
// what each way of looking says.
func TestKillSupervisor(t *testing.T) {
	w := newWorld(t)
	look := map[string]func() error{
		"list":    func() error { w.list(); return nil },
		"inspect": func() error { return second(w.Inspect(ctx(t), "k")) },
		"open":    func() error { w.reopen(); return nil },
		"wait":    func() error { return second(w.Wait(ctx(t), "k")) },
		"stop":    func() error { return w.Stop(ctx(t), "k", nil) },
		"start": func() error {
			return errors.Join(second(w.Start(ctx(t), "k", nil)), w.Stop(ctx(t), "k", new(time.Duration)))
		},
	}
	for name, f := range look {
		s := spec("pause")
		s.Name = "k"
		session, err := w.Run(ctx(t), s, &Streams{})
		if err != nil {
			t.Fatal(err)
		}
		r := w.want("k", workload.Running)
		if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.awaitDeath(r.Spec.ID)
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r = w.want("k", workload.Exited)
		if lost := r.Exit.Error == "supervisor lost"; lost != (name != "start") {
			t.Errorf("%s: got exit %+v", name, r.Exit)
		}
		if _, err := session.Wait(ctx(t)); !errors.Is(err, workload.ErrSupervisorLost) {
			t.Errorf("%s: session: got %v", name, err)
		}
		if err := w.Remove(ctx(t), "k", false); err != nil {
			t.Error(err)
		}
		w.wantEmpty()
	}
}

// TestStartInterrupted loses the supervisor when it has recorded that the workload
// runs, before that is so. The workload stays what it was.
func TestStartInterrupted(t *testing.T) {
	t.Setenv(envCrash, "supervisor: start: running recorded")
	t.Setenv(envCrashed, filepath.Join(t.TempDir(), "crashed"))
	w := newWorld(t)
	s := spec("exit", "3")
	s.Name, s.AutoRemove = "s", true
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Start(ctx(t), "s", nil); !errors.Is(err, workload.ErrSupervisorLost) {
			t.Errorf("got %v, want %v", err, workload.ErrSupervisorLost)
		}
		if st, err := w.layout.ReadState(w.want("s", workload.Created).Spec.ID); err != nil || !st.Started.IsZero() {
			t.Errorf("it says that it started: %+v, %v", st, err)
		}
		w.reopen()
	}
	os.Unsetenv(envCrash)
	w.reopen()
	if _, err := w.Start(ctx(t), "s", nil); err != nil {
		t.Error(err)
	}
	if _, err := w.Wait(ctx(t), "s"); err != nil && !ended(err) { // it is removed at its end
		t.Error(err)
	}
}

// TestPowerCut starts a workload again and spoils the record of that, which was not
// on the disk yet: the one before counts, and nothing of the workload's own is lost.
func TestPowerCut(t *testing.T) {
	for what, spoilt := range map[string]string{"empty": "", "blank": strings.Repeat(" ", 4096), "torn": `{"status":"runn`} {
		w := newWorld(t)
		s := spec("pause")
		s.Name, s.Mounts = "db", []workload.Mount{{Type: "volume", Target: "/data"}}
		made, err := w.Create(ctx(t), s)
		if err != nil {
			t.Fatal(err)
		}
		kept := []string{filepath.Join(made.Upper, "kept"), w.layout.Volumes().Data(made.Spec.Mounts[0].Source)}
		if err := os.WriteFile(kept[0], nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Start(ctx(t), "db", nil); err != nil {
			t.Fatal(err)
		}
		r := w.want("db", workload.Running)
		if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(w.dir, "world", string(r.Spec.ID)))
		w.awaitDeath(r.Spec.ID)
		for path, text := range map[string]string{
			filepath.Join(w.layout.Run, "boot"):                  "another",
			filepath.Join(w.layout.Dir(r.Spec.ID), "state.json"): spoilt,
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.reopen()
		w.want("db", workload.Created)
		for _, path := range kept {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := w.Start(ctx(t), "db", nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestReboot lets the run root belong to another boot. What it says of networks is
// gone with the rest, but not what happened.
func TestReboot(t *testing.T) {
	for _, cleared := range []bool{false, true} {
		w := newWorld(t)
		for _, name := range []string{"kept", "removed"} {
			s := spec("pause")
			s.Name, s.AutoRemove = name, name == "removed"
			if _, err := w.Run(ctx(t), s, nil); err != nil {
				t.Fatal(err)
			}
			r := w.want(name, workload.Running)
			if err := syscall.Kill(r.SupervisorPID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(w.dir, "world", string(r.Spec.ID))) // as a reboot does
			w.awaitDeath(r.Spec.ID)
		}
		member := filepath.Join(w.layout.Run, "networks", "members", "somebody")
		if err := errors.Join(os.MkdirAll(filepath.Dir(member), 0o700), os.WriteFile(member, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if cleared {
			os.RemoveAll(w.layout.Run)
		} else if err := os.WriteFile(filepath.Join(w.layout.Run, "boot"), []byte("another"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.reopen()
		rs := w.list()
		if len(rs) != 1 || rs[0].Spec.Name != "kept" || rs[0].Status != workload.Exited || rs[0].Exit.Error != "supervisor lost" {
			t.Errorf("got %+v", rs)
		}
		if left, err := os.ReadDir(filepath.Join(w.layout.Run, "networks")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("of networks: got %v, %v", left, err)
		}
		if _, err := os.Lstat(filepath.Join(w.layout.Run, "events")); err != nil {
			t.Errorf("what happened: %v", err)
		}
		if active, err := w.layout.Active(); err != nil || len(active) > 0 {
			t.Errorf("active: got %v, %v", active, err)
		}
		if _, err := w.Start(ctx(t), "kept", nil); err != nil {
			t.Error(err)
		}
	}
}
