package agent

import (
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestKeepData: besides what the host lists, whatever the agent had by then and was not
// told to remove.
func TestKeepData(t *testing.T) {
	m := newMachine(t.TempDir(), t.TempDir())
	a := New(Config{Guest: m})
	listed, running, ended, old := workload.NewID(), workload.NewID(), workload.NewID(), workload.NewID()
	for _, id := range []workload.ID{listed, running, ended, old} {
		if _, _, err := m.Data(id, "", 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []workload.ID{running, ended, old} {
		if _, err := a.take(id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []workload.ID{ended, old} {
		e := a.find(id)
		close(e.made)
		if err := e.remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.answer(t.Context(), &protocol.Request{Op: protocol.OpRemoveData, ID: old}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Data(old, "", 0, 0); err != nil { // as if something had been left of it
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
	if len(left) != 3 {
		t.Errorf("%d directories are left, want 3", len(left))
	}
	if err := a.keepData([]workload.ID{"../x"}); err == nil {
		t.Error("no error for what is no ID")
	}
}
