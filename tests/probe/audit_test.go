package probe

import (
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestAuditKnowsSockets: what the prober looks for inside, the audit finds in a
// configuration, and the directory that holds it.
func TestAuditKnowsSockets(t *testing.T) {
	var sources []string
	for _, s := range probe.EngineSockets() {
		sources = append(sources, s, "/srv/"+path.Base(s))
		if dir := path.Dir(s); dir != "/run" && dir != "/var/run" {
			sources = append(sources, dir)
		}
	}
	for _, source := range sources {
		c, err := audit.ParseOCI(fmt.Appendf(nil, `{"ociVersion": "1.0.0", "linux": {}, "mounts": [
			{"destination": "/x", "type": "bind", "source": %q, "options": ["bind"]}]}`, source))
		if err != nil {
			t.Fatal(err)
		}
		findings := audit.Judge(c, "").Findings
		n := slices.IndexFunc(findings, func(f report.Finding) bool { return f.ID == "files.socket" })
		if n < 0 || !findings[n].Verdict.Open() {
			t.Errorf("%s: the audit does not know it", source)
		}
	}
}
