package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

// TestTrace: what the agent does is a part of what the host waits for.
func TestTrace(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	r := trace.New("host")
	in, err := c.Create(trace.With(limited(t), r), spec("pause"), boundary.Stdio{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	phases := r.Take()
	for i, p := range phases {
		if p.Begin > p.End || i > 0 && (p.Parent == 0 || p.Begin < phases[p.Parent-1].Begin || p.End > phases[p.Parent-1].End) {
			t.Errorf("phase %d, %+v, is no part of another", i, p)
		}
		got = append(got, p.Name+" by "+p.By)
	}
	want := []string{"workload made in the guest by host", "image mounted by agent", "writable layer made by agent", "boundary created by agent", "interfaces attached by agent"}
	if !slices.Equal(got, want) {
		t.Errorf("got %s\nwant %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
}

// TestManyPhases: the host takes whatever an agent says.
func TestManyPhases(t *testing.T) {
	var all []trace.Phase
	for i := range 2 * protocol.MaxPhases {
		all = append(all, trace.Phase{Name: fmt.Sprint(i), Begin: 5, End: 6})
	}
	if got := phases(all, 5); len(got) != protocol.MaxPhases || got[0].Begin != 0 || got[0].End != 1 {
		t.Errorf("%d phases, the first %+v", len(got), got[0])
	}
}
