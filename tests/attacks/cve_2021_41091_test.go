package attacks

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// CVE-2021-41091: the directories of an engine's store could be entered by
// every user of the host. An image brings programs that are setuid root; with
// image IDs stored as they are, a user of the host executed one and was root.
//
// What prevents it here: the state directories have mode 0700, so that nothing
// below them is reached by a path, whatever the modes of an image are. What a
// container writes belongs to IDs of its own range, in which root is nobody.
//
// Kernel facts: search permission is checked for every directory of a path, not
// of an open descriptor; a setuid bit does not survive chown(2).

func TestSetuidFilesInTheStore(t *testing.T) {
	c := newCLI(t)
	// An image with a setuid program and a world-writable file, and a container
	// that makes another of each.
	layer := filepath.Join(c.dir, "layer")
	for _, d := range []string{"layer", "layer/bin"} {
		if err := os.Mkdir(filepath.Join(c.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(layer, "bin/busybox")
	if err := copyFile(filepath.Join(work, "base/bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	tarball := filepath.Join(c.dir, "setuid.tar")
	if out, err := exec.Command("tar", "-C", layer, "-cf", tarball, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.run(t, "import", tarball, "setuid")
	c.run(t, "run", "--rm", "setuid", "/bin/busybox", "true")
	id := c.run(t, "run", "-d", "setuid", "/bin/busybox", "sh", "-c",
		"/bin/busybox cp /bin/busybox /bin/mine && /bin/busybox chmod 4755 /bin/mine && /bin/busybox chmod 777 /bin && exec /bin/busybox sleep 60")
	defer c.run(t, "rm", "-f", id)
	waitFor(t, "the container's own setuid program", func() bool {
		return len(setuidFiles(t, filepath.Join(c.dir, "state"))) >= 2
	})
	found := setuidFiles(t, filepath.Join(c.dir, "state"))
	for _, name := range found {
		if out, err := asNobody(name, "id"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("user 65534 executed %s: %s, %v", name, out, err)
		}
	}
	// The negative control: the same program at a place that all may enter.
	open := filepath.Join(work, "bin/setuid")
	if err := copyFile(program, open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(open)
	out, err := asNobody(open, "id")
	if err != nil || !strings.Contains(out, "uid=65534") {
		t.Errorf("where nothing prevents it: %q, %v", out, err)
	}
	// No directory of the chain lets others search it, and no file lies outside.
	for _, dir := range []string{"state", "state/run"} {
		if fi, err := os.Stat(filepath.Join(c.dir, dir)); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi.Mode(), err)
		}
	}
}

func setuidFiles(t *testing.T, root string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it may be gone meanwhile
		}
		if fi, err := d.Info(); err == nil && fi.Mode()&os.ModeSetuid != 0 {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// asNobody runs a program as user and group 65534, without further groups.
func asNobody(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Args[0] = "busybox"
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}
