package attacks

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CVE-2025-31133: a path was masked by binding the container's own /dev/null
// over it. Where the image, or a process racing with the start, had put a link
// there, the mask became a way in: the link's target, /proc/sys/kernel/core_pattern
// say, was bound over the masked path, writable. And where /dev/null was
// missing, the error was ignored and nothing was masked.
//
// What prevents it here: a mask is a clone of the host's own /dev/null, opened
// while the host's files are in sight and not by a path inside, and it is
// moved onto a target that was opened without following links. A mask that
// cannot be made ends the start. It is read-only: without a user namespace
// root inside owns the host's node, and could change its mode for everybody.
//
// Kernel facts: /dev/null takes writes through a read-only mount, chmod(2) does
// not go through one. A whole directory is masked by an empty, read-only tmpfs.

// masks judges the masked and read-only paths from inside.
const masks = `
for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
	[ -e $f ] || continue
	[ "$(stat -c %t:%T $f)" = 1:3 ] || echo "BAD $f is no null device"
	[ "$(head -c 10 $f | wc -c)" = 0 ] || echo "BAD $f has content"
done
for d in /proc/acpi /proc/scsi /sys/firmware /sys/dev/block; do
	[ -d $d ] || continue
	[ -z "$(ls -A $d)" ] || echo "BAD $d has entries"
	touch $d/x 2>/dev/null && echo "BAD $d is writable"
done
for d in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do
	[ -e $d ] || continue
	grep -q " $d [a-z0-9]* ro," /proc/self/mounts || echo "BAD $d is not read-only"
done
for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/kernel/hostname; do
	(echo x >$f) 2>/dev/null && echo "BAD wrote $f"
done
[ "$(stat -c %t:%T /dev/null)" = 1:3 ] || echo "BAD /dev/null"
echo judged
`

func judge(t *testing.T, out string) {
	t.Helper()
	if !strings.Contains(out, "judged\n") || strings.Contains(out, "BAD") {
		t.Errorf("got %s", out)
	}
}

// TestImageBringsDevices starts images that bring the places of our mounts as
// something else. Either the start fails or everything is as it should be.
func TestImageBringsDevices(t *testing.T) {
	guardLeaks(t)
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]func(*testing.T, *target){
		"null is a link":           func(t *testing.T, tg *target) { tg.link(t, "/proc/sys/kernel/core_pattern", "dev/null") },
		"null is a file":           func(t *testing.T, tg *target) { tg.write(t, "dev/null", "text", 0o666) },
		"null is a directory":      func(t *testing.T, tg *target) { tg.write(t, "dev/null/x", "", 0o666) },
		"null links to itself":     func(t *testing.T, tg *target) { tg.link(t, "null", "dev/null") },
		"console is a link":        func(t *testing.T, tg *target) { tg.link(t, "/proc/sysrq-trigger", "dev/console") },
		"pts is a link":            func(t *testing.T, tg *target) { tg.link(t, "/proc", "dev/pts") },
		"pts is a file":            func(t *testing.T, tg *target) { tg.write(t, "dev/pts", "", 0o666) },
		"ptmx is a link":           func(t *testing.T, tg *target) { tg.link(t, "/proc/sysrq-trigger", "dev/ptmx") },
		"fd is a directory":        func(t *testing.T, tg *target) { tg.write(t, "dev/fd/x", "", 0o666) },
		"proc is a link to tmp":    func(t *testing.T, tg *target) { tg.link(t, "/tmp", "proc") },
		"proc is a link to sys":    func(t *testing.T, tg *target) { tg.link(t, "sys", "proc") },
		"proc is a file":           func(t *testing.T, tg *target) { tg.write(t, "proc", "", 0o666) },
		"proc leads out":           func(t *testing.T, tg *target) { tg.link(t, "../../../../proc", "proc") },
		"proc links to itself":     func(t *testing.T, tg *target) { tg.link(t, "proc", "proc") },
		"proc has files":           func(t *testing.T, tg *target) { tg.write(t, "proc/kcore", "x", 0o666) },
		"sys is a link to proc":    func(t *testing.T, tg *target) { tg.link(t, "/proc", "sys") },
		"sys is a link to tmp":     func(t *testing.T, tg *target) { tg.link(t, "/tmp", "sys") },
		"proc/sys is a link":       func(t *testing.T, tg *target) { tg.link(t, "/tmp", "proc/sys") },
		"sys/fs is a link":         func(t *testing.T, tg *target) { tg.link(t, "/proc", "sys/fs") },
		"mtab and resolv.conf out": func(t *testing.T, tg *target) { tg.link(t, "../../../proc/sysrq-trigger", "etc/resolv.conf") },
	}
	for name, make := range images {
		for _, user := range []string{"own", "host"} {
			for _, terminal := range []bool{false, true} {
				what := name + ", user namespace " + user
				if terminal {
					what += ", terminal"
				}
				t.Run(what, func(t *testing.T) {
					tg := newTarget(t, "sh", "-c", masks)
					make(t, tg)
					if user == "host" {
						tg.hostUser()
					}
					judgeStart(t, tg, terminal)
				})
			}
		}
	}
	if now, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || string(now) != string(pattern) {
		t.Errorf("core_pattern of the host: %q, was %q", now, pattern)
	}
}

