package probing

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// tree makes files below a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		f := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestTightest: the lowest limit of all that a process is in counts.
func TestTightest(t *testing.T) {
	const endless = "9223372036854771712"
	v1 := tree(t, map[string]string{
		"pids.max": "max", "a/pids.max": "100", "a/b/pids.max": "max", "a/b/c/pids.max": "200",
		"memory.limit_in_bytes": endless, "a/memory.limit_in_bytes": endless, "a/b/memory.limit_in_bytes": endless, "a/b/c/memory.limit_in_bytes": endless,
		"a/cpu.cfs_quota_us": "-1", "a/cpu.cfs_period_us": "100000", "a/b/cpu.cfs_quota_us": "50000", "a/b/cpu.cfs_period_us": "100000",
		"a/b/c/cpu.cfs_quota_us": "20000", "a/b/c/cpu.cfs_period_us": "10000",
	})
	v2 := tree(t, map[string]string{"x/pids.max": "7", "x/memory.max": "max", "x/cpu.max": "max 100000", "x/y/pids.max": "max", "x/y/memory.max": "4096", "x/y/cpu.max": "1000 2000"})
	one := groups{"pids": {v1, "/a/b/c"}, "memory": {v1, "/a/b/c"}, "cpu": {v1, "/a/b/c"}}
	two := groups{"": {v2, "/x/y"}}
	for _, tt := range []struct {
		name  string
		g     groups
		limit int
		want  string
	}{
		{"v1 pids", one, 0, "100"}, {"v1 memory", one, 1, probe.Unlimited}, {"v1 cpu", one, 2, "50000 100000"},
		{"v2 pids", two, 0, "7"}, {"v2 memory", two, 1, "4096"}, {"v2 cpu", two, 2, "1000 2000"},
	} {
		if got, err := tt.g.tightest(limits[tt.limit]); got != tt.want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	for name, g := range map[string]groups{"no hierarchy": {}, "a cgroup that is gone": {"pids": {v1, "/gone"}}} {
		if got, err := g.tightest(limits[0]); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestParseGroups(t *testing.T) {
	layout := &cgroup.Layout{V1: []cgroup.Hierarchy{{Name: "cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Mount: "/c"}, {Name: "pids", Controllers: []string{"pids"}, Mount: "/p"}}, V2: "/u"}
	got, err := parseGroups("4:pids:/a\n3:cpuacct,cpu:/b\n1:name=systemd:/s\n0::/x:y\n", layout)
	if err != nil || len(got) != 4 || got["pids"] != (place{"/p", "/a"}) || got["cpu"] != (place{"/c", "/b"}) || got[""] != (place{"/u", "/x:y"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"4:pids:/../a\n", "4:pids\n", "4:pids:a\n", "4:pids:/a/../../b\n", "4:pids:/a/..\n"} {
		if got, err := parseGroups(text, layout); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

// FuzzGroups: a text is refused, or every place is a path below a mount of the layout, for
// a controller that the text names.
func FuzzGroups(f *testing.F) {
	f.Add("4:pids:/a\n3:cpuacct,cpu:/b\n1:name=systemd:/s\n0::/x:y\n")
	f.Add("4:pids:/../a\n")
	f.Add("0::/a/../../b\n0::/c")
	f.Add("::\n:,:/\n")
	layout := &cgroup.Layout{V1: []cgroup.Hierarchy{{Name: "cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Mount: "/c"}, {Name: "pids", Controllers: []string{"pids"}, Mount: "/p"}}, V2: "/u"}
	mounts := map[string]string{"": "/u", "cpu": "/c", "cpuacct": "/c", "pids": "/p"}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseGroups(text, layout)
		if err != nil {
			return
		}
		for controller, at := range got {
			if mounts[controller] != at.mount || at.mount == "" {
				t.Errorf("%q is at %+v", controller, at)
			}
			if !strings.Contains(text, ":"+at.path) || !strings.HasPrefix(at.path, "/") {
				t.Errorf("%q has the path %q", controller, at.path)
			}
			for _, part := range strings.Split(at.path, "/") {
				if part == ".." {
					t.Errorf("%q leads out of its mount by %q", controller, at.path)
				}
			}
		}
		if again, err := parseGroups(text, layout); err != nil || !maps.Equal(got, again) {
			t.Errorf("%v, and then %v: %v", got, again, err)
		}
	})
}

// TestPrograms: only the file that was to be started counts, by whatever name.
func TestPrograms(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "runsc")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	dir := tree(t, map[string]string{"w/cgroup.procs": strconv.Itoa(os.Getpid()) + "\n4194304", "gone/cgroup.procs": "4194304", "empty/cgroup.procs": ""})
	for _, tt := range []struct{ path, runtime, want string }{
		{"/w", link, probe.SeenSentry}, {"/w", self, probe.SeenSentry}, {"/w", "/dev/null", self}, {"/gone", self, ""}, {"/empty", self, ""}, {"/w", "/no/such", ""},
	} {
		got, err := groups{"pids": {dir, tt.path}}.programs(tt.runtime)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s with %s: got %q, %v; want %q", tt.path, tt.runtime, got, err, tt.want)
		}
	}
}

// TestOutsideOfThis looks at this test's process as at a workload.
func TestOutsideOfThis(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range outside(os.Getpid(), workload.Spec{Boundary: "gvisor", Runtime: workload.Runtime{Path: "/dev/null"}}) {
		e := o.Calls[0]
		seen[o.Probe] = true
		if e.Value == "" || o.Probe == "kernel.own" && e.Value == probe.SeenSentry {
			t.Errorf("%s: %+v", o.Probe, e)
		}
		if o.Probe == "limits.oom-score" {
			if _, err := strconv.Atoi(e.Value); err != nil || e.Errno != "" {
				t.Errorf("score: %+v", e)
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("got %v", seen)
	}
}
