package container

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fakeFacts describe a host that looks the same wherever the test runs.
func fakeFacts(t testing.TB) facts {
	dir := t.TempDir()
	for _, name := range []string{"proc/kcore", "proc/keys", "proc/sysrq-trigger", "proc/sys/kernel/x", "proc/bus/x", "proc/acpi/x", "sys/firmware/x", "sys/fs/cgroup/x"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return facts{
		overlayFDs: true, procPidns: true, lastCapability: 40, softFiles: 1024, hardFiles: 4096,
		cgroups: &cgroup.Layout{Mode: cgroup.ModeV2, V2: "/sys/fs/cgroup"},
		host:    func(name string) (dirTree, error) { return openTree(filepath.Join(dir, name)) },
	}
}

// TestGolden compares programs with testdata/*.golden. Run it with -update
// after a change, and read the difference: it is the change of the isolation.
func TestGolden(t *testing.T) {
	for name, change := range map[string]func(*Config, *facts){
		"create": func(*Config, *facts) {},
		"create-linux-6.1": func(_ *Config, f *facts) {
			f.overlayFDs, f.procPidns = false, false
			f.cgroups = &cgroup.Layout{Mode: cgroup.ModeHybrid, V2: "/sys/fs/cgroup/unified", V1: []cgroup.Hierarchy{
				{Name: "cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Mount: "/sys/fs/cgroup/cpu,cpuacct"},
				{Name: "name=systemd", Mount: "/sys/fs/cgroup/systemd"},
			}}
		},
		"create-host-user": func(c *Config, _ *facts) {
			c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = nil, nil
			c.Spec.Linux.Namespaces = c.Spec.Linux.Namespaces[:6]
		},
		"create-terminal": func(c *Config, f *facts) {
			c.Spec.Process.Terminal = true
			c.Spec.Process.NoNewPrivileges = false
			c.Spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{2000}}
			c.Spec.Root.Readonly = true
			c.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"reboot"}, Action: specs.ActErrno}}}
			f.ignored = []unix.Signal{unix.SIGHUP}
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := busybox(t)
			cfg := Config{ID: "golden", Dir: "/run/bulkhead/golden", Spec: testSpec("sh", "-c", "true"), Layers: layersOf(t, root, testBase), KillWithParent: true}
			f := fakeFacts(t)
			change(&cfg, &f)
			p, err := newPlanner(&cfg, f)
			if err != nil {
				t.Fatal(err)
			}
			defer p.release()
			p.dry = true
			if err := p.plan(pipes{-1, -1, -1, -1, 0}); err != nil {
				t.Fatal(err)
			}
			golden(t, name, p.prog, root, cfg.Layers)
		})
	}
}

func TestGoldenExec(t *testing.T) {
	root := busybox(t)
	cfg := Config{ID: "golden", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)}
	c := started(t, cfg)
	f := fakeFacts(t)
	p := &execPlanner{cfg: &ExecConfig{Process: testSpec("id").Process, User: "user"}, facts: f, c: c, prog: launch.New("exec")}
	defer p.release()
	defer p.prog.Close()
	if err := p.plan(); err != nil {
		t.Fatal(err)
	}
	golden(t, "exec", p.prog, root, cfg.Layers)
}

func golden(t *testing.T, name string, p *launch.Program, root string, l *Layers) {
	t.Helper()
	got := strings.NewReplacer(root+"\"", "/store/layer\"", filepath.Dir(l.Upper), "/workload").Replace(p.String())
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the program changed (-want +got):\n%s", diff)
	}
}