// judgeStart starts a container whose image is hostile: a refusal is fine, and
// what does start must be masked.
func judgeStart(t *testing.T, tg *target, terminal bool) {
	t.Helper()
	tg.spec.Process.Terminal = terminal
	if err := tg.start(t); err != nil {
		t.Log("refused:", err)
		return
	}
	if !terminal {
		judge(t, tg.out.text(t))
		return
	}
	judge(t, strings.ReplaceAll(readTerminal(t, tg.inst.Terminal()), "\r", ""))
}

// TestMaskIsTheHostsNode changes the mode and the owner of a mask, which is the
// host's own /dev/null, from a container in the host's user namespace.
func TestMaskIsTheHostsNode(t *testing.T) {
	guardLeaks(t)
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for the run in which the protection is missing
		unix.Chown("/dev/null", int(before.Uid), int(before.Gid))
		unix.Chmod("/dev/null", before.Mode&0o7777)
		os.Chtimes("/dev/null", time.Time{}, time.Unix(before.Mtim.Unix()))
	})
	// A mode that does no harm if the attack succeeds.
	tg := newTarget(t, "sh", "-c", "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] || continue; chmod 0667 $f; chown 0:1 $f; touch -d @1 $f; echo x >$f && echo wrote; done; echo tried")
	tg.hostUser()
	tg.spec.Security.AppArmor = "unconfined" // the default profile keeps it from trying
	out := tg.run(t)
	if err := unix.Stat("/dev/null", &after); err != nil {
		t.Fatal(err)
	}
	if before.Mode != after.Mode || before.Gid != after.Gid || before.Mtim != after.Mtim {
		t.Errorf("the host's /dev/null has mode %#o, group %d, time %d now", after.Mode, after.Gid, after.Mtim.Sec)
	}
	if !strings.Contains(out, "tried") || !strings.Contains(out, "wrote") || strings.Contains(out, "can't create") {
		t.Errorf("a mask takes writes as /dev/null does; got %s", out)
	}
}

// TestMasksAreThere is the ordinary image, and the negative control: with the
// masks left out by a flag, the judge must find them missing.
func TestMasksAreThere(t *testing.T) {
	guardLeaks(t)
	tg := newTarget(t, "sh", "-c", masks)
	judge(t, tg.run(t))
	open := newTarget(t, "sh", "-c", masks)
	open.spec.Security.Unmask = []string{"ALL"}
	if out := open.run(t); !strings.Contains(out, "BAD /proc/keys") || !strings.Contains(out, "BAD /proc/sys is not read-only") {
		t.Errorf("without masks the judge says %q", out)
	}
}
