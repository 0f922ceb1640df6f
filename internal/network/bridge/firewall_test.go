package bridge

import (
	"context"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestObstacles has firewalls of others beside our networks: what is found must be
// what happens.
func TestObstacles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules string
		// found are the obstacles, by what they must mention; "!" before those that
		// are bypassed.
		found    []string
		out, pub bool // packets to the outside, and to the published port, pass
	}{
		{"none", "", nil, true, true},
		{"accepts", "add table inet wall; add chain inet wall f { type filter hook forward priority 10; policy accept; }; add rule inet wall f tcp dport 1 drop", nil, true, true},
		{"drops what comes in", "add table inet wall; add chain inet wall i { type filter hook input priority 0; policy drop; }; add rule inet wall i iifname lo accept; add rule inet wall i ct state established,related accept",
			[]string{"!table inet wall, chain i"}, true, true},
		{"drops what is forwarded", "add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }",
			[]string{"table inet wall, chain f"}, false, false},
		{"rejects the rest", "add table ip wall; add chain ip wall f { type filter hook forward priority 0; }; add rule ip wall f iifname eth7 accept; add rule ip wall f counter reject",
			[]string{"table ip wall, chain f"}, false, false},
		{"drops, with an exception for established flows only", "add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }; add rule inet wall f ct state established accept",
			[]string{"table inet wall, chain f"}, false, false},
		{"drops, with exceptions for us", "add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }; add rule inet wall f iifname \"bh-*\" accept; add rule inet wall f oifname \"bh-*\" accept", nil, true, true},
		{"drops, with exceptions for us in a chain", "add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }; add chain inet wall us; add rule inet wall us iifname \"bh-*\" accept; add rule inet wall us oifname \"bh-*\" accept; add rule inet wall f jump us", nil, true, true},
		{"drops, with the exception that we propose", "", nil, true, true}, // filled in below
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			host := outside(t)
			serve(t, host, ":9000")
			if tt.rules != "" {
				command(t, "nft", tt.rules)
			}
			t.Cleanup(func() { command(t, "nft", "flush", "ruleset") })
			if strings.HasSuffix(tt.name, "we propose") {
				command(t, "nft", "add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }")
				o, err := l.Obstacles(context.Background())
				if err != nil || len(o) != 1 {
					t.Fatalf("got %+v, %v", o, err)
				}
				for _, c := range strings.Split(strings.TrimPrefix(o[0].Fix, "accept it there: "), "; ") {
					command(t, "sh", "-c", c)
				}
			}
			w := l.start(withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}))
			serve(t, w.namespace, ":80")
			o, err := l.Obstacles(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if len(o) != len(tt.found) {
				t.Fatalf("got %+v, want %q", o, tt.found)
			}
			if len(w.a.Warnings) != len(tt.found) {
				t.Errorf("got warnings %q, want %q", w.a.Warnings, tt.found)
			}
			for i, want := range tt.found {
				name, bypassed := strings.CutPrefix(want, "!")
				if o[i].Where != name || o[i].Bypassed != bypassed || o[i].What == "" || o[i].Fix == "" {
					t.Errorf("got %+v, want %q", o[i], want)
				}
			}
			check := func(what string, n *namespace, to string, passes bool) {
				wait := patience
				if !passes {
					wait = impatience
				}
				if got := askFor(t, n, "tcp", to, wait); (got != "") != passes {
					t.Errorf("%s: got answer %q", what, got)
				}
			}
			check("out", w.namespace, "192.0.2.2:9000", tt.out)
			check("published port", host, "192.0.2.1:8080", tt.pub)
		})
	}
}
