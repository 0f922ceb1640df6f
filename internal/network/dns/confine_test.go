package dns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestConfinement looks at both processes as the kernel shows them.
func TestConfinement(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own=%t", own), func(t *testing.T) { testConfinement(t, own) })
	}
}

func testConfinement(t *testing.T, own bool) {
	p := populated(t)
	newFake(t, first)
	p.cfg.Own = own
	s := p.start(ports(first)...)
	leases := []string{web4, db4, web2, db6, web6}
	dialers := []string(nil)
	if own {
		dialers = leases
	}
	p.ask(db4, "fine.example", a) // both have worked
	for pid, want := range map[int]struct {
		id    int
		net   bool // a network namespace of its own
		files int
		root  []string
	}{
		s.PID:    {idBase, true, resolve.MaxFiles, leases},
		s.Dialer: {idBase + 1, false, 64, dialers},
	} {
		proc := fmt.Sprintf("/proc/%d/", pid)
		status := read(t, proc+"status")
		id := fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d\n", want.id)
		for _, line := range []string{
			"NoNewPrivs:\t1", "Seccomp:\t2", "THP_enabled:\t0", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
			"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "Groups:\t \n", "Uid:\t" + id, "Gid:\t" + id,
		} {
			if !strings.Contains(status, line) {
				t.Errorf("%d: no %q in its status:\n%s", pid, line, status)
			}
		}
		for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
			mine, _ := os.Readlink("/proc/thread-self/ns/" + ns)
			its, err := os.Readlink(proc + "ns/" + ns)
			if err != nil || (mine == its) != (ns == "net" && !want.net) {
				t.Errorf("%d: %s namespace: %s %v", pid, ns, its, err)
			}
		}
		for _, name := range []string{"uid_map", "gid_map"} {
			if got := strings.Join(strings.Fields(read(t, proc+name)), " "); got != fmt.Sprintf("%d %[1]d 1", want.id) {
				t.Errorf("%d: %s holds %s", pid, name, got)
			}
		}
		if want.net {
			for _, name := range []string{"route", "if_inet6"} {
				if got := read(t, proc+"net/"+name); strings.Count(got, "\n") > 1 {
					t.Errorf("%d: %s holds %s", pid, name, got)
				}
			}
		}
		var names []string
		all, err := os.ReadDir(proc + "root")
		for _, e := range all {
			names = append(names, e.Name())
		}
		slices.Sort(want.root)
		if err != nil || !slices.Equal(names, want.root) {
			t.Errorf("%d: its root directory: %v %v", pid, names, err)
		}
		mounts := read(t, proc+"mountinfo")
		if strings.Count(mounts, "\n") != 1 || !strings.Contains(mounts, " / ro,nosuid,nodev,noexec,noatime,nosymfollow") {
			t.Errorf("%d: its mounts: %s", pid, mounts)
		}
		limits := read(t, proc+"limits")
		for name, most := range map[string]int{"Max open files": want.files, "Max processes": 64, "Max file size": 64 << 10, "Max core file size": 0, "Max locked memory": 0} {
			if !strings.Contains(limits, fmt.Sprintf("%-26s%-21d%-21[2]d", name, most)) {
				t.Errorf("%d: %s is not %d:\n%s", pid, name, most, limits)
			}
		}
		descriptors(t, pid, p.cfg.Dir)
		if got := read(t, proc+"environ"); got != "" {
			t.Errorf("%d: its environment: %q", pid, got)
		}
	}
}

// descriptors finds nothing but sockets, the log, and what Go's poller needs.
func descriptors(t *testing.T, pid int, dir string) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil || len(fds) > 40 {
		t.Errorf("%d: %d descriptors: %v", pid, len(fds), err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		known := []string{filepath.Join(dir, "dns.log"), "/", filepath.Join(dir, "leases"), "anon_inode:inotify", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"}
		if !slices.Contains(known, to) && !strings.HasPrefix(to, "socket:") {
			t.Errorf("%d: descriptor %s is %s", pid, fd.Name(), to)
		}
	}
}

// TestTakenOver starts a program that does what somebody would who took the name
// server over.
func TestTakenOver(t *testing.T) {
	p := populated(t)
	p.leaseWith("10.77.200.1", "own", "192.0.2.9")
	p.cfg.Program, p.cfg.Own = hostile, true
	other, err := listenSilently(t, "127.0.0.9:53")
	if err != nil {
		t.Fatal(err)
	}
	up := newFake(t, first)
	p.start(ports(first)...)
	const eperm, enoent, eacces, einval, erofs, enetunreach = 1, 2, 13, 22, 30, 101
	want := map[string]int{
		"dial socket inet": 0, "dial open": eperm, "dial sendto": eperm, "dial read a lease": 0, "dial write to a lease": eperm,
		"dial read another file": enoent,
		"resolve socket inet":    eperm, "resolve open /etc/passwd": enoent, "resolve open /proc/self/status": enoent, "resolve open /sys": enoent,
		"resolve open /dev/null": enoent, "resolve open /run": enoent, "resolve read a lease": 0, "resolve make a lease": erofs, "resolve write to a lease": eacces,
		"resolve remove": eperm, "resolve go back in the log": 0, // what is written to it is appended
		"resolve dial": 0, "resolve write to upstream": 0, "resolve sendto by upstream's": eperm, "resolve sendto by a number with more bits": eperm,
		"resolve connect": eperm, "resolve sendmsg": eperm, "resolve close": eperm, "resolve close with more bits": eperm, "resolve close the last": eperm,
		"resolve close upstream's": 0, "resolve dial another": einval, "resolve dial 77": einval,
		"resolve dial a workload's": enetunreach, "resolve dial a workload's second": einval, "resolve dial of a workload without": einval, "resolve dial of nobody": einval,
	}
	for _, name := range []string{
		"socket unix", "socket netlink", "socket packet", "socket raw", "bind", "listen", "setsockopt", "dup", "dup3", "dupfd", "sendmmsg", "io_uring", "kill", "ptrace",
		"unshare", "setns", "mount", "open_tree", "setuid", "prctl", "process", "execve", "bpf", "pidfd_open", "splice",
	} {
		want["dial "+name], want["resolve "+name] = eperm, eperm
	}
	for line := range strings.Lines(read(t, filepath.Join(p.cfg.Dir, "dns.log"))) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if w, ok := want[name]; !ok || fmt.Sprint(w) != result {
			t.Errorf("%s: got %s, want %d", name, result, w)
		}
		delete(want, name)
	}
	if len(want) != 0 {
		t.Errorf("not attempted: %v", want)
	}
	if n := other(); n != 0 {
		t.Errorf("%d datagrams reached somebody else", n)
	}
	if n := up.malformed(); n != 1 {
		t.Errorf("%d datagrams reached the upstream server, not one", n)
	}
}
