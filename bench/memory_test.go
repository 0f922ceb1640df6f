package main

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

// TestDaemonsOfOthers: another Docker on the machine is not memory of this one.
func TestDaemonsOfOthers(t *testing.T) {
	now := pss.Processes{
		1: {PID: 1, Name: "dockerd", Command: "dockerd --data-root /bench/docker", PSS: 1},
		2: {PID: 2, Name: "containerd", Command: "containerd --config /bench/docker-run/containerd.toml", PSS: 2},
		3: {PID: 3, Name: "dockerd", Command: "/usr/bin/dockerd -H fd://", PSS: 4},
		4: {PID: 4, Name: "other", Command: "other /bench/docker", PSS: 8},
	}
	e := engine{daemons: []string{"dockerd", "containerd"}, dir: "/bench"}
	if sum, _ := e.sum(now, nil, nil); sum.daemons != 3 {
		t.Errorf("daemons have %d, want 3", sum.daemons)
	}
}
