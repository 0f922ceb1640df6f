package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const testBase = 0x20000000

// busybox makes a root file system with a static busybox for every applet.
func busybox(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	src, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (Debian package busybox-static)")
	}
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", string(b), 0o755)
	write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", 0o644)
	write("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n", 0o644)
	for _, a := range strings.Fields("sh cat ls id echo true false sleep mount umount hostname ip ps stat test env pwd grep mkdir touch chown ulimit dmesg tty stty unshare mknod kill readlink head wc") {
		os.Symlink("busybox", filepath.Join(dir, "bin", a))
	}
	return dir
}

// layersOf makes an overlay of one layer.
func layersOf(t testing.TB, root string, base int) *Layers {
	dir := t.TempDir()
	l := &Layers{Lower: []string{root}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{l.Upper, l.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, base, base); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// testSpec is a hardened container that runs args.
func testSpec(args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "cell",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			UIDMappings:   []specs.LinuxIDMapping{{HostID: testBase, Size: 65536}},
			GIDMappings:   []specs.LinuxIDMapping{{HostID: testBase, Size: 65536}},
			Namespaces:    []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "cgroup"}, {Type: "user"}},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// run creates and starts a container and returns what it printed and its exit.
func run(t *testing.T, change func(*Config), args ...string) (string, workload.Exit) {
	t.Helper()
	out, exit, err := tryRun(t, change, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out, exit
}

func tryRun(t *testing.T, change func(*Config), args ...string) (string, workload.Exit, error) {
	t.Helper()
	root := busybox(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cfg := Config{ID: "test", Dir: t.TempDir(), Spec: testSpec(args...), Layers: layersOf(t, root, testBase)}
	cfg.Stdio = [3]*os.File{nil, w, w}
	if change != nil {
		change(&cfg)
	}
	var text strings.Builder
	if os.Getenv("SHOW_PROGRAM") != "" {
		if err := WriteProgram(&text, cfg); err != nil {
			t.Log(err)
		}
		t.Log("\n" + text.String())
	}
	c, err := Create(context.Background(), cfg)
	w.Close()
	if err != nil {
		return "", workload.Exit{}, err
	}
	defer c.Close()
	if err := c.Start(context.Background()); err != nil {
		c.Wait(context.Background())
		return "", workload.Exit{}, err
	}
	out, _ := io.ReadAll(r)
	exit, err := c.Wait(context.Background())
	return string(out), exit, err
}

func TestCreate(t *testing.T) {
	out, exit := run(t, nil, "sh", "-c", `id -u; hostname; cat /proc/self/uid_map; ls /dev; mount; ip a; cat /proc/self/status | grep -i -e cap -e nonew; exit 3`)
	if exit.Code != 3 {
		t.Fatalf("exit %+v\n%s", exit, out)
	}
	t.Log(out)
}

func TestUserByName(t *testing.T) {
	out, _ := run(t, func(c *Config) { c.User = "user" }, "id")
	if want := "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)\n"; out != want && !strings.Contains(out, "2000(extra)") {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestProgramNotFound(t *testing.T) {
	_, _, err := tryRun(t, nil, "nothing-like-this")
	if !errors.Is(err, workload.ErrCommandNotFound) {
		t.Errorf("got %v, want ErrCommandNotFound", err)
	}
	_, _, err = tryRun(t, nil, "/etc/passwd")
	if !errors.Is(err, workload.ErrNotExecutable) {
		t.Errorf("got %v, want ErrNotExecutable", err)
	}
}

func TestMountsAreLocked(t *testing.T) {
	out, _ := run(t, func(c *Config) {
		all := KnownCapabilities()
		c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	}, "sh", "-c", `umount /proc/kcore; mount -o remount,rw,bind /proc/sys; mkdir /tmp/p; mount -t proc proc /tmp/p; echo 1 >/proc/sys/kernel/sysrq; umount /dev/pts; mount -o remount,bind,dev /; echo done`)
	if strings.Count(out, "\n") < 6 || !strings.HasSuffix(out, "done\n") {
		t.Errorf("something was permitted:\n%s", out)
	}
}

func TestOldKernelWays(t *testing.T) {
	root := busybox(t)
	var buf bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cfg := Config{ID: "old", Dir: t.TempDir(), Spec: testSpec("sh", "-c", "cat /proc/self/status | grep ^Pid; mount | grep ' / '; touch /x && stat -c %u /x"), Layers: layersOf(t, root, testBase)}
	cfg.Stdio = [3]*os.File{nil, w, w}
	f, err := readFacts()
	if err != nil {
		t.Fatal(err)
	}
	f.overlayFDs, f.procPidns = false, false
	p, err := newPlanner(&cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	c := &Container{dir: cfg.Dir, pidfd: -1}
	if err := c.create(context.Background(), &cfg, p); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer c.Close()
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	io.Copy(&buf, r)
	c.Wait(context.Background())
	t.Log(buf.String())
	if !strings.Contains(buf.String(), "Pid:\t") || !strings.Contains(buf.String(), "overlay") || !strings.HasSuffix(buf.String(), "0\n") {
		t.Errorf("got %q", buf.String())
	}
}

// started starts a container, which is deleted when the test ends.
func started(t *testing.T, cfg Config) *Container {
	t.Helper()
	c, err := Create(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Delete(context.Background()) })
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExec(t *testing.T) {
	root := busybox(t)
	cfg := Config{ID: "exec", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)}
	ctx := context.Background()
	c := started(t, cfg)
	if _, err := c.Exec(ctx, ExecConfig{Process: testSpec("nothing").Process}); !errors.Is(err, workload.ErrCommandNotFound) {
		t.Errorf("got %v, want ErrCommandNotFound", err)
	}
	again, err := Open(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := again.Exec(ctx, ExecConfig{Process: testSpec("sh", "-c", "id -u; hostname; grep Cap /proc/self/status; ls -l /proc/self/fd; exit 5").Process, Stdio: [3]*os.File{nil, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, _ := io.ReadAll(r)
	exit, err := p.Wait(ctx)
	p.Close()
	if err != nil || exit.Code != 5 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	t.Logf("%s", out)
	if !strings.HasPrefix(string(out), "0\ncell\n") {
		t.Errorf("got %q", out)
	}
	spec := testSpec("sh", "-c", "tty; stty size").Process
	spec.Terminal = true
	spec.ConsoleSize = &specs.Box{Height: 33, Width: 44}
	p, err = c.Exec(ctx, ExecConfig{Process: spec})
	if err != nil {
		t.Fatal(err)
	}
	out, _ = io.ReadAll(p.Terminal())
	if exit, err := p.Wait(ctx); err != nil || exit.Code != 0 || !strings.Contains(string(out), "33 44") {
		t.Errorf("exit %+v, %v: %q", exit, err, out)
	}
	p.Terminal().Close()
	p.Close()
}

func TestTerminal(t *testing.T) {
	root := busybox(t)
	cfg := Config{ID: "tty", Dir: t.TempDir(), Spec: testSpec("sh", "-c", "tty; stty size; ls -l /dev/console; echo hi >/dev/console; exit 4"), Layers: layersOf(t, root, testBase)}
	cfg.Spec.Process.Terminal = true
	cfg.Spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 44}
	c, err := Create(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(context.Background())
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(c.Terminal)
	exit, err := c.Wait(context.Background())
	if err != nil || exit.Code != 4 || !strings.Contains(string(out), "/dev/pts/0") || !strings.Contains(string(out), "33 44") || !strings.Contains(string(out), "hi") {
		t.Errorf("exit %+v, %v: %q", exit, err, out)
	}
}
