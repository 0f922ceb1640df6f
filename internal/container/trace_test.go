package container

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch/launchtest"
)

// TestTrace runs a real start and a real exec under strace(1) and compares the
// system calls of every actor with the program: all of them, in order, with
// the arguments that are known, and no other.
func TestTrace(t *testing.T) {
	root := busybox(t)
	dir := t.TempDir()
	trace, programs := filepath.Join(dir, "trace"), filepath.Join(dir, "programs")
	launchtest.Trace(t, trace, "TestTraced", "TRACED_ROOT="+root, "TRACED_PROGRAMS="+programs)
	launchtest.Check(t, trace, programs, 2)
}

// TestTraced is what TestTrace traces.
func TestTraced(t *testing.T) {
	root := os.Getenv("TRACED_ROOT")
	if root == "" {
		t.Skip("runs under TestTrace only")
	}
	ctx := context.Background()
	var told []launchtest.Program
	tell := func(p *launch.Program, stage, status int) { told = append(told, launchtest.Of(p, stage, status)) }
	cfg := Config{ID: "traced", Dir: t.TempDir(), Spec: testSpec("sleep", "30"), Layers: layersOf(t, root, testBase), KillWithParent: true}
	f, err := readFacts()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlanner(&cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	c := &Container{dir: cfg.Dir, pidfd: -1}
	if err := c.create(ctx, &cfg, p); err != nil {
		t.Fatal(err)
	}
	tell(p.prog, c.running.Value(p.stage), c.running.Value(p.status))
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	e := &execPlanner{cfg: &ExecConfig{Process: testSpec("true").Process}, facts: execFacts(), c: c, prog: launch.New("exec")}
	defer e.release()
	if err := e.plan(); err != nil {
		t.Fatal(err)
	}
	r, err := e.prog.Run(ctx, launch.Options{Child: e.first})
	if err != nil {
		t.Fatal(err)
	}
	r.Wait()
	tell(e.prog, r.Value(e.stage), r.Value(e.status))
	if err := c.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	launchtest.Write(t, os.Getenv("TRACED_PROGRAMS"), told...)
}
