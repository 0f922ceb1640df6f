package supervisor

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestRequestTellsRawSockets: who makes the interfaces knows of workloads that could
// change a frame behind the rules.
func TestRequestTellsRawSockets(t *testing.T) {
	s := &supervisor{}
	for _, add := range [][]string{nil, {"CAP_NET_RAW"}} {
		r := s.request(&workload.Spec{Network: workload.NetworkBridge, Security: workload.Security{CapAdd: add}})
		if want := add != nil; r.Raw != want {
			t.Errorf("--cap-add %v: got raw %t, want %t", add, r.Raw, want)
		}
	}
}
