package probe

import "testing"

// TestSurfaceGrows: each number of attack surface is that of what was given.
func TestSurfaceGrows(t *testing.T) {
	w := newWorld(t)
	count := func(flags ...string) map[string]float64 {
		d := w.decode(w.command(append(append([]string{"probe", "--json"}, flags...), "box")...))
		found := map[string]float64{}
		for i := range d.Reports[0].Measures {
			m := &d.Reports[0].Measures[i]
			if !m.Measured() {
				t.Fatalf("%s: %s", m.ID, m.Reason)
			}
			found[m.ID] = m.Median()
		}
		return found
	}
	const root = "--userns host --security-opt apparmor=unconfined"
	usual := count()
	before := map[string]map[string]float64{"": usual, root: count(flags(root)...)}
	for _, tt := range []struct{ id, to, flags string }{
		{"surface.calls", "", "--security-opt seccomp=unconfined"},
		{"surface.sockets", "", "--security-opt seccomp=unconfined"},
		{"surface.capabilities", "", "--cap-add NET_RAW"},
		{"surface.devices", "", "--device /dev/kmsg"},
		{"surface.writable", root, "--security-opt unmask=ALL"},
		{"surface.writable", root, "-v /proc/irq:/x"},
		{"surface.writable", root, "-v /sys/kernel/mm:/x"},
	} {
		if got, was := count(flags(tt.to + " " + tt.flags)...)[tt.id], before[tt.to][tt.id]; got <= was {
			t.Errorf("%s: %v with %s, %v without", tt.id, got, tt.flags, was)
		}
	}
	if got := usual["surface.capabilities"]; got != 11 {
		t.Errorf("%v capabilities, want the 11 of the default", got)
	}
}
