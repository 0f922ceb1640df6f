//go:build guest

// Package probe holds the test guest to what docs/testing.md says of it: a test
// that passes in the guest says something about pure cgroup v2, AppArmor and
// Linux 6.1 only if the guest has them.
package probe

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const cgroups = "/sys/fs/cgroup"

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestKernelIsDebians(t *testing.T) {
	if got := read(t, "/proc/sys/kernel/osrelease"); !strings.HasPrefix(got, "6.1.") {
		t.Errorf("kernel release %s, want 6.1", got)
	}
	if got := read(t, "/proc/version"); !strings.Contains(got, "Debian") {
		t.Errorf("kernel version %s, want Debian's", got)
	}
}

func TestOnlyCgroupV2(t *testing.T) {
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		_, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(after); len(fields) > 0 && fields[0] == "cgroup" {
			t.Errorf("cgroup v1 is mounted: %s", line)
		}
	}
	if got := read(t, "/proc/self/cgroup"); strings.Contains(got, "\n") || !strings.HasPrefix(got, "0::/") {
		t.Errorf("/proc/self/cgroup is %q, want the one line of v2", got)
	}
	for _, file := range []string{"cgroup.controllers", "cgroup.subtree_control", "guest.slice/cgroup.subtree_control"} {
		got := strings.Fields(read(t, filepath.Join(cgroups, file)))
		for _, want := range []string{"cpuset", "cpu", "io", "memory", "pids"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s lacks %s: %v", file, want, got)
			}
		}
	}
}

// group makes a cgroup and returns its directory.
func group(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(cgroups, "probe.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		write(t, dir+"/cgroup.kill", "1")
		var err error
		for range 100 {
			if err = os.Remove(dir); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("remove the cgroup: %v", err)
	})
	return dir
}

// inGroup returns a shell command that begins in the cgroup.
func inGroup(t *testing.T, dir, script string) *exec.Cmd {
	t.Helper()
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(file.Fd())}
	return cmd
}

func TestPidsLimit(t *testing.T) {
	dir := group(t)
	write(t, dir+"/pids.max", "2")
	out, err := inGroup(t, dir, "sleep 0 & sleep 0 & sleep 0 & wait").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("fork")) {
		t.Errorf("three children under pids.max 2: %v\n%s", err, out)
	}
}

func TestMemoryLimit(t *testing.T) {
	dir := group(t)
	write(t, dir+"/memory.max", "16M")
	write(t, dir+"/memory.swap.max", "0")
	err := inGroup(t, dir, "exec dd if=/dev/zero of=/dev/null bs=64M count=1").Run()
	if err == nil || err.Error() != "signal: killed" {
		t.Errorf("64 MiB under memory.max 16M: %v, want signal: killed", err)
	}
	if events := read(t, dir+"/memory.events"); !strings.Contains(events, "oom_kill 1") {
		t.Errorf("memory.events lacks oom_kill 1:\n%s", events)
	}
}

func TestCPUQuota(t *testing.T) {
	dir := group(t)
	write(t, dir+"/cpu.max", "20000 100000")
	cmd := inGroup(t, dir, "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for line := range strings.Lines(read(t, dir+"/cpu.stat")) {
		if n, found := strings.CutPrefix(strings.TrimSpace(line), "nr_throttled "); found {
			if throttled, err := strconv.Atoi(n); err != nil || throttled == 0 {
				t.Errorf("a loop under a fifth of a processor was throttled %q times", n)
			}
			return
		}
	}
	t.Error("cpu.stat has no nr_throttled")
}

func TestCpuset(t *testing.T) {
	dir := group(t)
	write(t, dir+"/cpuset.cpus", "1")
	out, err := inGroup(t, dir, "grep Cpus_allowed_list /proc/self/status").Output()
	if fields := strings.Fields(string(out)); err != nil || len(fields) != 2 || fields[1] != "1" {
		t.Errorf("processors allowed under cpuset.cpus 1: %q, %v", out, err)
	}
}

func TestIOLimitIsAccepted(t *testing.T) {
	dir := group(t)
	device := read(t, "/sys/block/vda/dev")
	write(t, dir+"/io.max", device+" wbps=1048576")
	if got := read(t, dir+"/io.max"); !strings.Contains(got, "wbps=1048576") {
		t.Errorf("io.max is %q after setting wbps", got)
	}
}

func TestResourceCapability(t *testing.T) {
	// Raising a hard limit takes CAP_SYS_RESOURCE.
	out, err := exec.Command("sh", "-c", "ulimit -n 100 && ulimit -Hn 200 && echo -500 >/proc/self/oom_score_adj").CombinedOutput()
	if err != nil {
		t.Errorf("raise a hard limit, lower oom_score_adj: %v\n%s", err, out)
	}
}

func TestAppArmorConfines(t *testing.T) {
	if got := read(t, "/sys/module/apparmor/parameters/enabled"); got != "Y" {
		t.Fatalf("apparmor enabled: %s", got)
	}
	const profile = `profile guest-probe flags=(attach_disconnected) {
  file,
  deny /etc/hostname w,
}`
	parser := func(flag string) {
		t.Helper()
		cmd := exec.Command("apparmor_parser", flag, "--skip-cache")
		cmd.Stdin = strings.NewReader(profile)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apparmor_parser %s: %v\n%s", flag, err, out)
		}
	}
	parser("--add")
	t.Cleanup(func() { parser("--remove") })
	out, err := exec.Command("sh", "-c",
		`echo exec guest-probe >/proc/self/attr/exec && exec sh -c 'cat /proc/self/attr/current; echo x >/etc/hostname'`).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("guest-probe (enforce)")) || !bytes.Contains(out, []byte("Permission denied")) {
		t.Errorf("write to a denied file: %v\n%s", err, out)
	}
}

func TestFileSystems(t *testing.T) {
	known := read(t, "/proc/filesystems")
	for _, name := range []string{"overlay", "erofs", "ext4", "fuse", "tmpfs", "mqueue"} {
		if !strings.Contains(known+"\n", "\t"+name+"\n") {
			t.Errorf("the kernel does not know %s", name)
		}
	}
}

// TestModulesLoadByThemselves relies on the kernel calling modprobe.
func TestModulesLoadByThemselves(t *testing.T) {
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	ip("link", "add", "probe0", "type", "dummy")
	defer ip("link", "delete", "probe0")
	ip("link", "add", "link", "probe0", "name", "probe1", "type", "macvlan")
	ip("link", "delete", "probe1")
}

func TestNoNetwork(t *testing.T) {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lo" {
			t.Errorf("network device %s", e.Name())
		}
	}
}
