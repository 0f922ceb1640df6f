package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostUser leaves the container in the host's user namespace.
func hostUser(t *testing.T) func(*Config) {
	return func(c *Config) {
		c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = nil, nil
		c.Spec.Linux.Namespaces = c.Spec.Linux.Namespaces[:6]
		c.Layers = layersOf(t, c.Layers.Lower[0], 0)
	}
}

// TestMaskKeepsHostNull: a mask over a file is the host's null device. Without
// a user namespace, root inside may change mode and owner of whatever it owns.
func TestMaskKeepsHostNull(t *testing.T) {
	out, exit := run(t, hostUser(t), "sh", "-c", `for f in keys timer_list; do
		busybox chmod 666 /proc/$f && echo changed $f
		chown 0:0 /proc/$f && echo owned $f
		echo x > /proc/$f || echo cannot write $f
		test -z "$(cat /proc/$f)" || echo not empty $f
	done; true`)
	if exit.Code != 0 || strings.Contains(out, "changed") || strings.Contains(out, "owned") ||
		strings.Contains(out, "cannot write") || strings.Contains(out, "not empty") {
		t.Errorf("exit %+v, output %q: the mask is to be a null device that cannot be changed", exit, out)
	}
}

// TestReservedID: setresuid(-1) changes nothing, and the process would be root.
func TestReservedID(t *testing.T) {
	const none = 1<<32 - 1
	for name, u := range map[string]specs.User{
		"user":          {UID: none},
		"group":         {GID: none},
		"another group": {AdditionalGids: []uint32{1, none}},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := tryRun(t, func(c *Config) {
				hostUser(t)(c)
				c.Spec.Process.User = u
			}, "id")
			if err == nil || !strings.Contains(err.Error(), "reserved") {
				t.Errorf("got %v, output %q; want the ID refused", err, out)
			}
		})
	}
}

// sleeper starts a process in new namespaces and returns its process ID.
func sleeper(t *testing.T, flags uintptr) int {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

func setPath(c *Config, kind specs.LinuxNamespaceType, path string) {
	for i, n := range c.Spec.Linux.Namespaces {
		if n.Type == kind {
			c.Spec.Linux.Namespaces[i].Path = path
		}
	}
}

// TestJoinPreparedNetwork: a network namespace that root made is joined
// together with a user namespace of the container's own.
func TestJoinPreparedNetwork(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	path := fmt.Sprintf("/proc/%d/ns/net", sleeper(t, syscall.CLONE_NEWNET))
	want, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	out, exit := run(t, func(c *Config) { setPath(c, specs.NetworkNamespace, path) }, "readlink", "/proc/self/ns/net")
	if exit.Code != 0 || strings.TrimSpace(out) != want {
		t.Errorf("exit %+v, network namespace %q, want %q", exit, out, want)
	}
}

// TestJoinedHostNamespace: a path to the caller's own namespace does not make
// it one that the container may configure.
func TestJoinedHostNamespace(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"sysctl": func(c *Config) {
			setPath(c, specs.NetworkNamespace, "/proc/self/ns/net")
			c.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "1024"}
		},
		"hostname": func(c *Config) { setPath(c, specs.UTSNamespace, "/proc/self/ns/uts") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{ID: "test", Dir: t.TempDir(), Spec: testSpec("true")}
			change(&cfg)
			if _, err := planNamespaces(cfg.Spec); err == nil || !strings.Contains(err.Error(), "of the container's own") {
				t.Errorf("got %v, want it refused", err)
			}
		})
	}
}

// TestStartOfTheDead: the first process ends between two looks at it.
func TestStartOfTheDead(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{startFIFO, statusFIFO} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := openFD(filepath.Join(dir, startFIFO), unix.O_RDWR) // it still was there
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(reader)
	done := make(chan error, 1)
	go func() { done <- (&Container{dir: dir, pidfd: -1}).Start(context.Background()) }()
	select {
	case err := <-done:
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Error("Start waits for a process that is gone")
	}
}

// TestStartOfTheFrozen: the first process is kept from running its program.
func TestStartOfTheFrozen(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{startFIFO, statusFIFO} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := openFD(filepath.Join(dir, name), unix.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := (&Container{dir: dir, pidfd: -1}).Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the time is up", err)
	}
}

