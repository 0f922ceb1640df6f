package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// CVE-2026-41579: an image whose /dev is a symbolic link. The runtime put its
// own links into /dev (fd, stdin, ptmx) by joining the path of the root file
// system with theirs, so that they, and the removal of what was there before,
// went where the image's link leads on the host: a limited write outside of the
// root. CVE-2026-55686 is its sibling for the working directory, which was made
// through a link of the image's.
//
// What prevents it here: links of the image are resolved within its root before
// anything is made, and every directory, node and link is made in a directory
// that is held by a descriptor, opened beneath the root without following any
// link. A /dev that leads to /proc or to the root itself is refused.
//
// Kernel facts: openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS.

// hostCanary makes a directory that image links point at, and fails the test
// when anything in it changes.
func hostCanary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(work, "canary")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ptmx", "fd", "stdin", "null"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("canary"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer os.RemoveAll(dir)
		after, err := os.Stat(dir)
		if err != nil || after.ModTime() != before.ModTime() {
			t.Errorf("the host's directory was changed: %v", err)
		}
		for _, name := range []string{"ptmx", "fd", "stdin", "null"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "canary" {
				t.Errorf("the host's file %s is %q, %v", name, b, err)
			}
		}
	})
	return dir
}

func TestDevIsALink(t *testing.T) {
	guardLeaks(t)
	canary := hostCanary(t)
	up := "../../../../../../../../../.." + canary
	for _, to := range []string{canary, up, "/", ".", "..", "/proc", "proc/sys", "/sys", "/tmp", "tmp/..", "/nowhere", "nowhere/at/all", "dev", "/dev/pts", "/etc/passwd", "/usr/../etc"} {
		for _, user := range []string{"own", "host"} {
			for _, terminal := range []bool{false, true} {
				t.Run(to+", user namespace "+user, func(t *testing.T) {
					tg := newTarget(t, "sh", "-c", masks)
					if user == "host" {
						tg.hostUser()
					}
					tg.link(t, to, "dev")
					judgeStart(t, tg, terminal)
				})
			}
		}
	}
}

// TestDevIsTheRoot: a file system over the root would hide the image, and what
// protects it, from the planner's view only.
func TestDevIsTheRoot(t *testing.T) {
	guardLeaks(t)
	for _, to := range []string{"/", ".", "..", "../..", "tmp/..", "/tmp/../."} {
		tg := newTarget(t, "true")
		tg.link(t, to, "dev")
		if err := tg.start(t); err == nil || !strings.Contains(err.Error(), "container's root") {
			t.Errorf("link to %s: %v", to, err)
		}
	}
}

func TestWorkingDirectoryIsALink(t *testing.T) {
	guardLeaks(t)
	canary := hostCanary(t)
	running := newTarget(t, "sleep", "60")
	for _, to := range []string{canary, "../../../../../../../../.." + canary, "/proc/sys", "/nowhere", "loop"} {
		tg := newTarget(t, "inside", "descriptors")
		tg.link(t, to, "loop")
		tg.spec.Process.Cwd = "/loop/made"
		if err := tg.start(t); err == nil {
			checkInside(t, to, tg.out.text(t))
		}
	}
	running.link(t, canary, "loop")
	running.mustStart(t)
	for _, cwd := range []string{"/loop", "/loop/made"} {
		if out, err := running.exec(t, func(p *workload.Process) { p.Cwd = cwd }, "inside", "descriptors"); err == nil {
			t.Errorf("exec in %s: %q", cwd, out)
		}
	}
}
