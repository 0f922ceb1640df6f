package at

import (
	"errors"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tries bounds how often a path is walked again that somebody renames
// meanwhile: then the kernel cannot tell whether ".." left the root (EAGAIN,
// openat2(2)).
const tries = 256

func openat2(dir int, path string, how unix.OpenHow) (fd int, err error) {
	how.Flags |= unix.O_CLOEXEC
	for range tries {
		fd, err = unix.Openat2(dir, path, &how)
		switch err { //nolint:errorlint // raw errno
		case nil:
			return fd, nil
		case unix.EINTR:
		case unix.EAGAIN:
			runtime.Gosched()
		default:
			return -1, wrap("open", path, err)
		}
	}
	return -1, wrap("open", path, err)
}

// InRoot looks up a path with root as its root directory: absolute links begin
// there and ".." ends there, whatever is renamed meanwhile. The descriptor is
// good for looking only (O_PATH). A link at the end is followed with follow, and
// where the path ends in a slash.
func InRoot(root int, path string, follow bool) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	return openat2(root, path, how)
}

// Beneath looks up a directory that must lie beneath dir: a link that is
// absolute or leads out is an error (EXDEV).
func Beneath(dir int, path string) (fd int, err error) {
	return openat2(dir, path, unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
}

// Look opens a name for looking only: it is not followed, and no device, FIFO or
// automounter hears of it.
func Look(dir int, name string) (fd int, err error) { return open(dir, name, unix.O_PATH, 0) }

// LookPath is Look for a path of the caller's own, followed with follow.
func LookPath(path string, follow bool) (fd int, err error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	err = retry(func() (err error) {
		fd, err = unix.Open(path, flags, 0)
		return err
	})
	if err != nil {
		return -1, wrap("open", path, err)
	}
	return fd, nil
}

// ReadRegular opens what Look found for reading, and WriteRegular for writing
// over its content. Only a regular file is opened. Both need /proc.
func ReadRegular(fd int) (int, error)  { return reopen(fd, unix.O_RDONLY) }
func WriteRegular(fd int) (int, error) { return reopen(fd, unix.O_WRONLY|unix.O_TRUNC) }

func reopen(fd, flags int) (file int, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, wrap("stat", "", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, wrap("open", "", errors.New("not a regular file"))
	}
	err = retry(func() (err error) {
		file, err = unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, wrap("open", "", err)
	}
	return file, nil
}

// Duplicate returns another descriptor for the same.
func Duplicate(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return n, wrap("dup", "", err)
}

// StatMount describes what a descriptor stands for, and names the mount that it
// was reached by: unlike a device number, which overlayfs makes up for files
// of its layers, that changes exactly where something is mounted.
func StatMount(fd int) (st Stat, mount uint64, err error) {
	var x unix.Statx_t
	err = retry(func() error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &x)
	})
	if err != nil {
		return st, 0, wrap("stat", "", err)
	}
	st.Mode, st.Uid, st.Gid = uint32(x.Mode), x.Uid, x.Gid
	st.Size, st.Ino = int64(x.Size), x.Ino
	st.Blocks = int64(x.Blocks)
	setLinks(&st, x.Nlink)
	st.Dev = unix.Mkdev(x.Dev_major, x.Dev_minor)
	st.Rdev = unix.Mkdev(x.Rdev_major, x.Rdev_minor)
	st.Mtim = unix.Timespec{Sec: x.Mtime.Sec, Nsec: int64(x.Mtime.Nsec)} // nanoseconds end in 2262
	return st, x.Mnt_id, nil
}

// kernelFiles are file systems whose files are answers of the kernel: reading
// one may wait for ever, or tell us, being root, what a workload must not learn
// (/proc/kmsg).
var kernelFiles = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.BPF_FS_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.SELINUX_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.PSTOREFS_MAGIC: true,
	0x19800202 /* mqueue */ : true, 0x62656570 /* configfs */ : true, 0x65735543 /* fusectl */ : true,
	unix.BINFMTFS_MAGIC: true, unix.NSFS_MAGIC: true, 0x187 /* autofs */ : true,
}

// IsKernelFiles reports whether a descriptor's file system stores nothing, but
// is a window into the kernel.
func IsKernelFiles(fd int) (bool, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false, wrap("statfs", "", err)
	}
	return kernelFiles[st.Type], nil
}

// ReadlinkOf returns the target of a symbolic link that Look found.
func ReadlinkOf(fd int) (string, error) { return Readlink(fd, "") }

// Listxattr and Getxattr are Llistxattr and Lgetxattr for what Look found, which
// must be no symbolic link. They need /proc.
func Listxattr(fd int) ([]string, error) {
	return listxattr("", func(buf []byte) (int, error) { return unix.Listxattr("/proc/self/fd/"+strconv.Itoa(fd), buf) })
}

// Getxattr returns an extended attribute; see Listxattr.
func Getxattr(fd int, attr string) ([]byte, error) {
	return getxattr("", attr, func(buf []byte) (int, error) { return unix.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), attr, buf) })
}

// IsDir, IsLink and IsRegular tell the type of a file.
func IsDir(st Stat) bool     { return st.Mode&TypeMask == TypeDir }
func IsLink(st Stat) bool    { return st.Mode&TypeMask == TypeSymlink }
func IsRegular(st Stat) bool { return st.Mode&TypeMask == TypeRegular }

// ChmodOf sets the permission bits of what Look found, which must be no symbolic
// link. It needs /proc.
func ChmodOf(fd int, perm uint32) error {
	return wrap("chmod", "", unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), perm, 0))
}

// Ftimes sets access and modification time of a file that is open for reading
// or writing.
func Ftimes(fd int, atime, mtime time.Time) error {
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	return wrap("utimensat", "", unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH))
}
