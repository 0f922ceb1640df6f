package boundarytest

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// testWait waits several times, at once, and in vain.
func testWait(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := in.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		r.Errorf("a wait that is given up: got %v", err)
	}
	exits := make(chan workload.Exit)
	for range 2 {
		go func() {
			exit, err := in.Wait(context.Background())
			if err != nil {
				exit.Error = err.Error()
			}
			exits <- exit
		}()
	}
	if err := in.Signal(r.ctx(), syscall.SIGKILL); err != nil {
		r.Error(err)
	}
	first, second := <-exits, <-exits
	if first.Code != 137 || first.Error != "" || first != second {
		r.Errorf("got %+v and %+v", first, second)
	}
	if exit := r.wait(in); exit != first {
		r.Errorf("later: got %+v, want %+v", exit, first)
	}
}

// testDelete deletes in each state, twice.
func testDelete(r *run) {
	states := map[string]func() boundary.Instance{
		"created": func() boundary.Instance { return r.create(r.spec("pause"), boundary.Stdio{}) },
		"running": func() boundary.Instance { return r.start(r.spec("pause"), boundary.Stdio{}) },
		"ended": func() boundary.Instance {
			in := r.start(r.spec("exit", "0"), boundary.Stdio{})
			r.wait(in)
			return in
		},
		"paused": func() boundary.Instance {
			in := r.start(r.spec("pause"), boundary.Stdio{})
			if p, ok := in.(boundary.Pauser); ok {
				if err := p.Pause(r.ctx()); err != nil {
					r.Error(err)
				}
			}
			return in
		},
	}
	for name, f := range states {
		in := f()
		for range 2 {
			if err := in.Delete(r.ctx()); err != nil {
				r.Errorf("%s: %v", name, err)
			}
		}
		if _, err := in.Exec(r.ctx(), r.process("exit", "0"), boundary.Stdio{}); err == nil {
			r.Errorf("%s: exec after delete: no error", name)
		}
	}
}

// testOpen opens an instance whose creator lives, and one that never was.
func testOpen(r *run) {
	s := r.spec("pause")
	p := r.Prepare(r, s)
	open := func(when string) {
		r.Helper()
		in, err := r.Boundary.Open(r.ctx(), s.ID, p.Dir)
		if err == nil {
			err = in.Delete(r.ctx())
		}
		if err != nil && !errors.Is(err, workload.ErrNotFound) {
			r.Errorf("%s: %v", when, err)
		}
	}
	// There is nothing to open, or something that can be deleted.
	open("before create")
	in, err := r.Boundary.Create(r.ctx(), s, p)
	if err != nil {
		r.Fatal(err)
	}
	if err := in.Start(r.ctx()); err != nil {
		r.Error(err)
	}
	if err := in.Delete(r.ctx()); err != nil {
		r.Error(err)
	}
	open("after delete")
}

// testCreatorDies cleans up after a process that was killed. The leak guard
// finds what is left.
func testCreatorDies(r *run) {
	for _, start := range []bool{false, true} {
		s := r.spec("pause")
		p := r.Prepare(r, s)
		r.creator(s, p, start)
		for range 2 {
			in, err := r.Boundary.Open(r.ctx(), s.ID, p.Dir)
			if errors.Is(err, workload.ErrNotFound) {
				break // the second time
			}
			if err == nil {
				err = in.Delete(r.ctx())
			}
			if err != nil {
				r.Errorf("start %v: %v", start, err)
			}
		}
	}
}

func testPause(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	p, ok := in.(boundary.Pauser)
	if !ok {
		r.Skip("this boundary cannot pause")
	}
	if err := p.Pause(r.ctx()); err != nil {
		r.Fatal(err)
	}
	if err := p.Resume(r.ctx()); err != nil {
		r.Fatal(err)
	}
	if exit, _ := r.exec(in, r.process("exit", "4")); exit.Code != 4 {
		r.Errorf("afterwards: got %+v", exit)
	}
}

func testProcesses(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	l, ok := in.(boundary.Lister)
	if !ok {
		r.Skip("this boundary cannot list processes")
	}
	proc, err := in.Exec(r.ctx(), r.process("pause"), boundary.Stdio{})
	if err != nil {
		r.Fatal(err)
	}
	pids, err := l.Processes(r.ctx())
	if err != nil || len(pids) != 2 {
		r.Errorf("got %v, %v, want two processes", pids, err)
	}
	if err := proc.Signal(r.ctx(), syscall.SIGKILL); err != nil {
		r.Error(err)
	}
	r.wait(proc)
}

// testDescendants ends the first process and expects its children to end too.
// The leak guard finds those that do not.
func testDescendants(r *run) {
	line, w := r.lines()
	in := r.start(r.spec("spawn", "3"), boundary.Stdio{Out: w})
	w.Close()
	if got := line(); got != "spawned 3" {
		r.Errorf("got %q", got)
	}
	if err := in.Signal(r.ctx(), syscall.SIGKILL); err != nil {
		r.Error(err)
	}
	r.wait(in)
}
