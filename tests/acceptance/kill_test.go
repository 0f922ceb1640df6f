package acceptance

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pid returns a process ID that inspect shows.
func (w *world) pid(name, field string) int {
	w.Helper()
	n, err := strconv.Atoi(w.inspect(name, ".State."+field))
	if err != nil || n < 2 {
		w.Fatalf("%s of %s: %d, %v", field, name, n, err)
	}
	return n
}

func (w *world) kill9(pid int) {
	w.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.Fatal(err)
	}
}

// gone tells whether a process has ended, or waits for its parent to notice.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
		return false
	}
	// The first thread may be dead and others not yet, which keep its files open,
	// and its locks.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || len(threads) <= 1
}

// bystander runs a workload that must not notice what happens to others, and
// checks so when the test is over.
func (w *world) bystander() (id string) {
	w.Helper()
	id = w.start("bystander", "box", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done")
	pid := w.pid("bystander", "Pid")
	w.Cleanup(func() {
		if gone(pid) {
			w.Error("another workload was ended")
		}
		w.ok("stop", "bystander")
		if code := w.inspect("bystander", ".State.ExitCode"); code != "9" {
			w.Errorf("another workload: exit code %s", code)
		}
	})
	return id
}

// TestKillCommand ends the command line: the workload goes on, and attach gives
// its input and output to another.
func TestKillCommand(t *testing.T) {
	w := newWorld(t)
	cmd := w.command("run", "-i", "--name", "talk", "box", "sh", "-c", "while read l; do echo got $l; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out lines
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "one\n")
	w.await("the first line", func() bool { return out.has("got one") })
	pid := w.pid("talk", "Pid")
	cmd.Process.Kill()
	cmd.Wait()
	if gone(pid) || w.inspect("talk", ".State.Status") != "running" {
		t.Fatal("the workload died with the command")
	}
	if r := w.feed("two\n", "attach", "talk"); r.out != "got two\n" || r.code != 0 || r.err != "" {
		t.Errorf("attach: %+v", r)
	}
	if got := w.ok("logs", "talk"); got != "got one\ngot two" {
		t.Errorf("logs: %q", got)
	}
}

// TestKillSupervisor ends a supervisor: its workload dies, the next command says
// what happened and cleans up, and it can be started again.
func TestKillSupervisor(t *testing.T) {
	for _, args := range [][]string{
		{"box", "sleep", "1000"},
		{"--pid", "host", "box", "sleep", "1000"},
		{"--userns", "host", "--init", "box", "sleep", "1000"},
		{"-v", "/srv:/data:ro", "--tmpfs", "/t", "box", "sh", "-c", "sleep 1000 & setsid sleep 1000 & wait"},
	} {
		t.Run(args[0], func(t *testing.T) {
			w := newWorld(t)
			other := w.bystander()
			id := w.start("victim", args...)
			pid := w.pid("victim", "Pid")
			supervisor := w.pid("victim", "SupervisorPid")
			w.kill9(supervisor)
			w.await("the supervisor is dead", func() bool { return gone(supervisor) })
			status := w.ok("ps", "-a", "--filter", "name=victim", "--format", "{{.Status}}")
			if !strings.Contains(status, "supervisor lost") {
				t.Errorf("ps says %q", status)
			}
			if !gone(pid) {
				t.Error("the workload's process is still there")
			}
			if got := w.inspect("victim", ".State.Status") + " " + w.inspect("victim", ".State.Error"); got != "exited supervisor lost" {
				t.Errorf("inspect says %q", got)
			}
			if left := cgroupsOf(t, map[string]bool{id[:12]: true}); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := os.Lstat(filepath.Join(w.root, "run", id)); err == nil {
				t.Error("the run-time directory is still there")
			}
			w.ok("start", "victim")
			w.ok("rm", "-f", "victim")
			w.wantOnly(other)
		})
	}
}

// TestKillInside ends the first process and a process of exec from the host.
func TestKillInside(t *testing.T) {
	w := newWorld(t)
	other := w.bystander()
	w.start("victim", "box", "sh", "-c", "sleep 1000 & sleep 1001 & wait")

	cmd := w.command("exec", "victim", "sh", "-c", "echo $$; exec sleep 1234")
	var out lines
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.await("the process of exec", func() bool { return out.has("") })
	w.kill9(w.hostPID(w.inspect("victim", ".Host.Cgroup"), "sleep 1234"))
	if code := exitCode(t, cmd.Wait()); code != 137 {
		t.Errorf("exec: exit code %d", code)
	}
	if w.inspect("victim", ".State.Status") != "running" {
		t.Error("the workload died with a process of exec")
	}

	w.kill9(w.pid("victim", "Pid"))
	if got := w.ok("wait", "victim"); got != "137" {
		t.Errorf("wait: %q", got)
	}
	if got := w.inspect("victim", ".State.OOMKilled"); got != "false" {
		t.Errorf("OOMKilled: %s", got)
	}
	w.ok("rm", "victim")
	w.wantOnly(other)
}

// hostPID waits for a process of a cgroup, and finds it by its command line.
func (w *world) hostPID(cgroup, command string) (pid int) {
	w.Helper()
	w.await("process "+command+" in "+cgroup, func() bool {
		for _, file := range []string{"/sys/fs/cgroup/pids" + cgroup + "/cgroup.procs", "/sys/fs/cgroup" + cgroup + "/cgroup.procs"} {
			b, _ := os.ReadFile(file)
			for _, p := range strings.Fields(string(b)) {
				line, _ := os.ReadFile("/proc/" + p + "/cmdline")
				if strings.TrimSuffix(strings.ReplaceAll(string(line), "\x00", " "), " ") == command {
					pid, _ = strconv.Atoi(p)
				}
			}
		}
		return pid != 0
	})
	return pid
}

// TestKillAnywhere ends `run --rm`, at random moments, with SIGKILL, and every
// third time the supervisor too. The next command must find a clean state.
func TestKillAnywhere(t *testing.T) {
	w := newWorld(t)
	other := w.bystander()
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	random := rand.New(rand.NewPCG(1, 2))
	for n := range rounds {
		cmd := exec.Command(filepath.Join(bin, "bulkhead"), "--root", w.root, "run", "--rm", "--name", "victim", "box", "sleep", "0.05")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		if n%3 == 0 {
			r := w.do("inspect", "--type", "workload", "--format", "{{.State.SupervisorPid}}", "victim")
			if pid, err := strconv.Atoi(strings.TrimSpace(r.out)); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		if r := w.do("ps", "-a"); r.code != 0 {
			t.Fatalf("round %d: ps: %+v", n, r)
		}
	}
	// One whose command died before it was listed is not in ps, but its
	// supervisor may still be finding out; then the next command removes it.
	w.await("the last one is gone", func() bool {
		kept, err := os.ReadDir(filepath.Join(w.root, "workloads"))
		return w.ok("ps", "-aq") == other[:12] && err == nil && len(kept) == 1
	})
	w.wantOnly(other)
}

// TestReboot lets the run root belong to another boot, once cleared and once
// not, as /run is or is not a file system in memory.
func TestReboot(t *testing.T) {
	for _, cleared := range []bool{false, true} {
		t.Run(fmt.Sprintf("cleared=%v", cleared), func(t *testing.T) {
			w := newWorld(t)
			id := w.start("kept", "box", "sleep", "1000")
			w.ok("run", "-d", "--rm", "--name", "passing", "box", "sleep", "1000")
			w.ok("create", "--name", "waiting", "box", "echo", "hello")
			for _, name := range []string{"kept", "passing"} {
				pid, cgroup := w.pid(name, "Pid"), w.inspect(name, ".Host.Cgroup")
				w.kill9(w.pid(name, "SupervisorPid"))
				w.await("the workload is dead", func() bool { return gone(pid) })
				w.await("its cgroups are removed", func() bool { return removeCgroup(cgroup) })
			}
			run := filepath.Join(w.root, "run")
			if cleared {
				if err := os.RemoveAll(run); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(filepath.Join(run, "boot"), []byte("another boot"), 0o600); err != nil {
				t.Fatal(err)
			}
			got := w.ok("ps", "-a", "--format", "{{.Names}} {{.State}}")
			if got != "waiting created\nkept exited" && got != "kept exited\nwaiting created" {
				t.Errorf("got %q", got)
			}
			if got := w.inspect("kept", ".State.Error"); got != "supervisor lost" {
				t.Errorf("got %q", got)
			}
			if got := w.ok("start", "-a", "waiting"); got != "hello" {
				t.Errorf("got %q", got)
			}
			w.ok("start", "kept")
			w.ok("rm", "-f", "kept", "waiting")
			if left := cgroupsOf(t, map[string]bool{id[:12]: true}); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// removeCgroup removes a cgroup from every hierarchy, as a reboot does.
func removeCgroup(path string) bool {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + path)
	for _, d := range append(dirs, "/sys/fs/cgroup"+path) {
		if err := os.Remove(d); err != nil && !os.IsNotExist(err) {
			return false
		}
	}
	return true
}

// lines collects output that is read while it comes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// has tells whether a whole line has come that contains s.
func (l *lines) has(s string) bool {
	whole, _, found := cutLast(l.String())
	return found && strings.Contains(whole, s)
}

// cutLast cuts after the last newline.
func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '\n')
	return s[:i+1], s[i+1:], i >= 0
}

// TestExecAtTheEnd starts processes in workloads that are about to end: each runs
// or is told so, and none names a step that failed half way.
func TestExecAtTheEnd(t *testing.T) {
	w := newWorld(t)
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for n := range rounds {
		w.start("brief", "box", "sleep", "0.05")
		for {
			r := w.do("exec", "brief", "true")
			// 137: it was killed with the rest.
			if r.code == 125 && strings.Contains(r.err, "not running") {
				break
			}
			if r.code != 0 && r.code != 137 {
				t.Fatalf("round %d: %+v", n, r)
			}
		}
		w.ok("rm", "-f", "brief")
	}
}
