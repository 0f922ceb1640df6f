package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// stageConfig has a layer with hostile links where mount points are wanted.
func stageConfig(t *testing.T) StageConfig {
	t.Helper()
	dir := t.TempDir()
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	for _, d := range []string{"own", "layers/1/etc", "upper", "work", "volume"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"out": "/../../../etc", "up": "../../../../tmp"} {
		if err := os.Symlink(to, filepath.Join(dir, "layers/1", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "volume", "f"), []byte("of the volume"), 0o644); err != nil {
		t.Fatal(err)
	}
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	bind := func(to string, options ...string) specs.Mount {
		return specs.Mount{Destination: to, Type: "bind", Source: filepath.Join(dir, "volume"), Options: append([]string{"bind", "rprivate"}, options...)}
	}
	return StageConfig{
		Dir: filepath.Join(dir, "own"), UIDs: ids, GIDs: ids, Tree: true,
		Layers: Layers{Lower: []string{filepath.Join(dir, "layers/1")}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			bind("/vol", "ro"), bind("/out/inside", "idmap"), bind("/new/deep/place"), bind("/out/inside/below", "idmap"),
			{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1048576", StagedOption}},
		},
	}
}

// inStage runs a shell in a stage.
func inStage(t *testing.T, s *Stage, script string) string {
	t.Helper()
	type result struct {
		out string
		err error
	}
	done := make(chan result)
	var enter func()
	enter = func() {
		runtime.LockOSThread() // it ends with this
		if syscall.Gettid() == syscall.Getpid() {
			defer runtime.UnlockOSThread() // but for the main thread, which does not end
			go enter()
			<-t.Context().Done()
			return
		}
		if err := s.Enter(); err != nil {
			done <- result{"", err}
			return
		}
		out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput()
		done <- result{string(out), err}
	}
	go enter()
	r := <-done
	if r.err != nil {
		t.Errorf("%s: %v: %s", script, r.err, r.out)
	}
	return r.out
}

func TestStage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cfg := stageConfig(t)
	leakcheck.Check(t, leakcheck.Options{})
	s, err := MakeStage(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for script, want := range map[string]string{
		"cat /run/tree/vol/f":                                  "of the volume",
		"cat /run/tree/etc/inside/f":                           "of the volume", // a link of the image ends in it
		"cat /run/tree/new/deep/place/f":                       "of the volume",
		"stat -c %u /run/tree/new /run/tree/etc/inside/f":      "100000\n100000\n",
		"stat -c %u /run/mounts/1/below":                       "100000\n",
		"cat /run/tree/etc/inside/below/f":                     "of the volume",
		"stat -c %u:%a /run/tree/scratch":                      "100000:1777\n",
		"echo x 2>&1 > /run/tree/vol/g; ls /run/tree/vol":      "below\nf\n",
		"touch /run/tree/new/written && ls /run/root/new":      "deep\nwritten\n",
		"stat -f -c %T /run/tree/proc":                         "devpts\n",
		"ls /run/root/vol":                                     "",
		"ls -d /run/mounts/* | wc -l | tr -d ' '":              "5\n",
		"touch /run/tree/proc/x 2>/dev/null || echo refused":   "refused\n",
		"cat /run/mounts/0/f && touch /run/mounts/0/g || true": "",
	} {
		got := inStage(t, s, script)
		if want != "" && !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	for _, m := range s.Mounts[1:] {
		if m.Type != "bind" || !strings.HasPrefix(m.Source, "/run/mounts/") {
			t.Errorf("got %+v", m)
		}
	}
	if _, err := os.Stat("/etc/inside"); err == nil {
		t.Error("a mount point was made on the host")
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), cfg.Dir) {
		t.Errorf("on the host's own mounts, %v:\n%s", err, table)
	}
}

// TestStageReadOnlyTree wants the tree's root to be read-only as the workload's is,
// what is mounted in it as its own options say, and the root of the stage writable.
func TestStageReadOnlyTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cfg := stageConfig(t)
	cfg.ReadOnly = true
	s, err := MakeStage(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for script, want := range map[string]string{
		"touch /run/tree/etc/x 2>&1 || true":                   "Read-only file system\n",
		"touch /run/tree/new/deep/place/x && echo written":     "written\n",
		"touch /run/tree/scratch/x && echo written":            "written\n",
		"touch /run/root/etc/of-the-stage && ls /run/tree/etc": "of-the-stage\n",
	} {
		if got := inStage(t, s, script); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
}

func TestStageRefuses(t *testing.T) {
	cfg := stageConfig(t)
	for _, tt := range []struct {
		name   string
		change func(*StageConfig)
		want   string
	}{
		{"no layers", func(c *StageConfig) { c.Layers.Lower = nil }, "no layers"},
		{"shared", func(c *StageConfig) { c.Mounts[1].Options = []string{"bind", "rshared"} }, "private only"},
		{"missing", func(c *StageConfig) { c.Mounts[1].Source = "/no/such/place" }, "no such file"},
		{"read-only", func(c *StageConfig) {
			c.Mounts = append(c.Mounts, specs.Mount{Destination: "/vol/missing", Type: "bind", Source: c.Mounts[1].Source, Options: []string{"bind"}})
		}, "/vol/missing does not exist in the volume at /vol, which is read-only"},
		{"many", func(c *StageConfig) { c.Mounts = make([]specs.Mount, maxListed+1) }, "at most"},
	} {
		c := cfg
		c.Mounts = append([]specs.Mount(nil), cfg.Mounts...)
		c.Dir = t.TempDir()
		tt.change(&c)
		s, err := MakeStage(t.Context(), c)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// TestStageBelow wants each mount below a volume named by itself, parents first, with
// what restricts it, and none that another covers.
func TestStageBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cfg := stageConfig(t)
	cfg.Tree, cfg.Below = false, true
	link := filepath.Join(t.TempDir(), "link") // the kernel's table of mounts has no links
	if err := os.Symlink(filepath.Dir(cfg.Dir), link); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = filepath.Join(link, filepath.Base(cfg.Dir))
	volume, other := cfg.Mounts[1].Source, t.TempDir()
	at := func(name string) string { return filepath.Join(volume, name) }
	for _, dir := range []string{at("sub"), at("covered/deep"), filepath.Join(other, "a b"), filepath.Join(other, "deep")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(source, target string, flags uintptr) {
		if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(target, syscall.MNT_DETACH) })
		if flags == 0 {
			return
		}
		if err := syscall.Mount("", target, "", syscall.MS_REMOUNT|syscall.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	mount(other, at("sub"), 0)
	mount(other, at("sub/a b"), syscall.MS_NOEXEC|syscall.MS_RDONLY)
	mount(at("f"), at("f"), 0)
	mount(other, at("covered/deep"), 0)
	mount(other, at("covered"), 0)
	cfg.Mounts = []specs.Mount{
		{Destination: "/vol", Type: "bind", Source: volume, Options: []string{"rbind", "rprivate"}},
		{Destination: "/vol/sub", Type: "bind", Source: other, Options: []string{"bind"}},
		{Destination: "/alone", Type: "bind", Source: volume, Options: []string{"bind"}},
	}
	s, err := MakeStage(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []string
	for _, m := range s.Mounts {
		got = append(got, m.Destination+" from "+m.Source+" "+strings.Join(m.Options, ","))
	}
	want := []string{
		"/vol from /run/mounts/0 rbind,rprivate",
		"/vol/covered from /run/mounts/0/covered rbind,rprivate",
		"/vol/f from /run/mounts/0/f rbind,rprivate",
		"/vol/sub from /run/mounts/0/sub rbind,rprivate",
		"/vol/sub/a b from /run/mounts/0/sub/a b rbind,rprivate,ro,noexec",
		"/vol/sub from /run/mounts/1 rbind,rprivate",
		"/alone from /run/mounts/2 rbind,rprivate",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
