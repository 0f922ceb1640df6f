package probe

import (
	"strconv"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestMemoryReached: a limit of memory holds where what is beyond it is in swap, as far
// as that was asked for, too.
func TestMemoryReached(t *testing.T) {
	const limit, KiB = 64 << 20, 1 << 10
	figures := func(held, swapped int) []report.Evidence {
		return []report.Evidence{
			{Call: memoryReached, Value: strconv.Itoa(limit + beyondMemory)},
			{Call: memoryHeld, Value: strconv.Itoa(held / KiB)}, {Call: memorySwapped, Value: strconv.Itoa(swapped / KiB)},
		}
	}
	for _, tt := range []struct {
		name  string
		swap  int64
		calls []report.Evidence
		want  report.Verdict
	}{
		{"killed", 0, []report.Evidence{{Call: memoryReached, Value: memoryKilled}}, report.Held},
		{"all of it in memory", 0, figures(limit+beyondMemory, 0), report.Weaker},
		{"a little more than the limit in memory", 0, figures(limit+KiB, beyondMemory), report.Weaker},
		{"the rest in swap", 0, figures(limit, beyondMemory), report.Held},
		{"the rest in any amount of swap", -1, figures(limit, beyondMemory), report.Held},
		{"the rest in swap that was asked for", limit + beyondMemory, figures(limit, beyondMemory), report.Held},
		{"the rest in swap that was not to be", limit, figures(limit, beyondMemory), report.Weaker},
		{"a part is nowhere", 0, figures(limit, 0), report.Unknown},
		{"no figures", 0, figures(limit, beyondMemory)[:1], report.Unknown},
		{"figures that cannot be read", 0, []report.Evidence{figures(0, 0)[0], {Call: memoryHeld, Errno: "ENOENT"}, {Call: memorySwapped, Errno: "ENOENT"}}, report.Unknown},
		{"figures without sense", 0, []report.Evidence{figures(0, 0)[0], {Call: memoryHeld, Value: "-1"}, {Call: memorySwapped, Value: "9223372036854775807"}}, report.Unknown},
	} {
		o := &Observations{Format: observationFormat, Tried: []Observation{
			{Probe: "limits.memory", Calls: []report.Evidence{{Call: memoryLimit, Value: strconv.Itoa(limit)}}}, {Probe: "limits.memory-reached", Calls: tt.calls},
		}}
		for _, f := range Judge(NewContext(nil, &Declared{Boundary: "container", Memory: limit, Swap: tt.swap}), o, "").Findings {
			if f.ID == "limits.memory-reached" && f.Verdict != tt.want {
				t.Errorf("%s: got %s, %s%s; want %s", tt.name, f.Verdict, f.Observed, f.Reason, tt.want)
			}
		}
	}
}

// TestObserveMemory looks at a child that nothing limits: it has all of it in memory, or
// some in swap where the machine has that.
func TestObserveMemory(t *testing.T) {
	p := &prober{targets: Targets{Memory: safeMemory / 4}}
	observeMemory(p)
	var n [3]int
	for i, call := range []string{memoryReached, memoryHeld, memorySwapped} {
		e, ok := callOf(&p.o, call)
		var err error
		if n[i], err = strconv.Atoi(e.Value); !ok || err != nil {
			t.Fatalf("%s: %+v, %s", call, p.o.Calls, p.o.Trouble)
		}
	}
	if n[0] != safeMemory/4+beyondMemory || (n[1]+n[2])<<10 < n[0] {
		t.Errorf("took %d bytes, has %d KiB in memory and %d KiB in swap", n[0], n[1], n[2])
	}
}

// TestSharedMemory: a tmpfs shows the size 0 if it has none.
func TestSharedMemory(t *testing.T) {
	for size, want := range map[string]report.Verdict{"67108864": report.Held, "67108865": report.Weaker, "0": report.Weaker, "": report.Unknown} {
		c := NewContext(nil, &Declared{Boundary: "container", Shm: 64 << 20})
		if f := judged(c, "limits.shared-memory", report.Evidence{Call: shmSize, Value: size}); f.Verdict != want {
			t.Errorf("%q: %s, %s%s; want %s", size, f.Verdict, f.Observed, f.Reason, want)
		}
	}
}
