package resolve

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// withoutInotify has the user namespace that this process was started from.
const withoutInotify = "BULKHEAD_RESOLVE_TEST_WITHOUT_INOTIFY"

// TestUnwatched changes leases, as package network does, where others have used up
// all inotify instances: in a user namespace that may have none.
func TestUnwatched(t *testing.T) {
	ns, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	outside := os.Getenv(withoutInotify)
	if outside == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.timeout=1m", "-test.run=^TestUnwatched$")
		cmd.Env = append(os.Environ(), withoutInotify+"="+ns)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			Pdeathsig: syscall.SIGKILL,
		}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestUnwatched") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if ns == outside {
		t.Fatal("not in a user namespace of its own")
	}
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
		t.Fatal(err)
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
