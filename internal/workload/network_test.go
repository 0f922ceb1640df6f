package workload

import "testing"

func TestRawSockets(t *testing.T) {
	for _, tt := range []struct {
		add, drop []string
		want      bool
	}{
		{nil, nil, false},
		{[]string{"CAP_NET_RAW"}, nil, true},
		{[]string{"net_raw"}, []string{"ALL"}, true},
		{[]string{"ALL"}, nil, true},
		{[]string{"ALL"}, []string{"CAP_NET_RAW"}, false},
		{[]string{"CAP_NET_ADMIN"}, nil, false},
	} {
		if got := (Security{CapAdd: tt.add, CapDrop: tt.drop}).RawSockets(); got != tt.want {
			t.Errorf("add %v, drop %v: got %t, want %t", tt.add, tt.drop, got, tt.want)
		}
	}
}
