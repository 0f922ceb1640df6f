package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// owner returns the user and group of a file on the host.
func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

// TestVolumeOwners looks at the owners of a volume's files from both sides.
func TestVolumeOwners(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for name, id := range map[string]int{"root": 0, "app": 1000, "far": 200_000} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, id, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	got := w.ok("run", "--rm", "-v", dir+":/v", "box", "sh", "-c",
		"stat -c '%n %u:%g' /v/root /v/app /v/far; cat /v/far 2>/dev/null || echo refused; touch /v/made; chown 1000:1000 /v/made; chown 0 /v/far 2>/dev/null || echo refused")
	want := "/v/root 0:0\n/v/app 1000:1000\n/v/far 65534:65534\nrefused\nrefused"
	if got != want {
		t.Errorf("inside:\ngot  %q\nwant %q", got, want)
	}
	if uid, gid := owner(t, filepath.Join(dir, "made")); uid != 1000 || gid != 1000 {
		t.Errorf("outside: %d:%d", uid, gid)
	}
	r := w.do("run", "--rm", "-u", "app", "-v", dir+":/v", "box", "sh", "-c", "touch /v/apps; cat /v/app; echo; cat /v/root")
	if r.out != "app\n" || r.code == 0 {
		t.Errorf("as another user: %+v", r)
	}
	if uid, gid := owner(t, filepath.Join(dir, "apps")); uid != 1000 || gid != 1000 {
		t.Errorf("outside: %d:%d", uid, gid)
	}
	r = w.do("run", "--rm", "-v", dir+":/v:ro", "box", "sh", "-c", "mount -o remount,rw /v; touch /v/x")
	if r.code == 0 || !strings.Contains(r.err, "Read-only file system") {
		t.Errorf("read-only: %+v", r)
	}
}

// TestRanges runs two workloads: their processes and files have other IDs than
// each other's and the host's.
func TestRanges(t *testing.T) {
	w := newWorld(t)
	bases := map[string]bool{}
	for _, name := range []string{"one", "two"} {
		w.start(name, "-u", "app", "box", "sh", "-c", "touch /tmp/mine; exec sleep 1000")
		pid, base := w.pid(name, "Pid"), w.inspect(name, ".Host.IDBase")
		bases[base] = true
		n, err := strconv.ParseUint(base, 10, 32)
		if err != nil || n < 65536 {
			t.Fatalf("range at %q", base)
		}
		if uid, _ := owner(t, fmt.Sprintf("/proc/%d", pid)); uint64(uid) != n+1000 {
			t.Errorf("%s: the host sees user %d, want %d", name, uid, n+1000)
		}
		path := filepath.Join(w.inspect(name, ".Host.Upper"), "tmp/mine")
		w.await("the file", func() bool { _, err := os.Lstat(path); return err == nil })
		if uid, gid := owner(t, path); uint64(uid) != n+1000 || uint64(gid) != n+1000 {
			t.Errorf("%s: on disk %d:%d, want %d", name, uid, gid, n+1000)
		}
		if got := w.inspect(name, ".Weakenings"); got != "[]" {
			t.Errorf("weakenings: %s", got)
		}
	}
	if len(bases) != 2 {
		t.Errorf("ranges: %v", bases)
	}
}

// TestRootInside tries what root of the host could do.
func TestRootInside(t *testing.T) {
	w := newWorld(t)
	w.start("in", "box", "sleep", "1000")
	for _, script := range []string{
		"mount -t tmpfs none /tmp", "umount /proc/kcore", "mknod /tmp/disk b 254 0", "chroot / true",
		"echo 1 >/proc/sys/vm/drop_caches", "echo b >/proc/sysrq-trigger", "hostname other",
		"echo 1 >/proc/self/oom_score_adj && echo -500 >/proc/self/oom_score_adj",
		"mkdir /sys/fs/cgroup/pids/x", "dmesg", "unshare -U true", "cat /proc/kcore", "ip link add x type dummy",
		"nice -n -5 true",
	} {
		r := w.do("exec", "in", "sh", "-c", "{ "+script+"; } 2>&1")
		if strings.HasPrefix(script, "chroot") || strings.HasPrefix(script, "cat") {
			continue // allowed, or empty: what matters is that the output tells nothing
		}
		if r.code == 0 {
			t.Errorf("%s: %+v", script, r)
		}
	}
	if r := w.do("exec", "in", "sh", "-c", "head -c 1 /proc/kcore | wc -c"); strings.TrimSpace(r.out) != "0" {
		t.Errorf("kcore: %+v", r)
	}
}

// TestUsernsHost is a weakening that inspect tells.
func TestUsernsHost(t *testing.T) {
	w := newWorld(t)
	w.start("weak", "--userns", "host", "box", "sleep", "1000")
	if uid, _ := owner(t, fmt.Sprintf("/proc/%d", w.pid("weak", "Pid"))); uid != 0 {
		t.Errorf("the host sees user %d", uid)
	}
	if got := w.inspect("weak", "range .Weakenings}}{{.flag}}{{end"); got != "--userns host" {
		t.Errorf("weakenings: %q", got)
	}
}
