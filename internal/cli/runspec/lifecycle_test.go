package runspec

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestParseRestart(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want workload.Restart
		ok   bool
	}{
		{"", workload.Restart{}, true},
		{"no", workload.Restart{}, true},
		{"always", workload.Restart{Policy: "always"}, true},
		{"unless-stopped", workload.Restart{Policy: "unless-stopped"}, true},
		{"on-failure", workload.Restart{Policy: "on-failure"}, true},
		{"on-failure:3", workload.Restart{Policy: "on-failure", Max: 3}, true},
		{"on-failure:0", workload.Restart{Policy: "on-failure"}, true},
		{"on-failure:", workload.Restart{}, false},
		{"on-failure:-1", workload.Restart{}, false},
		{"on-failure:99999999999", workload.Restart{}, false},
		{"always:3", workload.Restart{}, false},
		{"sometimes", workload.Restart{}, false},
	} {
		got, err := ParseRestart(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
		if tt.ok {
			if again, err := ParseRestart(FormatRestart(got)); err != nil || again != got {
				t.Errorf("%q: written and read: %+v, %v", tt.in, again, err)
			}
		}
	}
}
