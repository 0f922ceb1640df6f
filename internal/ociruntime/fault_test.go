package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/orphan"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// testCgroup is above the cgroups of this test process.
var testCgroup = fmt.Sprintf("/bulkhead-ociruntime-test-%d", os.Getpid())

// fake writes a runtime: a shell script that has the words after the flags in $@,
// and whose create makes a container that sleeps, unless the test says otherwise.
func fake(t *testing.T, cases string) Runtime {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fake")
	script := `#!/bin/sh
log=$4
shift 6
say() { printf '{"level":"error","msg":"%s"}' "$1" >> "$log"; exit 1; }
sleeper() { sleep 1000 & echo $! > /run/pid; }
case $1 in
` + cases + `
create) sleeper ;;
esac
`
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return Runtime{Boundary: "runtime", Name: "fake", Program: program}
}

// prepare makes what the engine would.
func prepare(t *testing.T) (workload.Spec, boundary.Prepared) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := workload.Spec{ID: workload.NewID(), Hostname: "h", Network: "none", Process: workload.Process{Args: []string{"/bin/true"}, Cwd: "/"}}
	dir := t.TempDir()
	p := boundary.Prepared{
		Dir: filepath.Join(dir, "run"), Layers: []string{filepath.Join(dir, "layers", "1")},
		Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Cgroup: testCgroup + "/" + string(s.ID),
	}
	ids := boundarytest.IDs(t)
	p.IDBase, p.IDCount = ids.IDBase, ids.IDCount
	for _, d := range []string{p.Dir, p.Layers[0], p.Upper, p.Work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	boundarytest.RemoveCgroup(t, testCgroup)
	return s, p
}

// warm opens what is opened once and kept, so that it is no leak.
func warm(t *testing.T) {
	t.Helper()
	s, p := prepare(t)
	i, err := fake(t, "").Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestCreateFaults: whatever a runtime does wrong is an error that says so, and
// nothing of it is left.
func TestCreateFaults(t *testing.T) {
	warm(t)
	for _, tt := range []struct{ name, script, want string }{
		{"says why", `create) say 'no \u001b[31mluck' ;;`, `runtime fake: create: no  [31mluck`},
		{"says nothing", `create) exit 3 ;;`, "runtime fake: create: exit status 3"},
		{"garbage for a log", `create) printf '{"level":"error","msg":["x"' > "$log"; exit 3 ;;`, "exit status 3"},
		{"a long log", `create) head -c 1000000 /dev/zero > "$log"; say late ;;`, "exit status 1"},
		{"is killed", `create) kill -KILL $$ ;;`, "signal: killed"},
		{"leaves a process and is killed", `create) sleeper; kill -KILL $$ ;;`, "signal: killed"},
		{"no process ID", `create) : ;;`, "wrote no process ID"},
		{"garbage for a process ID", `create) echo 12x > /run/pid ;;`, `wrote "12x" for a process ID`},
		{"endless process ID", `create) head -c 100000 /dev/zero > /run/pid ;;`, "for a process ID"},
		{"somebody else's process", `create) echo 1 > /run/pid ;;`, "not a child of this process"},
		{"its own process, which has ended", `create) echo $$ > /run/pid ;;`, "not a child of this process"},
		{"hangs", `create) sleep 1000 ;;`, "runtime fake: create has not ended after 500ms"},
		{"hangs and leaves a process", `create) sleeper; sleep 1000 ;;`, "has not ended after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, p := prepare(t)
			r := fake(t, tt.script)
			if strings.Contains(tt.want, "not ended") {
				r.Timeout = 500 * time.Millisecond
			}
			leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}})
			i, err := r.Create(t.Context(), s, p)
			if err == nil {
				i.Delete(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left, _ := os.ReadDir(p.Dir); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestStartFaults(t *testing.T) {
	warm(t)
	for _, tt := range []struct {
		name, script, want string
		kind               error
	}{
		{"not found", `start) say 'starting sandbox: failed to load /bin/true: no such file or directory' ;;`, `exec "/bin/true": `, workload.ErrCommandNotFound},
		{"not executable", `start) say 'exec: \"/bin/true\": permission denied' ;;`, `exec "/bin/true": `, workload.ErrNotExecutable},
		{"on noexec", `start) say 'unable to start container process: eaccess /bin/true: permission denied' ;;`, `exec "/bin/true": `, workload.ErrNotExecutable},
		{"of another file", `start) say 'open /etc/passwd: no such file or directory' ;;`, "open /etc/passwd", nil},
		{"hangs", `start) sleep 1000 ;;`, "start has not ended after", nil},
		{"dies", `start) kill -SEGV $$ ;;`, "signal: segmentation fault", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, p := prepare(t)
			r := fake(t, tt.script)
			if tt.name == "hangs" {
				r.Timeout = 500 * time.Millisecond
			}
			leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}})
			i, err := r.Create(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			defer i.Delete(context.Background())
			err = i.Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.kind == nil && (errors.Is(err, workload.ErrCommandNotFound) || errors.Is(err, workload.ErrNotExecutable)) {
				t.Errorf("%v is taken for one about the program", err)
			}
		})
	}
}

