package workload

import (
	"strings"
	"testing"
)

func TestFileEdit(t *testing.T) {
	const old, new = "127.0.0.1\tlocalhost\n10.1.0.2\tweb\n", "127.0.0.1\tlocalhost\n10.1.0.2\tweb\n10.2.0.2\tweb\n"
	for _, tt := range []struct {
		name, old, new, now string
		lines               bool
		want                string
	}{
		{"as given", old, new, old, false, new},
		{"changed meanwhile", old, new, old + "10.9.9.9\tmine\n", false, old + "10.9.9.9\tmine\n"},
		{"a line more", old, new, old + "10.9.9.9\tmine\n", true, old + "10.9.9.9\tmine\n10.2.0.2\tweb\n"},
		{"a line less", new, old, "# mine\n" + new, true, "# mine\n" + old},
		{"without an end", old, new, old + "10.9.9.9\tmine", true, old + "10.9.9.9\tmine\n10.2.0.2\tweb\n"},
		{"removed already", new, old, "127.0.0.1\tlocalhost\n", true, "127.0.0.1\tlocalhost\n"},
		{"written twice", new, old, new + "10.2.0.2\tweb\n", true, old + "10.2.0.2\tweb\n"},
		{"empty", old, new, "", true, "10.2.0.2\tweb\n"},
	} {
		if got := string(FileEdit{[]byte(tt.old), []byte(tt.new), tt.lines}.Apply([]byte(tt.now))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzFileEdit: no line that is the workload's own is lost, none that is to go
// stays, and what is to come is there.
func FuzzFileEdit(f *testing.F) {
	f.Add("a\nb\n", "a\nc\n", "b\nx\na", true)
	f.Add("", "a", "b", true)
	f.Add("a", "", "a\na", false)
	f.Fuzz(func(t *testing.T, old, new, now string, lines bool) {
		got := string(FileEdit{[]byte(old), []byte(new), lines}.Apply([]byte(now)))
		if now == old && got != new || now != old && !lines && got != now {
			t.Fatalf("got %q", got)
		}
		if now == old || !lines {
			return
		}
		have := count(got)
		for l, n := range count(now) {
			if want := n - max(0, count(old)[l]-count(new)[l]); have[l] < want {
				t.Errorf("%q is there %d times, want %d", l, have[l], want)
			}
		}
		for l, n := range count(new) {
			if have[l] < n-count(old)[l] {
				t.Errorf("%q is there %d times, and is new", l, have[l])
			}
		}
	})
}

func count(s string) map[string]int {
	n := map[string]int{}
	for l := range strings.Lines(s) {
		n[strings.TrimSuffix(l, "\n")]++
	}
	return n
}
