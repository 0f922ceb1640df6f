package sys

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// MarkUsed marks an open file as in use, for InUse, until the last descriptor of
// its open file description is closed, whoever has that: an open file description
// lock for reading, fcntl_locking(2). The file must be open for reading.
func MarkUsed(f *os.File) error {
	return fcntlLock(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
}

// InUse tells whether somebody else has marked a file.
func InUse(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	err := fcntlLock(f, unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, err
}

func fcntlLock(f *os.File, how int, l *unix.Flock_t) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = unix.FcntlFlock(fd, how, l) }); err != nil {
		return err
	}
	return os.NewSyscallError("fcntl", failed)
}

// NextData returns where the next data of a sparse file begin, at or after at,
// and false when nothing but a hole follows (lseek(2), SEEK_DATA).
func NextData(f *os.File, at int64) (int64, bool, error) {
	n, err := f.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, false, nil
	}
	return n, err == nil, err
}

// Identity tells one version of a file from another: device, inode, size, and the
// times of the last changes of content and inode, of which nobody can set the
// latter. It has no line break.
func Identity(fi os.FileInfo) (string, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("stat %s: no inode", fi.Name())
	}
	return fmt.Sprintf("%d %d %d %d.%09d %d.%09d", st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec), nil
}

// Device returns the two numbers of a device, makedev(3).
func Device(dev uint64) (major, minor uint32) { return unix.Major(dev), unix.Minor(dev) }
