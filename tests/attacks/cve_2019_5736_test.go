package attacks

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// CVE-2019-5736: a container overwrites the runtime's program on the host.
//
// Between fork and execve a process of a container shows the program that
// forked it at /proc/PID/exe. The original attack made the runtime execute
// itself inside (an entry point that is /proc/self/exe), or opened
// /proc/PID/exe of a process that had just arrived by "exec", waited until the
// runtime had ended, and wrote the file: the next container started ran the
// attacker's code as root on the host.
//
// What prevents it here:
//
//   - No program of ours is executed inside by itself. The planner refuses a
//     program that is a magic link of /proc. A script whose interpreter is
//     /proc/self/exe does execute it, as any other program, and then gains a
//     copy of a static program without further rights: it must not be writable.
//   - The process on its way in cleared PR_SET_DUMPABLE right after the fork, and
//     its memory belongs to the initial user namespace, in which nobody inside
//     has CAP_SYS_PTRACE (ptrace(2), access mode checking).
//   - With a user namespace, root inside may not write files of the host's root.
//   - Without one, a workload that was given CAP_SYS_PTRACE, or that brings such
//     a script, may open the link. The program that forks runs from a read-only mount of its file then
//     (package selfexec), so opening for writing is EROFS.
//
// Kernel facts: /proc/PID/exe is resolved with PTRACE_MODE_READ_FSCREDS;
// commit_creds() sets the dumpable flag anew, to fs.suid_dumpable, when a
// process changes its IDs, so it is cleared again after that.

// TestEntryPointIsOurProgram makes our program the one to execute, directly and
// by links. TestSealedProgram has it as the interpreter of a script.
func TestEntryPointIsOurProgram(t *testing.T) {
	guardLeaks(t)
	cases := map[string][]string{
		"direct": {"/proc/self/exe", "hunt"}, "thread": {"/proc/thread-self/exe"}, "first": {"/proc/1/exe"},
		"link": {"/bin/evil-link"}, "relative": {"/bin/evil-relative"},
	}
	plant := func(t *testing.T, tg *target) {
		tg.link(t, "/proc/self/exe", "bin/evil-link")
		tg.link(t, "../../../proc/self/exe", "bin/evil-relative")
	}
	for name, args := range cases {
		t.Run("create "+name, func(t *testing.T) {
			tg := newTarget(t, args...)
			plant(t, tg)
			err := tg.start(t)
			if err == nil {
				t.Errorf("%q was executed: %s", args, tg.out.text(t))
			}
			t.Log(err)
		})
	}
	t.Run("exec", func(t *testing.T) {
		tg := newTarget(t, "sleep", "60")
		plant(t, tg)
		tg.mustStart(t)
		for name, args := range cases {
			// /proc/1/exe is the container's own program here, and may be run.
			if out, err := tg.exec(t, nil, args...); err == nil && name != "first" {
				t.Errorf("%s: %q was executed: %q", name, args, out)
			}
		}
	})
}

// TestArrivingProcess races for the program, memory and environment of
// processes that arrive in a container with a user namespace: root inside, with
// every capability there is.
func TestArrivingProcess(t *testing.T) {
	guardLeaks(t)
	t.Setenv("SECRET_OF_THE_CALLER", "SECRET")
	tg := newTarget(t, "inside", "hunt", "20")
	tg.all()
	tg.spec.Security.Seccomp = "unconfined"
	tg.mustStart(t)
	execMany(t, tg, 60, nil)
	// A program that runs as another user changes its IDs on the way, which sets
	// the dumpable flag anew.
	execMany(t, tg, 30, func(p *workload.Process) { p.User = "user" })
	out := stopHunt(t, tg)
	if out["caught"] != "0" {
		t.Errorf("caught: %v", out)
	}
	if n, _ := strconv.Atoi(out["denied-exe"]); n == 0 {
		t.Errorf("the race never met a process on its way in: %v", out)
	}
	for name := range out {
		if strings.HasPrefix(name, "stolen") {
			t.Errorf("%s", name)
		}
	}
}

// execMany runs processes, one after the other.
func execMany(t *testing.T, tg *target, n int, change func(*workload.Process)) {
	t.Helper()
	for range n {
		if _, err := tg.exec(t, change, "true"); err != nil {
			t.Fatal(err)
		}
	}
}

