package comparing

import (
	"slices"
	"strings"
	"testing"
)

// TestVMTemplateForIdle: also workloads that are detached, with which memory is
// measured, go on from a template of the image when they are measured first.
func TestVMTemplateForIdle(t *testing.T) {
	state := newEngine(t, "bulkhead")
	c := &comparison{Options: quiet(t), id: "0123"}
	c.Bulkhead, c.Only = []string{"bulkhead"}, []string{"vm"}
	ways, err := c.choose()
	if err != nil {
		t.Fatal(err)
	}
	if err := ways[0].setUp(t.Context(), &made{ours: "box"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ways[0].detach(t.Context(), "compare-idle-measured", idle, false); err != nil {
		t.Fatal(err)
	}
	// What tells apart templates: all options but the name, which is the one thing that differs.
	unnamed := func(line string) string {
		f := strings.Fields(line)
		if i := slices.Index(f, "--name"); i > 0 {
			f = slices.Delete(f, i, i+2)
		}
		return strings.Join(f, " ")
	}
	lines := asked(t, state)
	measured, before := unnamed(lines[len(lines)-1]), 0
	for _, line := range lines[:len(lines)-1] {
		if unnamed(line) == measured {
			before++
		}
	}
	if before != 3 {
		t.Errorf("%q was started %d times before, want 3: %q", measured, before, lines)
	}
	if left := names(t, state+"/workloads"); !slices.Equal(left, []string{"compare-idle-measured"}) {
		t.Errorf("%q is left", left)
	}
}
