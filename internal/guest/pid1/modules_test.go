package pid1

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHasNetwork(t *testing.T) {
	sys := t.TempDir()
	devices := filepath.Join(sys, "bus/virtio/devices")
	add := func(name, id string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(devices, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(devices, name, "device"), []byte(id+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name, id string
		want     bool
	}{{"", "", false}, {"virtio0", "0x0003", false}, {"virtio1", "0x0001", true}} {
		if step.name != "" {
			add(step.name, step.id)
		}
		if got, err := hasNetwork(sys); got != step.want || err != nil {
			t.Errorf("with %s: got %v, %v", step.id, got, err)
		}
	}
}
