package attacks

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Executing in a container that has turned hostile: whatever "exec" reads there
// (users, the program, the terminal's multiplexer) may be something else by now.
// Runtimes have hung on FIFOs, read without end, loaded libraries of the
// container (CVE-2019-14271), and opened devices.
//
// What prevents it here: what is looked at is opened beneath the container's
// root, without blocking, and only if it is a regular file, of at most 4 MiB.
// The multiplexer is opened for use only once it was seen to be one, of a
// devpts. Nothing of the container's is loaded or executed by us.
//
// Kernel facts: O_NONBLOCK on a FIFO does not wait for a writer; O_PATH opens
// nothing.

// execLimit is how long an exec may take before it counts as a hang.
const execLimit = 10 * time.Second

// execBounded runs a process and judges that it comes back.
func execBounded(t *testing.T, tg *target, p workload.Process) (out string, err error) {
	t.Helper()
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out := newOutput(t)
		ctx, cancel := context.WithTimeout(context.Background(), execLimit)
		defer cancel()
		proc, err := tg.inst.Exec(ctx, p, boundary.Stdio{Out: out.w, Err: out.w})
		out.started()
		if err != nil {
			done <- result{err: err}
			return
		}
		var fromTerminal string
		if tty := proc.Terminal(); tty != nil {
			b := make([]byte, 4096)
			n, _ := tty.Read(b)
			fromTerminal = string(b[:n])
			tty.Close()
		}
		_, err = proc.Wait(ctx)
		<-out.done
		done <- result{out.buf.String() + fromTerminal, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-time.After(execLimit + 5*time.Second):
		t.Fatalf("exec of %q hangs", p.Args)
		return "", nil
	}
}

func hostileProcess(user string, args ...string) workload.Process {
	return workload.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, User: user}
}

// TestExecInHostileContainer has the container prepare itself by a script, and
// says "ready". want is in the error, or "" where exec is to work.
func TestExecInHostileContainer(t *testing.T) {
	guardLeaks(t)
	cases := map[string]struct {
		script  string
		process workload.Process
		want    string
	}{
		"passwd is a FIFO":         {"rm /etc/passwd; mkfifo /etc/passwd", hostileProcess("user", "id"), "not a regular file"},
		"group is a FIFO":          {"rm /etc/group; mkfifo /etc/group", hostileProcess("user", "id"), "not a regular file"},
		"passwd is a FIFO, number": {"rm /etc/passwd; mkfifo /etc/passwd", hostileProcess("", "echo", "uid="), ""},
		"passwd is a device":       {"rm /etc/passwd; ln -s /dev/zero /etc/passwd", hostileProcess("user", "id"), "not a regular file"},
		"passwd is a terminal":     {"rm /etc/passwd; ln -s /dev/tty /etc/passwd", hostileProcess("user", "id"), "not a regular file"},
		"passwd is endless":        {"rm /etc/passwd; ln -s /proc/self/mem /etc/passwd", hostileProcess("user", "id"), "magic link"},
		"passwd is a kernel file":  {"rm /etc/passwd; ln -s /proc/kmsg /etc/passwd", hostileProcess("user", "id"), "not a regular file"},
		"passwd is of sysfs":       {"rm /etc/passwd; ln -s /sys/kernel/uevent_seqnum /etc/passwd", hostileProcess("user", "id"), "not a regular file"},
		"passwd is huge":           {"rm /etc/passwd; dd if=/dev/zero of=/etc/passwd bs=1 count=1 seek=1000000000000", hostileProcess("user", "id"), "larger than"},
		"passwd is a loop":         {"rm /etc/passwd; ln -s passwd /etc/passwd", hostileProcess("user", "id"), "too many levels"},
		"passwd leads out":         {"rm /etc/passwd; ln -s ../../../../../../etc/passwd /etc/passwd", hostileProcess("user", "id"), "too many levels"},
		"passwd has lines":         {"yes 'user:x:1000:1000::/:/bin/sh' | head -c 3000000 >/etc/passwd", hostileProcess("user", "id"), ""},
		"passwd has one line":      {"head -c 3000000 /dev/zero | tr '\\0' x >/etc/passwd", hostileProcess("user", "id"), "user"},
		"user is root outside":     {"echo 'user:x:4294967295:0::/:/bin/sh' >/etc/passwd", hostileProcess("user", "id"), "user"},
		"user beyond the range":    {"echo 'user:x:70000:70000::/:/bin/sh' >/etc/passwd", hostileProcess("user", "id"), "70000"},
		"user below zero":          {"echo 'user:x:-1:-1::/:/bin/sh' >/etc/passwd", hostileProcess("user", "id"), "user"},
		"program is our own":       {"rm /bin/id; ln -s /proc/self/exe /bin/id", hostileProcess("", "id"), "id"},
		"program is a FIFO":        {"rm /bin/id; mkfifo -m 755 /bin/id", hostileProcess("", "id"), "not a regular file"},
		"program is a directory":   {"rm /bin/id; mkdir /bin/id", hostileProcess("", "id"), "directory"},
		"program is a loop":        {"rm /bin/id; ln -s id /bin/id", hostileProcess("", "id"), "id"},
		"bin is gone":              {"mv /bin /gone", hostileProcess("", "id"), "id"},
		"root is a chroot":         {"mkdir -p /tmp/r/bin; cp /bin/busybox /tmp/r/bin/; echo ready; exec chroot /tmp/r /bin/busybox sleep 60", hostileProcess("", "/bin/busybox", "id"), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tg := newTarget(t, "sh", "-c", c.script+"; echo ready; [ -e /gone/busybox ] && exec /gone/busybox sleep 60; exec sleep 60")
			tg.mustStart(t)
			waitReady(t, tg)
			begin := time.Now()
			out, err := execBounded(t, tg, c.process)
			took := time.Since(begin).Round(time.Millisecond)
			switch {
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %q, %v after %v; want an error with %q", out, err, took, c.want)
			case c.want == "" && err == nil && out != "" && !strings.Contains(out, "uid="):
				t.Errorf("got %q after %v", out, took)
			}
			t.Logf("%v: %.200q, %.200v", took, out, err)
		})
	}
}

