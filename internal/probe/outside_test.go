package probe

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestTracedClone: that a filter leaves clone3 to a tracer is gVisor's, and declared. What
// passes beside it is not, nor is it behind another boundary.
func TestTracedClone(t *testing.T) {
	for _, tt := range []struct {
		name, boundary, table string
		more                  []report.Evidence
		want                  report.Verdict
	}{
		{"clone3 alone", sandbox, "0-400,435", nil, report.Leaked},
		{"and another", sandbox, "0-400,435-436", []report.Evidence{{Call: "unshare(CLONE_NEWUSER)", Value: gatePasses}}, report.Weaker},
		{"another alone", sandbox, "0-400,436", []report.Evidence{{Call: "unshare(CLONE_NEWUSER)", Value: gatePasses}}, report.Weaker},
		{"in a container", "container", "0-400,435", nil, report.Weaker},
	} {
		c := NewContext(nil, &Declared{Boundary: tt.boundary, Passes: "0-400"})
		o := &Observations{Format: observationFormat, Tried: []Observation{
			{Probe: "syscalls.table", Calls: []report.Evidence{{Call: tableCall, Value: tt.table}}},
			{Probe: "syscalls.user-namespaces", Calls: append(tt.more, report.Evidence{Call: "clone3", Value: gatePasses})},
		}}
		judged := 0
		for _, f := range Judge(c, o, "").Findings {
			if f.ID != "syscalls.table" && f.ID != "syscalls.user-namespaces" {
				continue
			}
			judged++
			if f.Verdict != tt.want {
				t.Errorf("%s: %s is %s, %s%s; want %s", tt.name, f.ID, f.Verdict, f.Observed, f.Reason, tt.want)
			}
		}
		if judged != 2 {
			t.Errorf("%s: %d findings", tt.name, judged)
		}
	}
}
