package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
)

// TestExecBesideNestedCgroups: an init system inside has moved itself into a
// cgroup below the container's and enabled a controller for it. The container's
// own cgroup takes no processes then (EBUSY); exec goes where the first process
// is.
func TestExecBesideNestedCgroups(t *testing.T) {
	root := busybox(t)
	ctx := context.Background()
	m, err := cgroup.New(fmt.Sprintf("/bulkhead-exec-test-%d", os.Getpid()), &specs.LinuxResources{}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Destroy(ctx); err != nil {
			t.Error(err)
		}
	}()
	own := m.Paths()[""]
	if own == "" {
		t.Skip("needs cgroup v2")
	}
	above := filepath.Dir(own)
	controllers, err := os.ReadFile(filepath.Join(above, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(controllers))
	if len(list) == 0 {
		t.Skip("needs a controller of cgroup v2")
	}
	// Nobody may have needed it yet.
	if err := os.WriteFile(filepath.Join(above, "cgroup.subtree_control"), []byte("+"+list[0]), 0); err != nil {
		t.Fatal(err)
	}
	c, err := Create(ctx, Config{ID: "nested", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase), Cgroup: m})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(ctx)
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(own, "init.scope")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(c.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.subtree_control"), []byte("+"+list[0]), 0); err != nil {
		t.Fatal(err)
	}
	p, err := c.Exec(ctx, ExecConfig{Process: testSpec("sleep", "60").Process})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if want := "0::" + m.Path() + "/init.scope\n"; !strings.Contains(string(b), want) {
		t.Errorf("the process is in\n%swant %s", b, want)
	}
}

// TestSignalWhileClosing: signals race with the end of the container. A closed
// descriptor's number may be another file's; run with -race.
func TestSignalWhileClosing(t *testing.T) {
	root := busybox(t)
	ctx := context.Background()
	c, err := Create(ctx, Config{ID: "closing", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if err := c.Signal(0); err != nil {
				if !errors.Is(err, workload.ErrNotRunning) {
					t.Error(err)
				}
				if c.Status() != workload.Exited {
					t.Error("it runs")
				}
				return
			}
			p, err := c.Exec(ctx, ExecConfig{Process: testSpec("true").Process})
			if err == nil {
				p.Wait(ctx)
				p.Close()
			}
		}
	}()
	time.Sleep(20 * time.Millisecond) // into the middle of it, wherever that is
	if err := c.Delete(ctx); err != nil {
		t.Error(err)
	}
	<-done
}

// TestUnconfined: "unconfined", which Docker names where the host has AppArmor, is
// no profile that has to be loaded, for the container and for another process in it.
func TestUnconfined(t *testing.T) {
	cfg := Config{ID: "unconfined", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, busybox(t), testBase)}
	cfg.Spec.Process.ApparmorProfile = "unconfined"
	ctx := context.Background()
	c := started(t, cfg)
	// Without AppArmor the file cannot be read.
	spec := testSpec("sh", "-c", "cat /proc/1/attr/apparmor/current 2>/dev/null || echo unconfined").Process
	spec.ApparmorProfile = "unconfined"
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := c.Exec(ctx, ExecConfig{Process: spec, Stdio: [3]*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := io.ReadAll(r)
	if exit, werr := p.Wait(ctx); err != nil || werr != nil || exit.Code != 0 || strings.TrimSpace(string(out)) != "unconfined" {
		t.Errorf("exit %+v, %v, %v, profile %q", exit, werr, err, out)
	}
}

// TestExecFailureClosesTerminal: a process that does not come to run leaves none of its
// terminal behind.
func TestExecFailureClosesTerminal(t *testing.T) {
	ctx := context.Background()
	root := busybox(t)
	if err := os.WriteFile(filepath.Join(root, "bin/broken"), []byte("\x7fELF, but no more"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := Create(ctx, Config{ID: "terminals", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(ctx)
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection closes files that nobody holds
	spec := testSpec("broken").Process
	spec.Terminal = true
	if _, err := c.Exec(ctx, ExecConfig{Process: spec}); !errors.Is(err, workload.ErrNotExecutable) {
		t.Fatalf("got %v, want ErrNotExecutable", err)
	}
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasSuffix(to, "/ptmx") {
			t.Errorf("%s is %s still", f, to)
		}
	}
}