// TestHangingKill: a runtime that does not come back holds up neither SIGKILL nor
// Delete.
func TestHangingKill(t *testing.T) {
	warm(t)
	s, p := prepare(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}})
	i, err := fake(t, `kill) sleep 1000 ;;`).Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error)
	go func() { asked <- i.Signal(context.Background(), syscall.SIGTERM) }()
	if err := i.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if e, err := i.Wait(t.Context()); err != nil || e.Code != 137 || e.Signal != int(syscall.SIGKILL) {
		t.Errorf("got %+v, %v", e, err)
	}
	if err := i.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-asked; !errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("the command that hung: got %v", err)
	}
}

// TestPaused: no command is started into a frozen cgroup, which would hold up its
// parent; a signal waits.
func TestPaused(t *testing.T) {
	warm(t)
	s, p := prepare(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}})
	i, err := fake(t, `kill) kill -$3 $(cat /run/pid) ;;`).Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Delete(context.Background())
	pauser := i.(boundary.Pauser)
	if err := pauser.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Exec(t.Context(), s.Process, boundary.Stdio{}); !errors.Is(err, errPaused) {
		t.Errorf("exec: got %v", err)
	}
	if err := i.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := pauser.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, err := i.Wait(t.Context()); err != nil || e.Signal != int(syscall.SIGTERM) {
		t.Errorf("got %+v, %v", e, err)
	}
}

// TestExecCutOff: a runtime that is ended in the middle of an exec, or ends itself,
// leaves no process that nobody knows of, and those of others alone.
func TestExecCutOff(t *testing.T) {
	warm(t)
	dir := t.TempDir()
	for name, script := range map[string]string{
		"recorded":       `sleep 1000 & echo $! > $6; echo $! > ` + dir + `/pid; sleep 1000`,
		"not yet":        `sleep 1000 & echo $! > ` + dir + `/pid; sleep 1000`,
		"killed":         `sleep 1000 & echo $! > $6; echo $! > ` + dir + `/pid; kill -KILL $$`,
		"no ID":          `sleep 1000 & echo $! > ` + dir + `/pid`,
		"somebody's":     `sleep 1000 & echo 1 > $6; echo $! > ` + dir + `/pid`,
		"says it failed": `sleep 1000 & echo $! > ` + dir + `/pid; say sorry`,
	} {
		t.Run(name, func(t *testing.T) {
			s, p := prepare(t)
			leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}})
			good := filepath.Join(t.TempDir(), "good")
			if err := os.WriteFile(good, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r := fake(t, `exec) if [ -e `+good+` ]; then sleep 1000 & echo $! > $6; exit 0; fi; `+script+` ;;`)
			made, err := r.Create(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			defer made.Delete(context.Background())
			other, err := made.Exec(t.Context(), s.Process, boundary.Stdio{})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(good); err != nil {
				t.Fatal(err)
			}
			i := made.(*instance)
			i.runtime.Timeout = 2 * time.Second
			if _, err := made.Exec(t.Context(), s.Process, boundary.Stdio{}); err == nil {
				t.Fatal("no error")
			}
			b, err := os.ReadFile(filepath.Join(dir, "pid"))
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				t.Fatal(err)
			}
			i.mu.Lock()
			var stray *orphan.Process
			for _, o := range i.others {
				if o.Pid() == pid {
					stray = o
				}
			}
			i.mu.Unlock()
			if stray == nil {
				t.Fatalf("process %d is not known any more", pid)
			}
			<-stray.Ended()
			if err := other.Signal(t.Context(), 0); err != nil {
				t.Errorf("another process: %v", err)
			}
			if err := made.Signal(t.Context(), 0); err != nil {
				t.Errorf("the first process: %v", err)
			}
		})
	}
}

