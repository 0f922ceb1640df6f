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
	usual := count()
	for _, tt := range []struct{ id, flags string }{
		{"surface.calls", "--security-opt seccomp=unconfined"},
		{"surface.sockets", "--security-opt seccomp=unconfined"},
		{"surface.capabilities", "--cap-add NET_RAW"},
		{"surface.devices", "--device /dev/kmsg"},
		{"surface.writable", "--userns host --security-opt unmask=ALL --security-opt apparmor=unconfined"},
	} {
		if got := count(flags(tt.flags)...)[tt.id]; got <= usual[tt.id] {
			t.Errorf("%s: %v with %s, %v without", tt.id, got, tt.flags, usual[tt.id])
		}
	}
	if got := usual["surface.capabilities"]; got != 11 {
		t.Errorf("%v capabilities, want the 11 of the default", got)
	}
}