// TestCreateTwice: a second Create in the directory of a container fails and
// leaves the container alone.
func TestCreateTwice(t *testing.T) {
	root := busybox(t)
	ctx := context.Background()
	cfg := Config{ID: "twice", Dir: t.TempDir(), Spec: testSpec("true"), Layers: layersOf(t, root, testBase)}
	c, err := Create(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(ctx)
	if _, err := Create(ctx, cfg); err == nil {
		t.Error("there were two")
	}
	if _, err := Open(cfg.Dir); err != nil {
		t.Error(err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestFailedCreateLeavesNothing in its directory.
func TestFailedCreateLeavesNothing(t *testing.T) {
	var dir string
	_, _, err := tryRun(t, func(c *Config) { dir, c.Spec.Process.Args = c.Dir, []string{"/nonexistent"} })
	if err == nil {
		t.Fatal("it ran")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestProcSubset: a proc without the files that are to be masked.
func TestProcSubset(t *testing.T) {
	out, exit := run(t, func(c *Config) {
		c.Spec.Mounts[0].Options = append(c.Spec.Mounts[0].Options, "subset=pid")
	}, "sh", "-c", "test ! -e /proc/keys && echo hidden")
	if exit.Code != 0 || out != "hidden\n" {
		t.Errorf("exit %+v, output %q", exit, out)
	}
}

// TestStoppedExec: the container stops a process that is about to execute in
// it; whoever asked for it is not held up for ever.
func TestStoppedExec(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() { // the process holds the pipe until it ends
		cmd.Wait()
		w.Close()
	}()
	p := &Process{pid: cmd.Process.Pid, pidfd: fd}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.outcome(ctx, r, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

// TestNullStreamKeepsHostNull: a standard stream that is /dev/null is the
// host's device, whose mode and owner root inside must not change.
func TestNullStreamKeepsHostNull(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, in := range map[string]*os.File{"none": nil, "given": null} {
		t.Run(name, func(t *testing.T) {
			out, exit := run(t, func(c *Config) {
				hostUser(t)(c)
				c.Stdio[0] = in
			}, "sh", "-c", `busybox chmod 666 /proc/self/fd/0 && echo changed
				chown 0:0 /proc/self/fd/0 && echo owned
				cat; echo x > /proc/self/fd/0 && echo written`)
			if exit.Code != 0 || strings.Contains(out, "changed") || strings.Contains(out, "owned") || !strings.Contains(out, "written") {
				t.Errorf("exit %+v, output %q", exit, out)
			}
		})
	}
}

// TestJoinOtherMap: a specification that tells another map than the user namespace has
// would make files belong to other users than those inside.
func TestJoinOtherMap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, GidMappingsEnableSetgroups: true,
		UidMappings: []syscall.SysProcIDMap{{HostID: testBase, Size: 65536}}, GidMappings: []syscall.SysProcIDMap{{HostID: testBase, Size: 65536}}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	file := filepath.Join(t.TempDir(), "userns")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	byNumber := fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
	if err := unix.Mount(byNumber, file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(file, 0)
	for _, path := range []string{byNumber, file} {
		if out, exit := run(t, func(c *Config) { setPath(c, specs.UserNamespace, path) }, "stat", "-c", "%u", "/bin", "/dev/null"); exit.Code != 0 || out != "0\n0\n" {
			t.Errorf("%s, the same map: exit %+v, owners %q", path, exit, out)
		}
		_, _, err := tryRun(t, func(c *Config) {
			setPath(c, specs.UserNamespace, path)
			c.Spec.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: testBase + 65536, Size: 65536}}
		}, "true")
		if err == nil || !strings.Contains(err.Error(), "gidMappings are not those of the user namespace") {
			t.Errorf("%s, another map: got %v, want it refused", path, err)
		}
	}
	unmapped := fmt.Sprintf("/proc/%d/ns/user", sleeper(t, syscall.CLONE_NEWUSER))
	if _, _, err := tryRun(t, func(c *Config) {
		setPath(c, specs.UserNamespace, unmapped)
		c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = nil, nil
	}, "true"); err == nil || !strings.Contains(err.Error(), "has no uidMappings yet") {
		t.Errorf("no map: got %v, want it refused", err)
	}
}
