package acceptance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// bootLimit is how long a whole system may take to boot under emulation on a
// busy machine. It only ends what hangs.
const bootLimit = 8 * time.Minute

// slow runs a command that may take as long as a boot.
func (w *world) slow(args ...string) result {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), bootLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "bulkhead"), args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+w.root, "TZ=UTC")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		w.Fatalf("%s: not done after %v\n%s%s", show(args), bootLimit, out.String(), errs.String())
	}
	return result{out.String(), errs.String(), exitCode(w, err)}
}

// newSystemWorld makes a state root with the image "debian", whose init is
// systemd, and with the kernels of the cache, where there are any.
func newSystemWorld(t *testing.T) *world {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("QEMU is not installed: qemu-system-x86")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(root, "tests/images/make"), "systemd").CombinedOutput(); err != nil {
		t.Fatalf("make the image: %v\n%s", err, out)
	}
	kernels := filepath.Join(root, ".cache/machines/kernels")
	if err := os.MkdirAll(kernels, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "acc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Symlink(kernels, filepath.Join(dir, "kernels")); err != nil {
		t.Fatal(err)
	}
	w := newWorldIn(t, dir)
	w.ok("import", filepath.Join(root, ".cache/images/systemd.tar"), "debian")
	return w
}

// booted waits until systemd has started all it wants to.
func (w *world) booted(name string) {
	w.Helper()
	r := w.slow("exec", name, "systemctl", "is-system-running", "--wait")
	for end := time.Now().Add(bootLimit); r.out != "running\n" && r.out != "degraded\n" && time.Now().Before(end); time.Sleep(time.Second) {
		// systemd does not listen yet, and there is nothing else to wait for.
		r = w.slow("exec", name, "systemctl", "is-system-running", "--wait")
	}
	if r.out != "running\n" {
		w.Fatalf("the system is %q (%s); failed units:\n%s", r.out, r.err, w.slow("exec", name, "systemctl", "--failed", "--no-pager").out)
	}
}

// TestSystemStoppedEarly stops a system that has only just begun to boot: its init
// is not ready for signals yet, and the kernel would drop them.
func TestSystemStoppedEarly(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a whole system")
	}
	w := newSystemWorld(t)
	if r := w.slow("run", "-d", "--name", "sys", "--boundary", "vm", "--systemd", "debian"); r.code != 0 {
		t.Fatalf("run: %+v", r)
	}
	if r := w.slow("stop", "--time", "300", "sys"); r.code != 0 {
		t.Errorf("stop: %+v", r)
	}
	if code := w.inspect("sys", ".State.ExitCode"); code != "0" {
		t.Errorf("stopped, it has the exit code %s: %s", code, w.inspect("sys", ".State.Error"))
	}
}

// TestSystem boots Debian with its own init, to multi-user, works in it, and
// lets it end in each of the ways a machine ends.
func TestSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a whole system twice")
	}
	w := newSystemWorld(t)
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "hello"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := w.slow("run", "-d", "--name", "sys", "--boundary", "vm", "--systemd", "--privileged", "--cpus", "2", "-v", shared+":/srv/shared",
		"--tmpfs", "/scratch", "--hostname", "whole", "debian"); r.code != 0 {
		t.Fatalf("run: %+v", r)
	}
	w.booted("sys")

	for _, c := range []struct{ what, script, want string }{
		{"its init", "cat /proc/1/comm", "systemd\n"},
		{"no container", "systemd-detect-virt --container || true", "none\n"},
		{"its name", "hostname; cat /etc/hostname", "whole\nwhole\n"},
		{"a machine ID of its own", "wc -c </etc/machine-id", "33\n"},
		{"multi-user", "systemctl is-active multi-user.target", "active\n"},
		{"the journal", "journalctl -b --no-pager -q -o cat -u dbus.service | head -n 1", "Starting dbus.service - D-Bus System Message Bus...\n"},
		{"every capability", "grep CapEff /proc/self/status", "CapEff:\t000001ffffffffff\n"},
		{"modules", "modprobe dummy && grep -c ^dummy /proc/modules", "1\n"},
		{"a file system in a file", "truncate -s 16M /f && mkfs.ext4 -q /f && mkdir /loop && mount -o loop /f /loop && stat -f -c %T /loop && umount /loop", "ext2/ext3\n"},
		{"mounts", "mount -t tmpfs none /mnt && stat -f -c %T /mnt && umount /mnt", "tmpfs\n"},
		{"containers", "unshare -Urmp --fork id -u", "0\n"},
		{"a volume", "cat /srv/shared/hello; echo back >/srv/shared/reply; stat -c %u /srv/shared/hello", "from the host\n0\n"},
		{"a file system in memory", "stat -f -c %T /scratch", "tmpfs\n"},
		{"a service's words", "systemd-run -q --wait -p StandardOutput=journal echo said by a service", ""},
		{"data", "echo kept >/root/data; cat /etc/machine-id >/root/id", ""},
	} {
		if r := w.slow("exec", "sys", "sh", "-c", c.script); r.out != c.want || r.code != 0 {
			t.Errorf("%s: %s gives %q, %q, code %d; want %q", c.what, c.script, r.out, r.err, r.code, c.want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(shared, "reply")); string(b) != "back\n" {
		t.Errorf("the volume holds %q, %v", b, err)
	}
	if r := w.slow("exec", "-u", "www-data", "sys", "id", "-un"); r.out != "www-data\n" {
		t.Errorf("exec as a user of the system: %+v", r)
	}
	if r := w.slow("exec", "sys", "sh", "-c", "kill -INT $$"); r.code != 130 {
		t.Errorf("exec of what a signal ends: %+v", r)
	}
	x := w.terminal("exec", "-it", "sys", "sh")
	x.expect("# ")
	x.say("tty; stty size; exit 5\r")
	x.expect("/dev/pts/")
	x.expect("24 80")
	if code := x.end(); code != 5 {
		t.Errorf("the shell on a terminal ended with %d, want 5", code)
	}

	if r := w.slow("stop", "sys"); r.code != 0 {
		t.Errorf("stop: %+v", r)
	}
	if code := w.inspect("sys", ".State.ExitCode"); code != "0" {
		t.Errorf("stopped, it has the exit code %s: %s", code, w.inspect("sys", ".State.Error"))
	}
	log := w.ok("logs", "sys")
	for _, want := range []string{"Reached target multi-user.target", "said by a service", "Reached target poweroff.target"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if bad := regexp.MustCompile(`[\x1b\r]`).FindString(log); bad != "" {
		t.Errorf("the log has %q in it", bad)
	}

	if r := w.slow("start", "sys"); r.code != 0 {
		t.Fatalf("start: %+v", r)
	}
	w.booted("sys")
	if r := w.slow("exec", "sys", "sh", "-c", "cat /root/data; cmp /root/id /etc/machine-id"); r.out != "kept\n" || r.code != 0 {
		t.Errorf("after a second start: %+v", r)
	}
	if r := w.slow("exec", "sys", "systemctl", "reboot"); r.code != 0 {
		t.Errorf("reboot: %+v", r)
	}
	if r := w.slow("wait", "sys"); r.out != "133\n" {
		t.Errorf("a reboot from inside ends it with %+v, want 133", r)
	}
}
