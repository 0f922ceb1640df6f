package resolve

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/inotifytest"
)

// TestUnwatched changes leases, as package network does, where others have used up
// all inotify instances: in a user namespace that may have none.
func TestUnwatched(t *testing.T) {
	switch again, err := inotifytest.Forbid(); {
	case err != nil:
		t.Fatal(err)
	case !again:
		inotifytest.Again(t, "^TestUnwatched$", "TestUnwatched")
		return
	}
	root := t.TempDir()
	dir := filepath.Join(root, "lab", "leases")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &peers{root: root}
	defer p.close()
	tab := p.table("lab")
	if tab == nil || tab.watch != absent {
		t.Fatalf("the table is %+v", tab)
	}
	at, other := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.3")
	for i := range 300 { // one right after the other
		write(t, dir, "tmp", fmt.Sprintf(`{"workload":"w%d","network":"lab","names":["web"]}`, i))
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, at.String())); err != nil {
			t.Fatal(err)
		}
		if l, err := tab.refresh(at); err != nil || l == nil || l.workload != fmt.Sprint("w", i) {
			t.Fatalf("lease %d: %+v %v", i, l, err)
		}
		if err := os.Remove(filepath.Join(dir, at.String())); err != nil {
			t.Fatal(err)
		}
		if l, err := tab.refresh(at); l != nil || err != nil {
			t.Fatalf("lease %d after it was removed: %+v %v", i, l, err)
		}
	}
	// While nothing happens, nothing is read.
	time.Sleep(2 * tick)
	if _, err := tab.refresh(other); err != nil {
		t.Fatal(err)
	}
	read := tab.read
	time.Sleep(2 * tick)
	if _, err := tab.refresh(other); err != nil || tab.read != read {
		t.Errorf("read again at %v, after %v; %v", tab.read, read, err)
	}
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if again := p.table("lab"); again != nil {
		t.Error("a network that is gone has a table")
	}
}
