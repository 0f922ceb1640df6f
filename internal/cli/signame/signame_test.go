package signame

import (
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want syscall.Signal // 0 for an error
	}{
		{"TERM", syscall.SIGTERM}, {"sigterm", syscall.SIGTERM}, {"15", syscall.SIGTERM},
		{"KILL", syscall.SIGKILL}, {"SIGIOT", syscall.SIGABRT}, {"WINCH", syscall.SIGWINCH},
		{"RTMIN", 34}, {"SIGRTMIN+3", 37}, {"rtmax", 64}, {"RTMAX-1", 63}, {"64", 64},
		{"", 0}, {"0", 0}, {"65", 0}, {"-1", 0}, {"SIG", 0}, {"NOPE", 0}, {"RTMIN+31", 0},
		{"RTMIN-1", 0}, {"RTMAX+1", 0}, {"RTMIN+", 0}, {"RTMIN+-1", 0}, {"15 ", 0}, {"TERM\n", 0},
	} {
		got, err := Parse(tt.in)
		if got != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("Parse(%q) = %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
}

func TestNameParsesBack(t *testing.T) {
	for n := syscall.Signal(1); n <= 64; n++ {
		if got, err := Parse(Name(n)); err != nil || got != n {
			t.Errorf("Parse(Name(%d)) = Parse(%q) = %d, %v", n, Name(n), got, err)
		}
	}
	for n, want := range map[syscall.Signal]string{15: "SIGTERM", 6: "SIGABRT", 34: "SIGRTMIN", 37: "SIGRTMIN+3", 33: "33"} {
		if got := Name(n); got != want {
			t.Errorf("Name(%d) = %q, want %q", n, got, want)
		}
	}
}