func stopHunt(t *testing.T, tg *target) map[string]string {
	t.Helper()
	if _, err := tg.exec(t, nil, "touch", "/tmp/stop"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := tg.inst.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return lines(tg.out.text(t))
}

// TestArrivingProcessWithoutSeal is the hard case without its protection: the
// test program forks into a container in the host's user namespace that has
// CAP_SYS_PTRACE. The attacker gets hold of our file, and only that we still
// run from it keeps the file from being opened. If this no longer catches
// anything, TestSealedProgram proves nothing.
func TestArrivingProcessWithoutSeal(t *testing.T) {
	guardLeaks(t)
	tg := newTarget(t, "inside", "hunt", "20")
	tg.hostUser()
	tg.spec.Security.CapAdd = []string{"SYS_PTRACE"}
	tg.spec.Security.AppArmor = "unconfined" // the default profile would keep it from looking
	tg.mustStart(t)
	execMany(t, tg, 60, nil)
	out := stopHunt(t, tg)
	if out["caught"] != "1" || out["readonly"] != "false" || !strings.HasSuffix(out["write"], "text file busy") {
		t.Errorf("got %v, want our program caught, writable but for being busy", out)
	}
}

// TestSealedProgram is the hard case as our programs do it: the attacker may
// look at the arriving process, and finds a file on a read-only mount. That
// makes opening it EROFS once nobody runs from it; bulkhead-oci ends before the
// container does, a supervisor does not.
func TestSealedProgram(t *testing.T) {
	c := newCLI(t)
	for name, how := range map[string]struct {
		program string
		hunt    func(*testing.T) string
	}{
		"supervisor":        {"bulkhead-supervisor", c.huntByEngine},
		"runtime":           {"bulkhead-oci", func(t *testing.T) string { return c.huntByOCI(t, "CAP_SYS_PTRACE", "/bin/true") }},
		"runtime by script": {"bulkhead-oci", func(t *testing.T) string { return c.huntByOCI(t, "", "/bin/evil-script") }},
	} {
		t.Run(name, func(t *testing.T) {
			before := digest(t, c.program(how.program))
			out := how.hunt(t)
			m := lines(out)
			if m["caught"] != "1" {
				t.Fatalf("the attacker inside did not get hold of %s, so this proves nothing:\n%s", how.program, out)
			}
			if m["readonly"] != "true" {
				t.Errorf("%s was reached through a writable mount", how.program)
			}
			if how.program == "bulkhead-oci" && !strings.HasSuffix(m["write"], "read-only file system") {
				t.Errorf("opening %s for writing: got %q, want a read-only file system", how.program, m["write"])
			}
			if digest(t, c.program(how.program)) != before {
				t.Errorf("%s was changed", how.program)
			}
		})
	}
}

// huntByEngine lets the attacker hunt in a container that bulkhead runs.
func (c *cli) huntByEngine(t *testing.T) string {
	t.Helper()
	id := c.run(t, "run", "-d", "--userns", "host", "--cap-add", "SYS_PTRACE", "--security-opt", "apparmor=unconfined", "attacker", "inside", "hunt", "30")
	for range 15 {
		c.run(t, "exec", id, "true")
	}
	c.run(t, "exec", id, "touch", "/tmp/stop")
	c.run(t, "wait", id)
	out := c.run(t, "logs", id)
	c.run(t, "rm", id)
	return out
}

// huntByOCI does the same with bulkhead-oci, with one more capability, and lets
// it execute a program.
func (c *cli) huntByOCI(t *testing.T, capability, program string) string {
	t.Helper()
	bundle := c.bundle(t, capability, "inside", "hunt", "30")
	if err := os.WriteFile(filepath.Join(bundle, "rootfs/bin/evil-script"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(bundle, "out")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := c.ociID(t)
	c.oci(t, f, "run", "--detach", "--bundle", bundle, id)
	for range 15 {
		_ = c.tryOCI(t, nil, "exec", id, program) // ours finds the command line wrong
	}
	c.oci(t, nil, "exec", id, "/bin/touch", "/tmp/stop")
	waitFor(t, "the attacker's report", func() bool {
		b, _ := os.ReadFile(log)
		return regexp.MustCompile(`(?m)^(write|caught 0)`).Match(b)
	})
	c.oci(t, nil, "delete", "--force", id)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
