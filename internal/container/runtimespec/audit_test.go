package runtimespec

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestAuditKnows: what package audit takes for the defaults of containers is what
// they are.
func TestAuditKnows(t *testing.T) {
	for _, s := range []workload.Security{
		{}, {CapAdd: []string{"CAP_SYS_ADMIN"}}, {CapAdd: []string{"ALL"}, CapDrop: []string{"CAP_NET_RAW"}}, {CapDrop: []string{"ALL"}},
		{CapAdd: []string{"CAP_CHOWN"}, CapDrop: []string{"ALL"}}, {CapAdd: []string{"CAP_KILL"}, CapDrop: []string{"CAP_KILL"}},
		{CapAdd: []string{"ALL"}, CapDrop: []string{"ALL"}},
		{Unmask: []string{"ALL"}}, {Unmask: []string{"/proc/kcore", "/proc/sys"}},
	} {
		c := audit.Workload(workload.Spec{Boundary: "container", Security: s}, audit.Facts{})
		caps, err := Capabilities(s)
		if err != nil {
			t.Fatal(err)
		}
		masked, readonly := protectedPaths(s.Unmask)
		// Each processor has a file that is masked, too.
		masked = slices.DeleteFunc(masked, func(p string) bool { return !slices.Contains(maskedPaths, p) })
		for _, d := range []struct {
			name      string
			got, want []string
		}{{"capabilities", c.Caps.Value, caps}, {"masked", c.Masked.Value, masked}, {"read-only", c.ReadOnly.Value, readonly}} {
			slices.Sort(d.got)
			slices.Sort(d.want)
			if diff := cmp.Diff(append([]string{}, d.want...), append([]string{}, d.got...)); diff != "" {
				t.Errorf("%+v: %s (-want +got):\n%s", s, d.name, diff)
			}
		}
	}
}