func TestNoTerminal(t *testing.T) {
	warm(t)
	s, p := prepare(t)
	s.Process.Terminal = true
	r := fake(t, "")
	r.Timeout = time.Second
	_, err := r.Create(t.Context(), s, p)
	if !errors.Is(err, errNoTerminal) {
		t.Errorf("got %v", err)
	}
}

func TestVersion(t *testing.T) {
	dir := t.TempDir()
	write := func(name, script string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct{ path, want, fails string }{
		{write("good", "echo runc version 1.1.5; echo more", 0o755), "runc version 1.1.5", ""},
		{write("silent", "", 0o755), "", "prints nothing"},
		{write("broken", "echo no >&2; exit 1", 0o755), "", "exit status 1: no"},
		{write("flood", "yes | head -c 10000000; exit 1", 0o755), "", "exit status 1: y"},
		{write("file", "", 0o644), "", "not an executable file"},
		{dir, "", "not an executable file"},
		{"/no/such/runtime", "", "no such file"},
		{"runc", "", "want an absolute path"},
	} {
		got, err := Runtime{Program: tt.path}.Version(t.Context())
		if got != tt.want || (err == nil) != (tt.fails == "") || err != nil && (!strings.Contains(err.Error(), tt.fails) || !errors.Is(err, workload.ErrUnsupported)) {
			t.Errorf("%s: got %q, %v", tt.path, got, err)
		}
	}
	_, err := Runtime{Program: write("hangs", "sleep 1000", 0o755), Timeout: 100 * time.Millisecond}.Version(t.Context())
	if err == nil || !strings.Contains(err.Error(), "has not ended") {
		t.Errorf("hangs: got %v", err)
	}
}

func TestExit(t *testing.T) {
	for _, tt := range []struct {
		ws           syscall.WaitStatus
		sentry       bool
		code, signal int
	}{
		{7 << 8, false, 7, 0}, {9, false, 137, 9}, {137 << 8, false, 137, 0},
		{7 << 8, true, 7, 0}, {9, true, 137, 9}, {137 << 8, true, 137, 9}, {143 << 8, true, 143, 15}, {128 << 8, true, 128, 0}, {255 << 8, true, 255, 0},
	} {
		if e := (Runtime{Sentry: tt.sentry}).exit(tt.ws); e.Code != tt.code || e.Signal != tt.signal {
			t.Errorf("%#x, sentry %v: got %+v", tt.ws, tt.sentry, e)
		}
	}
}

func FuzzDump(f *testing.F) {
	f.Add([]byte("PROCFS DUMP\n\n" + `{"args":["/bin/x","y"],"clone_ts":1,"status":{"comm":"x","pid":1,"ppid":0,"vm_rss":5},"stat":{"pgid":1}}{"status":{"pid":2}}`))
	f.Add([]byte(`{"status":{"pid":-1}}`))
	f.Add([]byte("nothing"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseDump(text)
		if err != nil && len(all) > 0 {
			t.Error("an error and a list")
		}
		for _, p := range all {
			if i := p.info(); i.PID <= 0 || i.RSS < 0 || strings.ContainsAny(i.Command, "\x1b\n") {
				t.Errorf("got %+v", i)
			}
		}
	})
}

func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"a"}{"level":"warning","msg":"b"}`))
	f.Add([]byte("no log"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if said := lastError(text); len(said) > 510 || strings.ContainsAny(said, "\x1b\n") {
			t.Errorf("got %q", said)
		}
	})
}
