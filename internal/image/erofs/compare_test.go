package erofs_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/erofs"
	"golang.org/x/sys/unix"
)

// needMounts skips where this test cannot see what the kernel sees.
func needMounts(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: devices, owners and mounts")
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"erofs", "overlay"} {
		if !strings.Contains(string(known), "\t"+name+"\n") && exec.Command("modprobe", name).Run() != nil {
			tb.Skipf("this kernel has no %s", name)
		}
	}
}

// write makes an image of the directories, lowest first.
func write(tb testing.TB, opts erofs.Options, dirs ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	out, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	if opts.Scratch, err = os.Create(filepath.Join(dir, "scratch")); err != nil {
		tb.Fatal(err)
	}
	defer opts.Scratch.Close()
	size, err := erofs.Write(context.Background(), out, dirs, opts)
	if err != nil {
		tb.Fatal(err)
	}
	info, err := erofs.Check(out)
	if err != nil || info.Size != size || info.UUID != opts.UUID {
		tb.Fatalf("Check() = %+v, %v; want size %d, UUID %x", info, err, size, opts.UUID)
	}
	return out.Name()
}

// mountImage mounts an image straight from the file, which Linux 6.12 can, or
// through a loop device.
func mountImage(tb testing.TB, image string) string {
	tb.Helper()
	dir := tb.TempDir()
	err := syscall.Mount(image, dir, "erofs", syscall.MS_RDONLY, "")
	if err == syscall.ENOTBLK {
		out, loopErr := exec.Command("mount", "-t", "erofs", "-o", "ro,loop", image, dir).CombinedOutput()
		if err = loopErr; err != nil {
			tb.Skipf("cannot mount EROFS from a file: %s", out)
		}
	}
	if err != nil {
		tb.Fatalf("mount the image: %v", err)
	}
	tb.Cleanup(func() { unmount(tb, dir) })
	return dir
}

func unmount(tb testing.TB, dir string) {
	if err := syscall.Unmount(dir, 0); err != nil {
		tb.Errorf("unmount %s: %v", dir, err)
	}
}

// mountOverlay stacks the directories, lowest first, as a container would.
func mountOverlay(tb testing.TB, dirs ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	lower := slices.Clone(dirs)
	slices.Reverse(lower)
	if len(lower) == 1 { // overlayfs wants two without an upper one
		lower = append(lower, tb.TempDir())
	}
	if err := syscall.Mount("overlay", dir, "overlay", syscall.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		tb.Fatalf("mount overlay: %v", err)
	}
	tb.Cleanup(func() { unmount(tb, dir) })
	return dir
}

// describe tells all that a user can find out about the files of a tree, by
// path. Links are named by their first path; ids are left to compare nlink.
func describe(tb testing.TB, root string) map[string]string {
	tb.Helper()
	out, first, count := make(map[string]string), make(map[uint64]string), make(map[string]int)
	subdirs, told := make(map[string]int), make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		if err == unix.ENOENT && d.Type()&fs.ModeCharDevice != 0 && !isErofs(tb, root) {
			// Overlayfs lists the whiteouts of a directory that only one layer has,
			// though nobody can find them.
			return nil
		}
		if err != nil {
			return fmt.Errorf("lstat %s: %w", path, err)
		}
		if d.Type() != fs.FileMode(0) && d.Type() != fileType(st.Mode) {
			tb.Errorf("%s: the directory says type %v, the file has mode %o", rel, d.Type(), st.Mode)
		}
		text := fmt.Sprintf("mode %o, owner %d:%d, mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if d.IsDir() {
			told[rel] = fmt.Sprint(st.Nlink)
			subdirs[filepath.Dir(rel)]++
		} else {
			text += fmt.Sprintf(", size %d, device %d:%d", st.Size, unix.Major(st.Rdev), unix.Minor(st.Rdev))
			name, ok := first[st.Ino]
			if !ok {
				name = rel
				first[st.Ino] = rel
			}
			text += ", is " + name
			count[name]++
			told[name] = fmt.Sprint(st.Nlink)
		}
		more, err := content(path, d.Type())
		if err != nil {
			return err
		}
		out[rel] = text + more + attributes(tb, path)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	subdirs["."]-- // Dir(".") is "." itself
	if isErofs(tb, root) {
		for name, n := range count {
			if told[name] != fmt.Sprint(n) {
				tb.Errorf("%s: nlink is %s, but it has %d names", name, told[name], n)
			}
			delete(told, name)
		}
		for dir, n := range told {
			if n != fmt.Sprint(subdirs[dir]+2) {
				tb.Errorf("%s: nlink is %s with %d subdirectories", dir, n, subdirs[dir])
			}
		}
	}
	return out
}

func isErofs(tb testing.TB, dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		tb.Fatal(err)
	}
	return uint32(st.Type) == unix.EROFS_SUPER_MAGIC_V1
}

func fileType(mode uint32) fs.FileMode {
	return map[uint32]fs.FileMode{
		unix.S_IFDIR: fs.ModeDir, unix.S_IFLNK: fs.ModeSymlink, unix.S_IFIFO: fs.ModeNamedPipe, unix.S_IFSOCK: fs.ModeSocket,
		unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice, unix.S_IFBLK: fs.ModeDevice,
	}[mode&unix.S_IFMT]
}

func content(path string, typ fs.FileMode) (string, error) {
	switch typ {
	case 0:
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return fmt.Sprintf(", content %x", sum(f)), nil
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		return ", to " + target, err
	}
	return "", nil
}

func attributes(tb testing.TB, path string) string {
	buf := make([]byte, 65536)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		tb.Fatalf("listxattr %s: %v", path, err)
	}
	var list []string
	for _, name := range bytes.Split(buf[:n], []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value := make([]byte, 65536)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			tb.Fatalf("getxattr %s of %s: %v", name, path, err)
		}
		list = append(list, fmt.Sprintf(", %s=%q", name, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, "")
}

// compare reports every difference between two trees.
func compare(tb testing.TB, got, want map[string]string) {
	tb.Helper()
	for path, w := range want {
		if g, ok := got[path]; !ok {
			tb.Errorf("%s is missing: %s", path, w)
		} else if g != w {
			tb.Errorf("%s:\n got %s\nwant %s", path, g, w)
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			tb.Errorf("%s should not be there: %s", path, g)
		}
	}
}

// checkFsck asks the format's own checker.
func checkFsck(tb testing.TB, image string) {
	tb.Helper()
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		tb.Log("erofs-utils are not installed: the image is checked by the kernel alone")
		return
	}
	if out, err := exec.Command(fsck, image).CombinedOutput(); err != nil {
		tb.Errorf("fsck.erofs: %v\n%s", err, out)
	}
}

// same builds the image, mounts it beside the overlay and compares.
func same(tb testing.TB, dirs ...string) {
	tb.Helper()
	image := write(tb, erofs.Options{}, dirs...)
	checkFsck(tb, image)
	compare(tb, describe(tb, mountImage(tb, image)), describe(tb, mountOverlay(tb, dirs...)))
}
