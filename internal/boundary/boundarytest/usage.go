package boundarytest

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func testMeasure(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	m, ok := in.(boundary.Measurer)
	if !ok {
		r.Skip("this boundary cannot measure")
	}
	before, err := m.Measure(r.ctx())
	if err != nil {
		r.Fatal(err)
	}
	if before.Pids < 1 || before.Memory <= 0 || before.At.IsZero() || before.NetReceived != 0 || before.NetSent != 0 {
		r.Errorf("got %+v", before)
	}
	if _, unreal := r.Lacks[MemoryLimits]; unreal {
		return
	}
	if exit, _ := r.exec(in, r.process("allocate", "16")); exit.Code != 0 {
		r.Fatalf("allocate: %+v", exit)
	}
	after, err := m.Measure(r.ctx())
	if err != nil || after.CPU <= before.CPU || !after.At.After(before.At) {
		r.Errorf("got %+v, %v, after %+v", after, err, before)
	}
}

func testUpdate(r *run) {
	const had, has = 256 << 20, 64 << 20
	s := r.spec("pause")
	memory, pids := int64(had), int64(100)
	s.Resources.Memory, s.Resources.MemorySwap, s.Resources.Pids = &memory, &memory, &pids
	in := r.start(s, boundary.Stdio{})
	u, ok := in.(boundary.Updater)
	m, measures := in.(boundary.Measurer)
	if !ok || !measures {
		r.Skip("this boundary cannot change limits")
	}
	limits := func(memory, pids int64) {
		r.Helper()
		if got, err := m.Measure(r.ctx()); err != nil || got.MemoryLimit != memory || got.PidsLimit != pids {
			r.Errorf("got %+v, %v, want limits of %d bytes and %d processes", got, err, memory, pids)
		}
	}
	limits(had, 100)
	lower, fewer := int64(has), int64(60)
	if err := u.Update(r.ctx(), workload.Resources{Memory: &lower, MemorySwap: &lower}); err != nil {
		r.Fatal(err)
	}
	limits(has, 100) // what is nil stays
	if err := u.Update(r.ctx(), workload.Resources{Pids: &fewer}); err != nil {
		r.Fatal(err)
	}
	limits(has, 60)
	if err := u.Update(r.ctx(), workload.Resources{CpusetCPUs: "1000"}); err == nil {
		r.Error("a processor that does not exist: no error")
	}
	if _, unreal := r.Lacks[MemoryLimits]; unreal {
		return
	}
	if exit, out := r.exec(in, r.process("allocate", "128")); exit.Code != 137 {
		r.Errorf("above the new limit: got %+v, %q", exit, out)
	}
	if _, lacking := r.Lacks[Survivors]; lacking {
		return
	}
	tiny := int64(100 << 10)
	if err := u.Update(r.ctx(), workload.Resources{Memory: &tiny}); err == nil || errors.Is(err, workload.ErrNotRunning) {
		r.Errorf("less than is in use: got %v", err)
	}
	if exit, _ := r.exec(in, r.process("exit", "3")); exit.Code != 3 {
		r.Errorf("afterwards: got %+v", exit)
	}
}

func testDescribe(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	d, ok := in.(boundary.Describer)
	if !ok {
		r.Skip("this boundary cannot describe processes")
	}
	proc, err := in.Exec(r.ctx(), r.process("wait-signal", "USR1"), boundary.Stdio{})
	if err != nil {
		r.Fatal(err)
	}
	defer func() {
		if err := proc.Signal(r.ctx(), syscall.SIGKILL); err != nil {
			r.Error(err)
		}
		r.wait(proc)
	}()
	got, err := d.Describe(r.ctx())
	if err != nil || len(got) != 2 {
		r.Fatalf("got %+v, %v, want two processes", got, err)
	}
	slices.SortFunc(got, func(a, b workload.ProcessInfo) int { return a.PID - b.PID })
	for i, command := range []string{"pause", "wait-signal USR1"} {
		p := got[i]
		if p.PID < 1 || p.UID != 0 || p.State == "" || p.RSS < 0 || p.Started.IsZero() || p.Command != r.Program+" "+command {
			r.Errorf("got %+v", p)
		}
	}
	if got[0].PID != 1 || got[0].PPID != 0 || !strings.HasSuffix(got[0].Command, "pause") {
		r.Errorf("the first process: got %+v", got[0])
	}
}

// testExecGroup ends an executed process with what it has started.
func testExecGroup(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	l, ok := in.(boundary.Lister)
	if !ok {
		r.Skip("this boundary cannot list processes")
	}
	line, w := r.lines()
	proc, err := in.Exec(r.ctx(), r.process("spawn", "3"), boundary.Stdio{Out: w})
	if err != nil {
		r.Fatal(err)
	}
	w.Close()
	if got := line(); got != "spawned 3" {
		r.Errorf("got %q", got)
	}
	g, ok := proc.(boundary.Group)
	if !ok {
		r.Skip("this boundary cannot signal groups")
	}
	if err := g.SignalGroup(r.ctx(), syscall.SIGKILL); err != nil {
		r.Fatal(err)
	}
	if exit := r.wait(proc); exit.Signal != int(syscall.SIGKILL) {
		r.Errorf("got %+v", exit)
	}
	// The first process may take a moment to reap the others.
	var left []int
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left, err = l.Processes(r.ctx()); err != nil || len(left) == 1 {
			break
		}
	}
	if err != nil || len(left) != 1 {
		r.Errorf("afterwards: got %v, %v, want one process", left, err)
	}
	if err := g.SignalGroup(r.ctx(), syscall.SIGKILL); !errors.Is(err, workload.ErrNotRunning) {
		r.Errorf("again: got %v", err)
	}
}
