package attacks

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func uidOf(fi fs.FileInfo) uint32 { return fi.Sys().(*syscall.Stat_t).Uid }

// Control sockets used by others (CVE-2020-15257: containerd's shim listened on
// an abstract socket, which every process in the host's network namespace could
// connect to, root in a container with the host's network included).
//
// What prevents it here: a supervisor listens at a path in a directory of mode
// 0700, and asks the kernel who connects (SO_PEERCRED); TestOtherUser of package
// wire has the latter. No socket is abstract. Inside a container there is no
// path to it, and with a user namespace no ID that would be let in.
//
// Kernel facts: unix(7); abstract names belong to the network namespace.

func TestControlSockets(t *testing.T) {
	c := newCLI(t)
	id := c.run(t, "run", "-d", "--network", "host", "--userns", "host", "attacker", "sleep", "60")
	defer c.run(t, "rm", "-f", id)
	pid := c.run(t, "inspect", "--format", "{{.State.SupervisorPid}}", id)
	// Every socket file of ours, as other users see it.
	found := 0
	err := filepath.WalkDir(filepath.Join(c.dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSocket {
			return err
		}
		found++
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, fi.Mode())
		}
		if out, err := asNobody(filepath.Join(work, "base/bin/busybox"), "stat", path); err == nil {
			t.Errorf("user 65534 sees %s: %s", path, out)
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d sockets, %v", found, err)
	}
	// The supervisor's sockets that have a name: none is abstract.
	named, abstract := socketsOf(t, pid)
	if len(named) == 0 || len(abstract) > 0 {
		t.Errorf("named %q, abstract %q", named, abstract)
	}
	// A workload with the host's network and user namespace still has no path.
	out := c.run(t, "exec", id, "sh", "-c", "find / -xdev -type s; find / -name 'socket*' -type s; grep -c '@' /proc/net/unix; echo looked")
	if !strings.HasSuffix(out, "looked") || strings.Contains(out, "/") {
		t.Errorf("inside: %s", out)
	}
}

// socketsOf sorts the unix sockets of a process by their names.
func socketsOf(t *testing.T, pid string) (named, abstract []string) {
	t.Helper()
	inodes := map[string]bool{}
	entries, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, _ := os.Readlink("/proc/" + pid + "/fd/" + e.Name())
		if n, ok := strings.CutPrefix(to, "socket:["); ok {
			inodes[strings.TrimSuffix(n, "]")] = true
		}
	}
	table, err := os.ReadFile("/proc/" + pid + "/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 8 || !inodes[f[6]]:
		case strings.HasPrefix(f[7], "@"):
			abstract = append(abstract, f[7])
		default:
			named = append(named, f[7])
		}
	}
	return named, abstract
}