// waitReady waits until the container says that it is.
func waitReady(t *testing.T, tg *target) {
	t.Helper()
	waitFor(t, "the container's script", func() bool { return tg.out.contains("ready") })
}

// TestHostileAccountsOfAnImage is the same for the first process, whose user is
// looked up in the image.
func TestHostileAccountsOfAnImage(t *testing.T) {
	guardLeaks(t)
	for _, to := range []string{"/proc/kmsg", "/dev/kmsg", "/proc/self/mem", "/proc/self/fd/0", "/dev/zero", "/sys/kernel/uevent_seqnum", "passwd", "/proc/self/environ"} {
		tg := newTarget(t, "id")
		if err := os.Mkdir(filepath.Join(tg.layer, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		tg.link(t, to, "etc/passwd")
		tg.spec.Process.User = "user"
		begin := time.Now()
		err := tg.start(t)
		if took := time.Since(begin); err == nil || took > execLimit {
			t.Errorf("passwd is %s: %v after %v", to, err, took)
		}
		t.Log(to, err)
	}
}

// TestTerminalInHostileContainer replaces what exec opens for a terminal.
func TestTerminalInHostileContainer(t *testing.T) {
	guardLeaks(t)
	// What it takes to cover /dev/pts, which is locked: a mount on top of it.
	for name, script := range map[string]string{
		"nothing":        "true",
		"empty":          "mount -t tmpfs none /dev/pts",
		"a file":         "mount -t tmpfs none /dev/pts; touch /dev/pts/ptmx",
		"a FIFO":         "mount -t tmpfs none /dev/pts; mkfifo /dev/pts/ptmx",
		"a link":         "mount -t tmpfs none /dev/pts; ln -s /dev/zero /dev/pts/ptmx",
		"a link to proc": "mount -t tmpfs none /dev/pts; ln -s /proc/self/mem /dev/pts/ptmx",
		"a device":       "mount -t tmpfs none /dev/pts; touch /dev/pts/ptmx; mount --bind /dev/zero /dev/pts/ptmx",
		"a terminal":     "touch /tmp/x; mount --bind /dev/tty /dev/pts/ptmx",
		"dev is a link":  "mount -t tmpfs none /dev; ln -s /tmp /dev/pts; mkfifo /tmp/ptmx",
		"a new instance": "mount -t devpts -o newinstance,ptmxmode=0666 none /dev/pts",
	} {
		t.Run(name, func(t *testing.T) {
			tg := newTarget(t, "sh", "-c", script+"; echo ready; exec sleep 60")
			tg.all()
			tg.spec.Security.Seccomp, tg.spec.Security.AppArmor = "unconfined", "unconfined"
			tg.mustStart(t)
			waitReady(t, tg)
			p := hostileProcess("", "tty")
			p.Terminal = true
			out, err := execBounded(t, tg, p)
			switch {
			case name == "nothing" || name == "a new instance":
				if err != nil || !strings.Contains(out, "/dev/pts/") {
					t.Errorf("got %q, %v", out, err)
				}
			case err == nil:
				t.Errorf("exec took %s for a terminal: %q", name, out)
			}
			t.Logf("%q, %v", out, err)
		})
	}
}

// TestPivotInside: the container changes its own root and mounts something else
// there. A process that is executed lands in it, and nowhere else.
func TestPivotInside(t *testing.T) {
	guardLeaks(t)
	canary := hostCanary(t)
	tg := newTarget(t, "sh", "-c", `mkdir /tmp/r && mount -t tmpfs none /tmp/r && mkdir /tmp/r/bin /tmp/r/old && cp /bin/busybox /tmp/r/bin/ &&
		cd /tmp/r && pivot_root . old && exec ./bin/busybox sh -c '/bin/busybox umount -l /old; echo ready; exec /bin/busybox sleep 60' || echo ready, refused`)
	tg.all()
	tg.spec.Security.Seccomp, tg.spec.Security.AppArmor = "unconfined", "unconfined"
	tg.mustStart(t)
	waitReady(t, tg)
	out, err := execBounded(t, tg, hostileProcess("", "/bin/busybox", "sh", "-c", "/bin/busybox ls /; /bin/busybox ls -d "+canary+" && echo BAD"))
	if strings.Contains(out, "BAD") {
		t.Errorf("got %q", out)
	}
	t.Logf("%q, %v", out, err)
}

// TestLibrariesOfTheContainer: what a program of ours loads, it loads from the
// host. Ours load nothing: they are static.
func TestLibrariesOfTheContainer(t *testing.T) {
	guardLeaks(t)
	tg := newTarget(t, "sleep", "60")
	for _, name := range []string{"etc/nsswitch.conf", "etc/ld.so.preload", "etc/ld.so.cache"} {
		tg.write(t, name, "hostile\n", 0o644)
	}
	tg.mustStart(t)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := execBounded(t, tg, hostileProcess("user", "id")); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(after)) {
		if f := strings.Fields(line); len(f) == 6 && f[5][0] == '/' && !strings.Contains(string(maps), f[5]) {
			t.Errorf("this process has mapped %s now", f[5])
		}
	}
}
