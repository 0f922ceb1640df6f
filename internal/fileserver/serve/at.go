package serve

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// beneath keeps openat2(2) to the directory that it starts from.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// OpenRoot opens a directory for Options.Root. The path is the caller's own.
func OpenRoot(dir string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC}
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &how)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// openBeneath opens the entry name of a directory. It waits for nobody: neither
// for the other end of a FIFO nor for a lease to be given up.
func openBeneath(dir int, name string, flags uint64, mode uint32) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	how := unix.OpenHow{Flags: flags, Mode: uint64(mode), Resolve: beneath}
	fd := -1
	err := retry(func() (err error) { fd, err = unix.Openat2(dir, name, &how); return err })
	return fd, err
}

// retry makes a call again that a signal interrupted: it was not for the guest's
// program, but may be one by which Go's runtime preempts a thread.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { //nolint:errorlint // a bare error number
			return err
		}
	}
}

// openFile opens the entry name of a directory, which is the file that is
// meant. ESTALE says that it is not, or not any more.
func openFile(dir int, name string, flags uint64, is identity) (int, error) {
	fd, err := openBeneath(dir, name, flags, 0)
	if err != nil {
		return -1, stale(err)
	}
	st, err := statBeneath(fd, "")
	if err == nil && identify(st) != is {
		err = syscall.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// stale turns what happens when a file has left its place into ESTALE.
func stale(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) {
		return syscall.ESTALE
	}
	return err
}

// statBeneath returns the attributes of the entry name of a directory, or with
// "" those of the descriptor's own file.
func statBeneath(fd int, name string) (*unix.Statx_t, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	st := &unix.Statx_t{}
	err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME|unix.STATX_MNT_ID, st)
	return st, err
}
