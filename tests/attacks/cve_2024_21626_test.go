package attacks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// CVE-2024-21626: a descriptor of the runtime's for a directory of the host
// leaked into the container, and an image whose working directory was
// /proc/self/fd/N put its first process there: outside of its root, with
// every file of the host in reach by "..". The same by "exec" into a container
// that prepared a symbolic link.
//
// What prevents it here: the child closes every descriptor but those it needs,
// by number, before it enters anything, whatever the caller or a library of
// ours left open (close_range(2)); what it needs itself is close-on-exec before
// execve. None of those is a directory. The working directory is opened with
// RESOLVE_NO_MAGICLINKS, so a directory that the caller hands in on purpose
// (standard input, --preserve-fds) is no working directory either.
//
// Kernel facts: getcwd(2) answers "(unreachable)…" for a directory outside of
// the process's root; magic links of /proc/PID/fd ignore the root.

// leak opens directories of the host in this process at n descriptors that are
// not close-on-exec, as a careless caller might.
func leak(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "canary"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range n {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
	return dir
}

// checkInside judges the report of descriptors.
func checkInside(t *testing.T, what, out string) {
	t.Helper()
	m := lines(out)
	if !strings.HasPrefix(m["cwd"], "/") {
		t.Errorf("%s: working directory %q", what, m["cwd"])
	}
	for name, to := range m {
		if !strings.HasPrefix(name, "fd-") || strings.HasPrefix(to, "pipe:") || to == "/dev/null" || to == "/null" {
			continue
		}
		t.Errorf("%s: %s is %s", what, name, to)
	}
}

func TestWorkingDirectoryIsDescriptor(t *testing.T) {
	guardLeaks(t)
	const most = 40
	dir := leak(t, 20)
	running := newTarget(t, "sleep", "60")
	running.link(t, "/proc/self/fd/7", "link")
	running.mustStart(t)
	var cwds []string
	for n := range most {
		cwds = append(cwds, fmt.Sprintf("/proc/self/fd/%d", n))
	}
	cwds = append(cwds, "/link", "/proc/self/fd/7/../../..", "/proc/self/cwd", "/proc/thread-self/fd/8", "/proc/1/cwd/..", "/proc/self/root/..")
	for _, cwd := range cwds {
		tg := newTarget(t, "inside", "descriptors")
		tg.link(t, "/proc/self/fd/7", "link")
		tg.spec.Process.Cwd = cwd
		if err := tg.start(t); err == nil {
			checkInside(t, "create in "+cwd, tg.out.text(t))
		}
		// The text of such a link, read by the planner, is no path of the image's.
		if _, err := os.Lstat(filepath.Join(tg.prep.Upper, dir)); err == nil {
			t.Errorf("create in %s made a directory that is named after one of the host's", cwd)
		}
		out, err := running.exec(t, func(p *workload.Process) { p.Cwd = cwd }, "inside", "descriptors")
		if err == nil {
			checkInside(t, "exec in "+cwd, out)
		}
	}
}

func TestLeakedDescriptors(t *testing.T) {
	guardLeaks(t)
	leak(t, 30)
	tg := newTarget(t, "sh", "-c", "inside descriptors; sleep 60")
	tg.mustStart(t)
	out, err := tg.exec(t, nil, "inside", "descriptors")
	if err != nil {
		t.Fatal(err)
	}
	checkInside(t, "exec", out)
	if !strings.Contains(out, "fd-1-1 ") {
		t.Errorf("the first process was not looked at: %q", out)
	}
}

// TestLeakedDescriptorsOfCommands starts our programs with open descriptors.
func TestLeakedDescriptorsOfCommands(t *testing.T) {
	c := newCLI(t)
	dir, err := os.Open(leak(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	with := func(name string, stdin *os.File, args ...string) (string, error) {
		root := map[string]string{"bulkhead": "state", "bulkhead-oci": "oci"}[name]
		cmd := exec.Command(c.program(name), append([]string{"--root", filepath.Join(c.dir, root)}, args...)...)
		cmd.ExtraFiles = []*os.File{dir, dir, dir, dir, dir, dir, dir, dir} // 3 to 10
		if stdin != nil {
			cmd.Stdin = stdin
		}
		return output1(t, cmd)
	}
	t.Run("bulkhead", func(t *testing.T) {
		out, err := with("bulkhead", nil, "run", "--rm", "attacker", "inside", "descriptors")
		if err != nil {
			t.Fatal(err)
		}
		checkInside(t, "run", out)
		id, err := with("bulkhead", nil, "run", "-d", "attacker", "sleep", "60")
		if err != nil {
			t.Fatal(err)
		}
		id = strings.TrimSpace(id)
		defer c.run(t, "rm", "-f", id)
		if out, err = with("bulkhead", nil, "exec", id, "inside", "descriptors"); err != nil {
			t.Fatal(err)
		}
		checkInside(t, "exec", out)
		// The supervisor outlives the command: what it held open for its caller it
		// would hold for as long as the workload runs.
		pid := strings.TrimSpace(c.run(t, "inspect", "--format", "{{.State.SupervisorPid}}", id))
		entries, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if to, _ := os.Readlink("/proc/" + pid + "/fd/" + e.Name()); to == dir.Name() {
				t.Errorf("the supervisor holds descriptor %s, %s, of the command's caller", e.Name(), to)
			}
		}
	})
	t.Run("bulkhead-oci", func(t *testing.T) {
		bundle := c.bundle(t, "", "inside", "descriptors")
		out, err := with("bulkhead-oci", nil, "run", "--bundle", bundle, c.ociID(t))
		if err != nil {
			t.Fatal(err)
		}
		checkInside(t, "run", out)
		// The negative control: what is handed in on purpose arrives, and is seen.
		out, err = with("bulkhead-oci", nil, "run", "--preserve-fds", "1", "--bundle", bundle, c.ociID(t))
		if err != nil {
			t.Fatal(err)
		}
		if m := lines(out); m["fd-1-3"] != dir.Name() || m["fd-1-4"] != "" {
			t.Errorf("--preserve-fds 1: got %q", out)
		}
		// And yet it is no way out for an image's working directory.
		for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/0", "/link", "/proc/self/fd/3/.."} {
			if err := os.Symlink("/proc/self/fd/3", filepath.Join(bundle, "rootfs/link")); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
			for _, noNewPrivileges := range []bool{true, false} {
				c.change(t, bundle, func(s *specs.Spec) { s.Process.Cwd, s.Process.NoNewPrivileges = cwd, noNewPrivileges })
				out, err := with("bulkhead-oci", dir, "run", "--preserve-fds", "1", "--bundle", bundle, c.ociID(t))
				if err == nil {
					t.Errorf("working directory %s: %q", cwd, out)
				}
			}
		}
		c.change(t, bundle, func(s *specs.Spec) {
			s.Process.Cwd, s.Process.NoNewPrivileges, s.Process.Args = "/", true, []string{"sleep", "60"}
		})
		id := c.ociID(t)
		c.oci(t, nil, "run", "--detach", "--bundle", bundle, id)
		for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/0", "/link"} {
			out, err := with("bulkhead-oci", dir, "exec", "--preserve-fds", "1", "--cwd", cwd, id, "/bin/inside", "descriptors")
			if err == nil {
				t.Errorf("exec in working directory %s: %q", cwd, out)
			}
		}
	})
}
