package acceptance

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// writeImage writes the tar of a root file system: Debian's static busybox
// under all its names, two users, and what some tests need to find.
func writeImage(path string) error {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("the package busybox-static is needed: %w", err)
	}
	names, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin", "etc", "root", "tmp", "home", "proc", "sys", "dev", "srv"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: mode})
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:1000:\n",
	} {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
		w.Write([]byte(content))
	}
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(busybox))})
	w.Write(busybox)
	for _, name := range strings.Fields(string(names)) {
		if name != "busybox" {
			w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
		}
	}
	if err := w.Close(); err != nil { // errors of the writes come again here
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}
