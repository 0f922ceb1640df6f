package attacks

import (
	"strings"
	"testing"
)

// CVE-2025-52565: the runtime mounted the container's terminal, found as
// /dev/pts/N inside, over /dev/console, and did so before the masks. A process
// racing with the start, or an image, replaced either of them by a link: the
// mount then covered a masked file of /proc with something writable, or bound
// a file of /proc at /dev/console.
//
// What prevents it here: the devpts instance is made detached, and the
// terminal is opened in it by descriptor, before there is any process inside;
// its other side comes from TIOCGPTPEER, which takes no path. /dev/console is a
// clone of that descriptor, moved to a target opened without following links.
// An image that has a link at /dev/console is covered by our /dev; where a
// bundle has no /dev of its own, the link is refused.
//
// Kernel facts: TIOCGPTPEER (Linux 4.13); device numbers 136 and following
// (88 hexadecimal) are terminals of devpts.

const judgeConsole = `
[ "$(stat -c %t:%T /dev/console)" = 88:0 ] || echo "BAD console is $(stat -c %t:%T /dev/console)"
[ "$(stat -c %t:%T /dev/pts/0)" = 88:0 ] || echo "BAD pts/0"
[ "$(tty)" = /dev/pts/0 ] || echo "BAD tty $(tty)"
[ "$(readlink /dev/ptmx)" = pts/ptmx ] || echo "BAD ptmx"
grep -q " /dev/pts devpts rw,nosuid,noexec" /proc/self/mounts || echo "BAD devpts"
echo through the console >/dev/console
` + masks

func TestConsole(t *testing.T) {
	guardLeaks(t)
	images := map[string]func(*testing.T, *target){
		"none":                  func(*testing.T, *target) {},
		"console to a mask":     func(t *testing.T, tg *target) { tg.link(t, "/proc/kcore", "dev/console") },
		"console to sysrq":      func(t *testing.T, tg *target) { tg.link(t, "../proc/sysrq-trigger", "dev/console") },
		"console is a dir":      func(t *testing.T, tg *target) { tg.write(t, "dev/console/x", "", 0o644) },
		"pts to proc":           func(t *testing.T, tg *target) { tg.link(t, "/proc/sys", "dev/pts") },
		"pts/0 to core_pattern": func(t *testing.T, tg *target) { tg.link(t, "/proc/sys/kernel/core_pattern", "dev/pts/0") },
		"ptmx to core_pattern":  func(t *testing.T, tg *target) { tg.link(t, "/proc/sys/kernel/core_pattern", "dev/pts/ptmx") },
	}
	for name, image := range images {
		for _, user := range []string{"own", "host"} {
			t.Run(name+", user namespace "+user, func(t *testing.T) {
				tg := newTarget(t, "sh", "-c", judgeConsole)
				image(t, tg)
				tg.spec.Process.Terminal = true
				if user == "host" {
					tg.hostUser()
				}
				tg.mustStart(t)
				out := strings.ReplaceAll(readTerminal(t, tg.inst.Terminal()), "\r", "")
				judge(t, out)
				if !strings.Contains(out, "through the console\n") {
					t.Errorf("/dev/console is not this terminal: %s", out)
				}
			})
		}
	}
}
