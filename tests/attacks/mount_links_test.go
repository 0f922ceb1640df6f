package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Symbolic links under mount targets, in the image and in volumes: absolute,
// with "..", to nothing, in a circle, over several layers. Runtimes have
// mounted on the host's files, or made the host's directories, through each of
// them (CVE-2019-19921, CVE-2021-30465, CVE-2023-27561).
//
// What prevents it here: the planner resolves a target within the container's
// root, as the container will see it, and what it found is opened without
// following anything. A source is the user's word and may be a link.

func TestLinksUnderTargets(t *testing.T) {
	guardLeaks(t)
	canary := hostCanary(t)
	up := "../../../../../../../../../../.." + canary
	for to, want := range map[string]string{ // link of the image to where the mount is then
		"/elsewhere": "/elsewhere/at", "../../elsewhere": "/elsewhere/at", "other": "/data/other/at", "/": "/at", "..": "/at", ".": "/data/at",
		canary: canary + "/at", up: canary + "/at", "/nowhere/../elsewhere": "", "/data/link": "", "link": "",
		"/proc/self/root": "", "/proc/1/cwd": "", "/etc/passwd": "", "/proc": "", "/proc/sys/kernel": "", "/dev/fd": "/dev/fd/at",
		"/sys/kernel": "", strings.Repeat("x", 300): "",
	} {
		for _, file := range []bool{false, true} {
			tg := newTarget(t, "sh", "-c", "cat /proc/self/mountinfo;"+masks)
			tg.write(t, "elsewhere/x", "", 0o644)
			tg.link(t, to, "data/link")
			source := t.TempDir()
			if file {
				source = filepath.Join(source, "file")
				if err := os.WriteFile(source, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tg.spec.Mounts = []workload.Mount{{Type: "bind", Source: source, Target: "/data/link/at"}}
			err := tg.start(t)
			if err != nil {
				if want != "" {
					t.Errorf("%s: %v", to, err)
				}
				continue
			}
			out := tg.out.text(t)
			judge(t, out)
			if points := mountPoints(t, out); want == "" || points[want] != 1 {
				t.Errorf("link to %s: want the mount at %q: %s", to, want, out)
			}
		}
	}
}

// TestLinksInVolumes: whoever shares a volume chooses its links, so these may
// not lead a mount out of it.
func TestLinksInVolumes(t *testing.T) {
	guardLeaks(t)
	hostCanary(t)
	for to, allowed := range map[string]bool{
		"inside": true, "/vol/inside": true, "inside/../inside": true,
		"..": false, "/": false, "/etc": false, "/etc/new": false, "../../..": false, "/proc/sys": false, "link": false, "/vol/link": false,
	} {
		volume, source := t.TempDir(), t.TempDir()
		if err := os.Mkdir(filepath.Join(volume, "inside"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(volume, "link")); err != nil {
			t.Fatal(err)
		}
		tg := newTarget(t, "sh", "-c", "cat /proc/self/mountinfo;"+masks)
		tg.hostUser()
		tg.spec.Mounts = []workload.Mount{{Type: "bind", Source: volume, Target: "/vol"}, {Type: "bind", Source: source, Target: "/vol/link/at"}}
		err := tg.start(t)
		if allowed != (err == nil) {
			t.Errorf("link to %s: %v", to, err)
		}
		if err != nil {
			continue
		}
		out := tg.out.text(t)
		judge(t, out)
		if mountPoints(t, out)["/vol/inside/at"] != 1 {
			t.Errorf("link to %s: %s", to, out)
		}
	}
}

// TestLinksOverLayers: a lower layer's directory is a link in a higher one, or
// the other way round. What counts is what overlayfs shows.
func TestLinksOverLayers(t *testing.T) {
	guardLeaks(t)
	canary := hostCanary(t)
	tg := newTarget(t, "sh", "-c", "cat /proc/self/mountinfo;"+masks)
	second := filepath.Join(filepath.Dir(tg.layer), "second")
	tg.write(t, "data/dir/x", "", 0o644) // a directory below …
	if err := os.MkdirAll(filepath.Join(second, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(canary, filepath.Join(second, "data/dir")); err != nil { // … a link above
		t.Fatal(err)
	}
	tg.link(t, canary, "data/covered")                                             // a link below …
	if err := os.Mkdir(filepath.Join(second, "data/covered"), 0o755); err != nil { // … a directory above
		t.Fatal(err)
	}
	tg.prep.Layers = append(tg.prep.Layers, second)
	tg.spec.Mounts = []workload.Mount{
		{Type: "bind", Source: t.TempDir(), Target: "/data/dir/at"}, {Type: "tmpfs", Target: "/data/covered/at"},
	}
	out := tg.run(t)
	judge(t, out)
	points := mountPoints(t, out)
	if points[canary+"/at"] != 1 || points["/data/covered/at"] != 1 {
		t.Errorf("got %s", out)
	}
}

// TestSourceIsALink: the user may name a link as the source.
func TestSourceIsALink(t *testing.T) {
	guardLeaks(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tg := newTarget(t, "cat", "/data/file")
	tg.spec.Mounts = []workload.Mount{{Type: "bind", Source: filepath.Join(dir, "link"), Target: "/data/file", ReadOnly: true}}
	if out := tg.run(t); out != "content" {
		t.Errorf("got %q", out)
	}
}
