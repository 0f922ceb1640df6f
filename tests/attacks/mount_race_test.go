package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// CVE-2021-30465, and the races of CVE-2025-31133 and CVE-2025-52881: two
// containers share a volume. While one starts, with a mount whose target lies
// in the volume, the other exchanges a directory there for a symbolic link
// again and again. The runtime looked at the path, found a directory, mounted,
// and the kernel followed the link: out of the root.
//
// What prevents it here: the target is opened by openat2(2) with
// RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS below the new root, and the mount is
// moved onto that descriptor (move_mount(2), MOVE_MOUNT_T_EMPTY_PATH). Between
// the two nothing is looked up any more. A link that appears in time ends the
// start with ELOOP.
//
// Kernel facts: renameat2(2) with RENAME_EXCHANGE is atomic; a mount moves along
// with the directory that it is mounted on.

// raceRounds bounds the race for each link.
const raceRounds = 30

func TestMountTargetRace(t *testing.T) {
	guardLeaks(t)
	usual := mountPoints(t, usualTarget(t).run(t))
	for _, to := range []string{"/proc", "/proc/sys", "/", "..", "../../../../../..", "/sys", "/etc"} {
		t.Run(to, func(t *testing.T) { raceTarget(t, to, usual) })
	}
}

// usualTarget is a container with the volume and nothing that races.
func usualTarget(t *testing.T) *target {
	t.Helper()
	tg := newTarget(t, "sh", "-c", "cat /proc/self/mountinfo;"+masks)
	tg.hostUser() // it shares files with the other one, and is not protected by their owners
	return tg
}

// mountPoints are the fifth fields of mountinfo, proc_pid_mountinfo(5).
func mountPoints(t *testing.T, out string) map[string]int {
	t.Helper()
	points := map[string]int{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 8 && strings.Contains(line, " - ") {
			points[f[4]]++
		}
	}
	if points["/"] == 0 || points["/proc"] == 0 {
		t.Fatalf("no mounts in %s", out)
	}
	return points
}

func raceTarget(t *testing.T, to string, usual map[string]int) {
	volume, source := t.TempDir(), t.TempDir()
	if err := os.Chmod(volume, 0o777); err != nil {
		t.Fatal(err)
	}
	attacker := newTarget(t, "inside", "swap", "/vol/a", to)
	attacker.hostUser()
	attacker.spec.Mounts = []workload.Mount{{Type: "bind", Source: volume, Target: "/vol"}}
	attacker.mustStart(t)
	waitFor(t, "the attacker", func() bool { _, err := os.Lstat(filepath.Join(volume, "swapping")); return err == nil })
	refused, started := 0, 0
	for n := range raceRounds {
		// In turn: an existing directory of the volume, one below it, a file, an
		// empty file system. The names are such as the link leads to.
		m := workload.Mount{Type: "bind", Source: source, Target: []string{"/vol/a", "/vol/a/sys", "/vol/a/sys/kernel"}[n%3]}
		if n%4 == 3 {
			m = workload.Mount{Type: "tmpfs", Target: m.Target}
		}
		if n%5 == 4 {
			m = workload.Mount{Type: "bind", Source: filepath.Join(work, "base/etc/passwd"), Target: "/vol/a/passwd"}
		}
		tg := usualTarget(t)
		tg.spec.Mounts = []workload.Mount{{Type: "bind", Source: volume, Target: "/vol"}, m}
		if err := tg.start(t); err != nil {
			refused++
			continue
		}
		started++
		out := tg.out.text(t)
		judge(t, out)
		inVolume := 0
		for point, n := range mountPoints(t, out) {
			switch {
			case strings.HasPrefix(point, "/vol/"):
				inVolume += n
			case point != "/vol" && n != usual[point]:
				t.Errorf("%d mounts at %s, want %d", n, point, usual[point])
			}
		}
		if inVolume != 1 {
			t.Errorf("%s at %s: %d mounts in the volume, want 1\n%s", m.Type, m.Target, inVolume, out)
		}
	}
	if err := os.WriteFile(filepath.Join(volume, "stop"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	swaps := lines(attacker.out.text(t))["swaps"]
	t.Logf("%d refused, %d started, %s swaps", refused, started, swaps)
	if swaps == "" || swaps == "0" {
		t.Error("nothing was exchanged")
	}
	if refused == 0 {
		t.Error("no start met the link: the race was not one")
	}
}
