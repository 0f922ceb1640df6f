package container

import (
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// takeStdio gives the program copies of the streams that are not at their
// number already. A nil stream is /dev/null.
func (c *process) takeStdio(g *launch.Program, files [3]*os.File) error {
	for n, f := range files {
		var fd int
		var err error
		switch {
		case !c.ids.active() && !c.dry && (f == nil || isNull(f)):
			fd, err = openNull()
		case f == nil:
			fd, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		case int(f.Fd()) == n:
			if err := c.ownPipe(g, launch.Int(n), n); err != nil {
				return fmt.Errorf("standard stream %d: %w", n, err)
			}
			continue
		default:
			fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3+c.preserve)
		}
		if err != nil {
			return fmt.Errorf("standard stream %d: %w", n, err)
		}
		c.stdio[n] = g.Given([]string{"stdin", "stdout", "stderr"}[n], fd, "standard stream "+itoa(n))
		if err := c.ownPipe(g, launch.Use(c.stdio[n]), fd); err != nil {
			return fmt.Errorf("standard stream %d: %w", n, err)
		}
	}
	return nil
}

// ownPipe gives a pipe to the process's user. Programs open /dev/stdout and
// /dev/stderr by name, as many images' logs do, and that asks for the right to, which
// writing to what is open does not.
func (c *process) ownPipe(g *launch.Program, at launch.Arg, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	uid, err := c.ids.uid(c.uid)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Uid == uid {
		return err
	}
	g.Do(launch.Host, launch.Fchown, "the process's user may open it again by name", at, launch.Int(int(uid)), launch.Int(-1))
	return nil
}

// Null opens a null device for a process of a workload: it can be read and written,
// and no owner or mode of the host's can be changed through it.
func Null() (*os.File, error) {
	fd, err := openNull()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/null"), nil
}

// isNull reports whether f is a null device.
func isNull(f *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// openNull opens the host's null device by a read-only mount: whoever gets the
// descriptor cannot change mode and owner of the device, as root without a user
// namespace otherwise can. Reading and writing devices does not mind.
//
// The mount is of /dev, not of the one file, so that /proc/self/fd shows
// "/null" and not "/", which would look like a directory that leaked.
func openNull() (int, error) {
	const dev, null = "/dev", "null"
	tree, err := unix.OpenTree(unix.AT_FDCWD, dev, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: dev, Err: err}
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return -1, &os.PathError{Op: "mount_setattr", Path: dev, Err: err}
	}
	fd, err := unix.Openat(tree, null, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dev + "/" + null, Err: err}
	}
	return fd, nil
}
