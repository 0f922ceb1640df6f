package cgroup

import (
	"os"
	"testing"
)

// TestRoomFor: only a limit that is too small is touched, on either generation,
// and it comes back as it was.
func TestRoomFor(t *testing.T) {
	for _, c := range []struct{ limit, during string }{
		{"0", "2"}, {"1", "2"}, {"2", "2"}, {"3", "3"}, {"max", "max"}, {"", ""},
	} {
		for _, v2 := range []bool{false, true} {
			dir := t.TempDir()
			m := &Manager{path: "/x", v1: []v1Dir{{Hierarchy{Controllers: []string{"pids"}}, dir}}}
			if v2 {
				m = &Manager{path: "/x", v2: dir}
			}
			read := func() string {
				b, _ := os.ReadFile(dir + "/pids.max") // missing reads as empty
				return string(b)
			}
			if c.limit != "" {
				if err := os.WriteFile(dir+"/pids.max", []byte(c.limit), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			settle, err := m.RoomFor(2)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(); got != c.during {
				t.Errorf("limit %q, v2 %v: %q meanwhile, want %q", c.limit, v2, got, c.during)
			}
			if err := settle(); err != nil {
				t.Fatal(err)
			}
			if got := read(); got != c.limit {
				t.Errorf("limit %q, v2 %v: %q afterwards", c.limit, v2, got)
			}
		}
	}
}
