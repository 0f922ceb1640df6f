package container

import (
	"context"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// TestDumpableAfterEveryChangeOfUser: where fs.suid_dumpable is 1, a process
// that changes its IDs becomes readable for others of the same ID, and so
// does its program's file (CVE-2019-5736). Every child clears the flag after
// its last change, before it forks, waits or executes.
func TestDumpableAfterEveryChangeOfUser(t *testing.T) {
	check := func(t *testing.T, p *launch.Program) {
		t.Helper()
		for _, actor := range []string{"stage", "init"} {
			open, cleared := false, false
			for line := range strings.Lines(p.String()) {
				rest, ok := strings.CutPrefix(line, actor+" ")
				if !ok {
					continue
				}
				call := strings.TrimSpace(rest)
				switch {
				case strings.HasPrefix(call, "setresuid("), strings.HasPrefix(call, "setresgid("), strings.HasPrefix(call, "unshare(CLONE_NEWUSER"):
					open = true
				case strings.HasPrefix(call, "prctl(PR_SET_DUMPABLE, 0"):
					open, cleared = false, true
				case open && (strings.HasPrefix(call, "clone(") || strings.HasPrefix(call, "execve(")):
					t.Errorf("%s may be dumpable at %s", actor, call)
				}
			}
			if !cleared {
				t.Errorf("%s never clears the flag", actor)
			}
		}
	}
	root := busybox(t)
	user := specs.User{UID: 1000, GID: 1000}
	cfg := Config{ID: "dumpable", Dir: t.TempDir(), Spec: testSpec("sleep", "60"), Layers: layersOf(t, root, testBase)}
	cfg.Spec.Process.User = user
	ctx := context.Background()
	f, err := readFacts()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlanner(&cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	c := &Container{dir: cfg.Dir, pidfd: -1}
	if err := c.create(ctx, &cfg, p); err != nil {
		t.Fatal(err)
	}
	defer c.Delete(ctx)
	check(t, p.prog)
	process := testSpec("true").Process
	process.User = user
	e := &execPlanner{cfg: &ExecConfig{Process: process}, facts: execFacts(), c: c, prog: launch.New("exec")}
	defer e.release()
	if err := e.plan(); err != nil {
		t.Fatal(err)
	}
	defer e.prog.Close()
	check(t, e.prog)
}
