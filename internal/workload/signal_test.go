package workload

import "testing"

func TestParseSignal(t *testing.T) {
	tests := []struct {
		in   string
		want int // 0 for an error
	}{
		{"SIGTERM", 15}, {"term", 15}, {"9", 9}, {"64", 64}, {"SIGRTMIN", 34}, {"RTMIN+3", 37},
		{"sigrtmax-14", 50}, {"RTMAX", 64},
		{"", 0}, {"0", 0}, {"65", 0}, {"-1", 0}, {"SIG", 0}, {"SIGSIGTERM", 0}, {"RTMIN3", 0},
		{"RTMIN-1", 0}, {"RTMAX+1", 0}, {"RTMIN+99999999999999999999", 0}, {"RTMIN+", 0},
	}
	for _, tt := range tests {
		got, err := ParseSignal(tt.in)
		if int(got) != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("ParseSignal(%q): got %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
}
