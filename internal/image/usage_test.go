package image

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestParts: two images with a layer in common.
func TestParts(t *testing.T) {
	shared := Layer{Digest: "sha256:a", DiffID: "sha256:a", Size: 10, Unpacked: 100}
	one := Image{Digest: "sha256:1", Size: 13, VMDisk: 1000, Layers: []Layer{shared}}
	two := Image{Digest: "sha256:2", Size: 25, Layers: []Layer{shared, {Digest: "sha256:b", DiffID: "sha256:c", Size: 11, Unpacked: 50}}}
	sum := func(all ...Image) (n int64) {
		parts := map[digest.Digest]int64{}
		for _, im := range all {
			for id, size := range im.parts() {
				parts[id] = size
			}
		}
		for _, size := range parts {
			n += size
		}
		return n
	}
	if got := sum(one); got != 3+10+100+1000 {
		t.Errorf("the first alone: %d", got)
	}
	if got := sum(two); got != 4+10+100+11+50 {
		t.Errorf("the second alone: %d", got)
	}
	if got := sum(one, two); got != 3+10+100+1000+4+11+50 {
		t.Errorf("together: %d", got)
	}
}
