package probe

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestOwnDisks: who can make nodes and finds no disk in /dev is kept from disks only if
// the device cgroup says so.
func TestOwnDisks(t *testing.T) {
	list, ask := report.Evidence{Call: readCall(partitions)}, func(errno string) report.Evidence {
		return report.Evidence{Call: "mknod(/tmp, b 8:0) and access(2)", Errno: errno}
	}
	for _, tt := range []struct {
		name, nodes, disks string // errors; "none" for no such device
		calls              []report.Evidence
		want               report.Verdict
	}{
		{"no nodes", "EPERM", "none", []report.Evidence{list}, report.Held},
		{"no disk is known", "", "none", []report.Evidence{list}, report.Unknown},
		{"no list", "", "none", []report.Evidence{{Call: readCall(partitions), Errno: "ENOENT"}}, report.Unknown},
		{"nothing tried", "", "none", nil, report.Unknown},
		{"the cgroup refuses", "", "none", []report.Evidence{list, ask("EPERM"), ask("EACCES")}, report.Held},
		{"the cgroup refuses what is in /dev, too", "", "EPERM", []report.Evidence{list, ask("EPERM")}, report.Held},
		{"the cgroup lets it", "", "none", []report.Evidence{list, ask("EPERM"), ask("")}, report.Leaked},
		{"the cgroup refuses what is in /dev alone", "", "EPERM", []report.Evidence{list, ask("")}, report.Leaked},
		{"nowhere to make one", "", "none", []report.Evidence{list, ask("EROFS")}, report.Unknown},
		{"a disk in /dev", "", "", []report.Evidence{list}, report.Leaked},
	} {
		disks := report.Evidence{Call: openCall("/dev/sda", 0), Errno: tt.disks}
		if tt.disks == "none" {
			disks = report.Evidence{Call: foundDevices, Value: noDevice}
		}
		o := &Observations{Format: observationFormat, Tried: []Observation{
			{Probe: "capabilities.device-nodes", Calls: []report.Evidence{{Call: "mknod(/tmp, c 1:3)", Errno: tt.nodes}}},
			{Probe: "devices.disks", Calls: []report.Evidence{disks}},
			{Probe: "escape.disks", Calls: tt.calls},
		}}
		for _, f := range Judge(NewContext(nil, nil), o, "").Findings {
			if f.ID == "escape.disks" && f.Verdict != tt.want {
				t.Errorf("%s: got %s, %s%s; want %s", tt.name, f.Verdict, f.Observed, f.Reason, tt.want)
			}
		}
	}
}
