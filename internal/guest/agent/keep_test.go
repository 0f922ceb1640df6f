package agent

import (
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestKeepData: besides what the host lists, whatever the agent has by then.
func TestKeepData(t *testing.T) {
	m := newMachine(t.TempDir(), t.TempDir())
	a := New(Config{Guest: m})
	listed, running, old := workload.NewID(), workload.NewID(), workload.NewID()
	for _, id := range []workload.ID{listed, running, old} {
		if _, _, err := m.Data(id, "", 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.take(running); err != nil {
		t.Fatal(err)
	}
	if err := a.keepData([]workload.ID{listed}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(m.data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if e.Name() == string(old) {
			t.Errorf("what %s wrote is still there", old)
		}
	}
	if len(left) != 2 {
		t.Errorf("%d directories are left, want 2", len(left))
	}
	if err := a.keepData([]workload.ID{"../x"}); err == nil {
		t.Error("no error for what is no ID")
	}
}
