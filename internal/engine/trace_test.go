package engine

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// traced returns the paths of the phases that f's context records, each with the
// program that did it, in the order in which they began.
func traced(t *testing.T, f func(context.Context)) []string {
	t.Helper()
	r := trace.New("test")
	whole, o := trace.Begin(trace.With(ctx(t), r), "all")
	f(whole)
	o.End()
	phases := r.Take()
	paths := make([]string, len(phases))
	for i, p := range phases {
		if p.Begin <= 0 || p.Begin > p.End {
			t.Errorf("%s goes from %v to %v", p.Name, p.Begin, p.End)
		}
		paths[i] = p.Name
		if p.Parent == 0 {
			continue
		}
		if in := phases[p.Parent-1]; p.Parent > i || p.Begin < in.Begin || p.End > in.End {
			t.Errorf("%s (%v to %v) is no part of %s (%v to %v)", p.Name, p.Begin, p.End, in.Name, in.Begin, in.End)
		}
		paths[i] = paths[p.Parent-1] + "/" + p.Name
	}
	order := make([]int, len(phases))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(phases[a].Begin - phases[b].Begin) })
	var out []string
	for _, i := range order {
		out = append(out, strings.TrimPrefix(paths[i], "all/")+" by "+phases[i].By)
	}
	return out
}

// inOrder wants phases one after the other, with others between them.
func inOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	at := 0
	for _, w := range want {
		n := slices.Index(got[at:], w)
		if n < 0 {
			t.Errorf("no phase %q behind the one before it in:\n%s", w, strings.Join(got, "\n"))
			return
		}
		at += n + 1
	}
}

// has reports whether one of the phases is in what is named.
func has(got []string, prefix string) bool {
	return slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, prefix) })
}

// start and end of every workload, whatever isolates it.
var (
	tracedBegin = []string{
		"workload prepared by test",
		"workload prepared/boundary and networks checked by test",
		"workload prepared/name taken, specification written by test",
		"workload prepared/supervisor executed by test",
		"workload prepared/image's layers unpacked by test",
		"workload prepared/network's files written by test",
		"workload started by test",
		"workload started/boundary created by supervisor",
	}
	tracedStart = []string{
		"workload started/recorded as running by supervisor",
		"workload started/first process started by supervisor",
	}
	tracedEnd = []string{
		"exit recorded by supervisor",
		"last output read by supervisor",
		"boundary removed by supervisor",
		"end recorded, or workload removed by supervisor",
	}
)

func (w *world) traceRun(s workload.Spec) []string {
	w.t.Helper()
	return traced(w.t, func(ctx context.Context) {
		var out bytes.Buffer
		session, err := w.Run(ctx, s, &Streams{Out: &out})
		if err != nil {
			w.t.Fatal(err)
		}
		if exit, err := session.Wait(ctx); err != nil || exit.Code != 0 || out.Len() == 0 {
			w.t.Fatalf("got %+v, %v, %q", exit, err, out.String())
		}
	})
}

func TestTrace(t *testing.T) {
	w := newWorld(t)
	s := spec("echo", "x")
	s.Name = "traced"
	got := w.traceRun(s)
	inOrder(t, got, slices.Concat(tracedBegin, tracedStart, tracedEnd)...)
	// A supervisor may be quick or slow to be there, and asked before.
	for _, name := range []string{"program loaded by supervisor", "request awaited by supervisor"} {
		if !slices.Contains(got, name) && !slices.Contains(got, "workload started/"+name) {
			t.Errorf("no phase %q in:\n%s", name, strings.Join(got, "\n"))
		}
	}
	inOrder(t, got, "runs until its first output by workload", "first output written by test")
	inOrder(t, got, "runs until its exit by workload", "exit recorded by supervisor")

	// Another start of the same workload, which nobody stays with.
	got = traced(t, func(ctx context.Context) {
		if _, err := w.Start(ctx, "traced", nil); err != nil {
			t.Fatal(err)
		}
	})
	inOrder(t, got, append([]string{"state locked, read by test", "supervisor executed by test", "workload started by test"}, tracedStart...)...)
	if has(got, "exit recorded") || has(got, "workload prepared") {
		t.Errorf("phases of something else:\n%s", strings.Join(got, "\n"))
	}
}

// TestTraceOfFailure: what was done before a start failed is told.
func TestTraceOfFailure(t *testing.T) {
	w := newWorld(t)
	got := traced(t, func(ctx context.Context) {
		s := spec("echo")
		s.Process.Args = []string{"/missing"}
		if _, err := w.Run(ctx, s, &Streams{}); err == nil {
			t.Fatal("a program that is missing ran")
		}
	})
	inOrder(t, got, append(slices.Clone(tracedBegin), tracedStart...)...)
	if has(got, "runs until") {
		t.Errorf("phases of what never was:\n%s", strings.Join(got, "\n"))
	}
}

func TestTraceContainers(t *testing.T) {
	w := newRealWorld(t)
	got := w.traceRun(spec("both"))
	const made = "workload started/boundary created/"
	inOrder(t, got, slices.Concat(tracedBegin, []string{
		made + "runtime specification by supervisor",
		made + "cgroup made by supervisor",
		made + "machine looked at by supervisor",
		made + "launch program planned by supervisor",
		made + "launch program performed by supervisor",
		made + "launch program performed/mount namespace by supervisor",
		made + "launch program performed/clone, user namespace by supervisor",
		made + "launch program performed/root file system by supervisor",
		made + "launch program performed/namespaces, first process forked by supervisor",
		made + "launch program performed/mounts by supervisor",
		made + "launch program performed/privileges, filter by supervisor",
	}, tracedStart, tracedEnd)...)
	inOrder(t, got, "workload prepared/range of IDs taken by test", "workload prepared/image's layers unpacked by test")
	inOrder(t, got, "boundary removed by supervisor", "boundary removed/processes ended, mounts removed by supervisor", "boundary removed/cgroup removed by supervisor")
}

// TestTraceNetworks: the networks are made beside the boundary's part.
func TestTraceNetworks(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	got := w.traceRun(networkSpec("traced", "echo", "x"))
	inOrder(t, got, "workload started/networks prepared by supervisor",
		"workload started/networks prepared/bulkhead-network executed by supervisor",
		"workload started/networks prepared/asked by network",
		"workload started/networks entered by supervisor",
		"workload started/networks entered/asked by network",
		"workload started/recorded as running by supervisor",
		"networks taken back/asked by network",
		"end recorded, or workload removed by supervisor")
}

// TestTraceTaps: what takes interfaces as descriptors is made when those are there,
// and does not wait for the rest of the networks, without which it does not begin.
func TestTraceTaps(t *testing.T) {
	t.Setenv(envTaps, "1")
	w := newWorld(t)
	got := w.traceRun(networkSpec("traced", "echo", "x"))
	inOrder(t, got, "workload started/networks prepared by supervisor",
		"workload started/networks prepared/asked by network",
		"workload started/boundary created by supervisor",
		"workload started/networks entered by supervisor",
		"workload started/networks entered/asked by network",
		"workload started/recorded as running by supervisor")
	if _, err := w.Run(ctx(t), networkSpec("no-entry", "exit", "0"), nil); err == nil || !strings.Contains(err.Error(), "no entry") {
		t.Errorf("networks that do not come to work: got %v", err)
	}
}

// sendTraced answers as bulkhead-network does, with one phase.
func sendTraced(asked bool, m attach.Message) attach.Message {
	if asked {
		now := trace.Now()
		m.Phases = []trace.Phase{{Name: "asked", By: "network", Begin: now, End: now}}
	}
	return m
}
