package probe

import (
	"math"
	"testing"
)

// TestRootsCutShort looks at fewer processes than there are: what was not looked at is
// not shut.
func TestRootsCutShort(t *testing.T) {
	all := &prober{}
	all.lookAtRoots(math.MaxInt)
	if all.o.Trouble != "" || len(all.o.Calls) != 1 {
		t.Errorf("all processes: got %+v", all.o)
	}
	none := &prober{}
	none.lookAtRoots(0)
	if none.o.Trouble == "" {
		t.Errorf("none of them: got %+v", none.o)
	}
}
