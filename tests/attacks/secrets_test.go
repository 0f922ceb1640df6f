package attacks

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Secrets of the command line in the child's memory or environment. Between
// fork and execve a container's process is a copy of the program that forked
// it, heap and environment included. A process inside, or a core dump, may read
// what a registry's credentials have left there.
//
// What prevents it here: the command line, which knows credentials, never
// forks into a container. The supervisor does, and it is started with an
// environment of its own and without credentials. Its child cannot be read from
// inside (TestArrivingProcess), nor can it dump core: it is not dumpable.
//
// Kernel facts: /proc/PID/environ and mem want ptrace access; a process that is
// not dumpable writes no core (core(5), prctl(2)).

const secret = "c2VjcmV0LW9mLXRoZS1jb21tYW5kLWxpbmU"

// TestSecretsOfTheCommandLine looks for a variable of the command's environment
// in the supervisor, in its memory, in a process that waits to be started and
// in the workload.
func TestSecretsOfTheCommandLine(t *testing.T) {
	c := newCLI(t)
	c.env = []string{"REGISTRY_TOKEN=" + secret, "DOCKER_AUTH_CONFIG=" + secret, "LD_PRELOAD_TEST=" + secret}
	id := c.run(t, "run", "-d", "attacker", "sh", "-c", "cat /proc/1/environ; env; sleep 60")
	defer c.run(t, "rm", "-f", id)
	pids := strings.Fields(c.run(t, "inspect", "--format", "{{.State.SupervisorPid}} {{.State.Pid}}", id))
	if out := c.run(t, "exec", id, "sh", "-c", "env; cat /proc/*/environ"); strings.Contains(out, secret) {
		t.Errorf("exec sees %s", out)
	}
	for _, pid := range pids {
		env, err := os.ReadFile("/proc/" + pid + "/environ")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(env, []byte(secret)) {
			t.Errorf("process %s has the variable: %q", pid, env)
		}
		if n := searchMemory(t, pid); n > 0 {
			t.Errorf("process %s has the secret in memory, %d times", pid, n)
		}
	}
	if len(pids) != 2 {
		t.Errorf("got processes %q", pids)
	}
	waitFor(t, "the workload's output", func() bool { return strings.Contains(c.run(t, "logs", id), "PATH=") })
	if out := c.run(t, "logs", id); strings.Contains(out, secret) {
		t.Errorf("the workload sees %s", out)
	}
	// What the supervisor has is what it needs.
	env, err := os.ReadFile("/proc/" + pids[0] + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	for v := range strings.SplitSeq(strings.TrimRight(string(env), "\x00"), "\x00") {
		if name, _, _ := strings.Cut(v, "="); name != "PATH" && !strings.HasPrefix(name, "GO") {
			t.Errorf("the supervisor's environment has %q", v)
		}
	}
}

// searchMemory counts the secret in a process's writable memory.
func searchMemory(t *testing.T, pid string) (n int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/" + pid + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		lo, hi, _ := strings.Cut(f[0], "-")
		from, err1 := strconv.ParseUint(lo, 16, 64)
		to, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil || !strings.HasPrefix(f[1], "rw") || to-from > 256<<20 {
			continue
		}
		b := make([]byte, to-from)
		if k, _ := mem.ReadAt(b, int64(from)); k > 0 {
			n += bytes.Count(b[:k], []byte(secret))
		}
	}
	return n
}

// TestSearchFinds is the control of searchMemory: this process has the secret.
func TestSearchFinds(t *testing.T) {
	needRoot(t)
	kept := []byte(secret) // on the heap, not in the program's constants
	if searchMemory(t, strconv.Itoa(os.Getpid())) == 0 {
		t.Error("the secret is not found where it is")
	}
	runtime.KeepAlive(kept)
}

// TestWaitingProcessIsClosed looks, from inside, at a process that was created
// and not started: pid 1 is a copy of our program then.
func TestWaitingProcessIsClosed(t *testing.T) {
	guardLeaks(t)
	t.Setenv("SECRET_OF_THE_CALLER", "SECRET")
	for _, user := range []string{"", "user"} {
		tg := newTarget(t, "true")
		tg.spec.Process.User = user
		tg.all()
		tg.spec.Security.Seccomp = "unconfined"
		if err := tg.create(t); err != nil {
			t.Fatal(err)
		}
		out, err := tg.exec(t, func(p *workload.Process) { p.User = user }, "sh", "-c",
			`for f in environ mem auxv maps; do cat /proc/1/$f >/dev/null && echo BAD $f; done; readlink /proc/1/exe /proc/1/cwd /proc/1/root && echo BAD link; ls /proc/1/fd && echo BAD fd; cat /proc/$$/environ >/dev/null && echo own; echo tried`)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "BAD") || !strings.HasSuffix(out, "own\ntried\n") {
			t.Errorf("user %q: %s", user, out)
		}
		// Dumpable or not shows in the owner of its files: root of the initial
		// user namespace for a process that is not (proc(5)).
		fi, err := os.Stat(filepath.Join("/proc", strconv.Itoa(tg.inst.PID()), "environ"))
		if err != nil {
			t.Fatal(err)
		}
		if uid := uidOf(fi); uid != 0 {
			t.Errorf("user %q: the waiting process is dumpable, its files belong to %d", user, uid)
		}
	}
}
