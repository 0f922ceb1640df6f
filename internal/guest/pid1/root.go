package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// newRoot is where the root that is to be is put together.
const newRoot = "/newroot"

// rootSize bounds the root file system: it holds mount points, and the program
// that --init asks for.
const rootSize = "size=16m,nr_inodes=4096,mode=755"

// A mount is one file system of the guest.
type mount struct {
	fstype, target string
	flags          uintptr
	options        string
	optional       bool // a kernel may be built without it
}

// Flags as systemd has them.
const (
	strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	shared = unix.MS_NOSUID | unix.MS_NODEV
)

// mounts is what is there from the start, in order. The targets are those of
// the root that is to be.
var mounts = []mount{
	{fstype: "devtmpfs", target: "/dev", flags: unix.MS_NOSUID, options: "mode=755"},
	{fstype: "proc", target: "/proc", flags: strict},
	{fstype: "sysfs", target: "/sys", flags: strict},
}

// lateMounts is what the modules may be needed for, or nobody needs before.
var lateMounts = []mount{
	{fstype: "cgroup2", target: "/sys/fs/cgroup", flags: strict, options: "nsdelegate,memory_recursiveprot"},
	{fstype: "securityfs", target: "/sys/kernel/security", flags: strict, optional: true},
	{fstype: "bpf", target: "/sys/fs/bpf", flags: strict, options: "mode=700", optional: true},
	{fstype: "devpts", target: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, options: "gid=5,mode=620,ptmxmode=666"},
	{fstype: "tmpfs", target: "/dev/shm", flags: shared, options: "mode=1777"},
	{fstype: "mqueue", target: "/dev/mqueue", flags: strict, optional: true},
	{fstype: "tmpfs", target: "/run", flags: shared, options: "mode=755"},
	{fstype: "tmpfs", target: "/tmp", flags: shared, options: "mode=1777"},
}

// mountAll mounts a list below root.
func mountAll(root string, list []mount) error {
	for _, m := range list {
		target := path.Join(root, m.target)
		if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			if m.optional {
				continue // the kernel makes the mount points in its own file systems
			}
			return err
		}
		err := unix.Mount(m.fstype, target, m.fstype, m.flags, m.options)
		if m.optional && (err == unix.ENODEV || err == unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.fstype, m.target, err)
		}
	}
	return nil
}

// makeRoot mounts the file system that will be the root.
func makeRoot() error {
	if err := os.Mkdir(newRoot, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := unix.Mount("tmpfs", newRoot, "tmpfs", shared, rootSize); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", newRoot, err)
	}
	return nil
}

// keep are the files of the initramfs that go along into the new root.
var keep = []string{InitProgram}

// switchRoot leaves the initramfs for newRoot and frees its memory. The
// initramfs itself cannot be unmounted: the new root is moved over it, so that
// pivot_root(2), which wants a root that is a mount on another one, works from
// then on (Documentation/filesystems/ramfs-rootfs-initramfs.rst).
func switchRoot() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return &os.PathError{Op: "statfs", Path: "/", Err: err}
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		// Everything on the root will be deleted.
		return fmt.Errorf("the root is no initramfs: file system type %#x", st.Type)
	}
	for _, name := range keep {
		if err := copyFile(name, path.Join(newRoot, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	old, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return &os.PathError{Op: "chdir", Path: newRoot, Err: err}
	}
	if err := empty(old); err != nil {
		return fmt.Errorf("free the initramfs: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the new root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return &os.PathError{Op: "chdir", Path: "/", Err: err}
	}
	return nil
}

// empty removes everything in the directory dir that lies on its own file
// system, and closes dir.
func empty(dir int) error {
	f := os.NewFile(uintptr(dir), "initramfs")
	defer f.Close()
	var self unix.Stat_t
	if err := unix.Fstat(dir, &self); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if st.Dev != self.Dev {
			continue // the new root
		}
		flags := 0
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
			sub, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return &os.PathError{Op: "open", Path: name, Err: err}
			}
			if err := empty(sub); err != nil {
				return err
			}
		}
		if err := unix.Unlinkat(dir, name, flags); err != nil && err != unix.EBUSY {
			return &os.PathError{Op: "unlink", Path: name, Err: err}
		}
	}
	return nil
}

// copyFile copies a program to another file system.
func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
