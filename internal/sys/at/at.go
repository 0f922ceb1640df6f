// Package at wraps the system calls that work on one name in a directory held
// by descriptor. No call follows a symbolic link in that name and none walks a
// path, so whoever holds the directory decides where an operation lands.
//
// Every function retries EINTR and returns an *os.PathError whose path is the
// name; callers add where it was. Descriptors are close-on-exec.
package at

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is what Lstat returns.
type Stat = unix.Stat_t

// File types in Stat.Mode, and the flags of Open.
const (
	TypeMask    = unix.S_IFMT
	TypeDir     = unix.S_IFDIR
	TypeRegular = unix.S_IFREG
	TypeSymlink = unix.S_IFLNK
	TypeChar    = unix.S_IFCHR
	TypeBlock   = unix.S_IFBLK
	TypeFifo    = unix.S_IFIFO
	TypeSocket  = unix.S_IFSOCK
)

// CWD stands for "no directory" in front of an absolute path (AT_FDCWD).
const CWD = unix.AT_FDCWD

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR { //nolint:errorlint // raw errno
			return err
		}
	}
}

// OpenDir opens a directory for reading.
func OpenDir(dir int, name string) (fd int, err error) {
	return open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// OpenFile opens a regular file for reading. Whatever else has the name is
// looked at, not opened, and refused: opening a device is an order to its
// driver. It needs /proc.
func OpenFile(dir int, name string) (fd int, err error) {
	path, err := open(dir, name, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return -1, wrap("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, wrap("open", name, errors.New("not a regular file"))
	}
	err = retry(func() (err error) {
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, wrap("open", name, err)
	}
	return fd, nil
}

// Create makes a regular file that must not exist and opens it for writing.
func Create(dir int, name string, perm uint32) (fd int, err error) {
	return open(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
}

// CreateUnnamed makes a regular file in a directory without a name and opens
// it for reading and writing. It is gone when it is closed, unless LinkUnnamed
// gave it a name.
func CreateUnnamed(dir int, perm uint32) (fd int, err error) {
	return open(dir, ".", unix.O_RDWR|unix.O_TMPFILE, perm)
}

// LinkUnnamed gives such a file a name, which must be free. It needs /proc.
func LinkUnnamed(fd, dir int, name string) error {
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	return wrap("link", name, err)
}

// Open opens what has the name with flags of open(2) that make no file. The last
// part of the name must be no symbolic link.
func Open(dir int, name string, flags int) (fd int, err error) { return open(dir, name, flags, 0) }

func open(dir int, name string, flags int, perm uint32) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		return err
	})
	if err != nil {
		return -1, wrap("open", name, err)
	}
	return fd, nil
}

// Close closes a descriptor.
func Close(fd int) error { return wrap("close", "", unix.Close(fd)) }

// Mkdir makes a directory.
func Mkdir(dir int, name string, perm uint32) error {
	return wrap("mkdir", name, unix.Mkdirat(dir, name, perm))
}

// Mknod makes a special file; typ is one of the Type constants.
func Mknod(dir int, name string, typ, perm, major, minor uint32) error {
	return wrap("mknod", name, unix.Mknodat(dir, name, typ|perm, int(unix.Mkdev(major, minor))))
}

// Symlink makes a symbolic link to target, which is not looked at.
func Symlink(target string, dir int, name string) error {
	return wrap("symlink", name, unix.Symlinkat(target, dir, name))
}

// Link makes a hard link to the very file named, a symbolic link included.
func Link(oldDir int, oldName string, dir int, name string) error {
	return wrap("link", name, unix.Linkat(oldDir, oldName, dir, name, 0))
}

// Remove removes a name that is not a directory.
func Remove(dir int, name string) error {
	return wrap("unlink", name, unix.Unlinkat(dir, name, 0))
}

// RemoveDir removes an empty directory.
func RemoveDir(dir int, name string) error {
	return wrap("rmdir", name, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

// Readlink returns the target of a symbolic link.
func Readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax+1)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", wrap("readlink", name, err)
	}
	return string(buf[:n]), nil
}

// Lstat describes the file itself.
func Lstat(dir int, name string) (st Stat, err error) {
	err = wrap("lstat", name, unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW))
	return st, err
}

// Fstat describes an open file.
func Fstat(fd int) (st Stat, err error) {
	err = wrap("fstat", "", unix.Fstat(fd, &st))
	return st, err
}

// IsWhiteout reports whether a file is overlayfs' mark of a removed one: a
// character device 0:0.
func IsWhiteout(st Stat) bool { return st.Mode&TypeMask == TypeChar && st.Rdev == 0 }

// Chown sets the owners of the file itself.
func Chown(dir int, name string, uid, gid int) error {
	return wrap("chown", name, unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
}

// Chmod sets the permission bits, with setuid, setgid and sticky.
//
// Precondition: name is no symbolic link; the system call has no such flag
// before Linux 6.6.
func Chmod(dir int, name string, perm uint32) error {
	return wrap("chmod", name, unix.Fchmodat(dir, name, perm, 0))
}

// Chtimes sets access and modification time of the file itself.
func Chtimes(dir int, name string, atime, mtime time.Time) error {
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	return wrap("utimensat", name, unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW))
}

func timespec(t time.Time) unix.Timespec {
	ts := unix.Timespec{}
	sec := t.Unix()
	ts.Sec = sec
	ts.Nsec = int64(t.Nanosecond())
	return ts
}

// Fchown sets the owners of an open file.
func Fchown(fd, uid, gid int) error { return wrap("fchown", "", unix.Fchown(fd, uid, gid)) }

// Fchmod sets the permission bits of an open file.
func Fchmod(fd int, perm uint32) error { return wrap("fchmod", "", unix.Fchmod(fd, perm)) }

// Fsetxattr sets an extended attribute of a file opened for reading or writing.
func Fsetxattr(fd int, attr string, value []byte) error {
	return wrap("setxattr "+attr, "", unix.Fsetxattr(fd, attr, value, 0))
}

// Lsetxattr sets an extended attribute of the file itself, without opening it:
// opening a device or a FIFO has effects. It needs /proc.
func Lsetxattr(dir int, name, attr string, value []byte) error {
	return wrap("setxattr "+attr, name, unix.Lsetxattr(procPath(dir, name), attr, value, 0))
}

// Llistxattr lists the extended attributes of the file itself. It needs /proc.
func Llistxattr(dir int, name string) ([]string, error) {
	path := procPath(dir, name)
	return listxattr(name, func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
}

func listxattr(name string, list func([]byte) (int, error)) ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := list(buf)
		if err == unix.ERANGE { //nolint:errorlint // raw errno
			buf = make([]byte, 65536) // XATTR_LIST_MAX
			continue
		}
		if err == unix.ENOTSUP { //nolint:errorlint // raw errno
			return nil, nil
		}
		if err != nil {
			return nil, wrap("listxattr", name, err)
		}
		var names []string
		for start, i := 0, 0; i < n; i++ {
			if buf[i] == 0 {
				names = append(names, string(buf[start:i]))
				start = i + 1
			}
		}
		return names, nil
	}
}

// NoXattr reports whether an error of Lgetxattr says that the file has no such
// attribute, or its file system none at all.
func NoXattr(err error) bool { return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) }

// Lgetxattr returns an extended attribute of the file itself. It needs /proc.
func Lgetxattr(dir int, name, attr string) ([]byte, error) {
	path := procPath(dir, name)
	return getxattr(name, attr, func(buf []byte) (int, error) { return unix.Lgetxattr(path, attr, buf) })
}

func getxattr(name, attr string, get func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := get(buf)
	if err == unix.ERANGE { //nolint:errorlint // raw errno
		buf = make([]byte, 65536) // XATTR_SIZE_MAX
		n, err = get(buf)
	}
	if err != nil {
		return nil, wrap("getxattr "+attr, name, err)
	}
	return buf[:n:n], nil
}

// Pread fills p from an offset. It returns io.EOF with less where the file
// ends.
func Pread(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		var m int
		if err := retry(func() (err error) { m, err = unix.Pread(fd, p[n:], off+int64(n)); return err }); err != nil {
			return n, wrap("read", "", err)
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// NextData returns the next range at or after off that is no hole. Both ends
// are math.MaxInt64 when only a hole follows. It moves the file's offset.
func NextData(fd int, off int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO { //nolint:errorlint // raw errno
		return math.MaxInt64, math.MaxInt64, nil
	}
	if err == nil {
		end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	}
	return start, end, wrap("seek", "", err)
}

// CopyData copies the first size bytes of a file, and leaves holes where from has
// them.
func CopyData(to, from *os.File, size int64) error {
	for off := int64(0); off < size; {
		start, end, err := NextData(int(from.Fd()), off)
		if err != nil {
			return err
		}
		if start == math.MaxInt64 {
			return nil
		}
		off = min(end, size)
		r := io.NewSectionReader(from, start, off-start)
		if _, err := io.Copy(io.NewOffsetWriter(to, start), r); err != nil {
			return err
		}
	}
	return nil
}

// Pwrite writes all of p at an offset.
func Pwrite(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		var n int
		if err := retry(func() (err error) { n, err = unix.Pwrite(fd, p, off); return err }); err != nil {
			return wrap("write", "", err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Truncate sets the size of an open file.
func Truncate(fd int, size int64) error {
	return wrap("truncate", "", retry(func() error { return unix.Ftruncate(fd, size) }))
}

// Syncfs writes everything of the file system that holds f to the disk, and
// reports write errors of it since f was opened (Linux 5.8).
func Syncfs(f *os.File) error {
	err := retry(func() error { return unix.Syncfs(int(f.Fd())) })
	runtime.KeepAlive(f)
	return wrap("syncfs", f.Name(), err)
}

// RemoveAll removes name and everything below it, never leaving dir and never
// following a link. A name that does not exist is no error. It holds a bounded
// number of descriptors, however deep somebody has made the tree. Several may
// remove one tree at the same time.
func RemoveAll(dir int, name string) error {
	r := remover{}
	return r.all(dir, name)
}

// flat is how deep remover goes. It moves what is deeper up to where it began.
const flat = 64

// remover removes one tree.
type remover struct {
	tops  []int // descriptors of the tree's root and of what is below it
	moved int
}

func (r *remover) all(dir int, name string) error {
	err := Remove(dir, name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	err = RemoveDir(dir, name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if len(r.tops) > flat {
		return r.lift(dir, name)
	}
	fd, openErr := OpenDir(dir, name)
	if errors.Is(openErr, fs.ErrNotExist) {
		return nil // somebody else is at it, too
	}
	if openErr != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	r.tops = append(r.tops, fd)
	defer func() { r.tops = r.tops[:len(r.tops)-1] }()
	// Removing entries while reading may skip some, and deep ones turn up here, so
	// read again until the directory can be removed or nothing goes away any more.
	for {
		names, readErr := f.Readdirnames(2048)
		for _, n := range names {
			if err := r.all(fd, n); err != nil {
				return err
			}
		}
		if readErr != nil || len(names) == 0 {
			err = RemoveDir(dir, name)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if _, seekErr := f.Seek(0, 0); seekErr != nil {
				return err
			}
			again, _ := f.Readdirnames(1)
			if len(again) == 0 {
				if err = RemoveDir(dir, name); errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			if err := r.all(fd, again[0]); err != nil {
				return err
			}
		}
	}
}

// lift moves a directory to the tree's root, under a name that is free.
func (r *remover) lift(dir int, name string) error {
	for {
		r.moved++
		err := RenameNew(dir, name, r.tops[0], ".deep-"+strconv.Itoa(r.moved))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case !errors.Is(err, fs.ErrExist):
			return err
		}
	}
}

// RenameNew renames and fails with fs.ErrExist when the new name is taken.
func RenameNew(oldDir int, oldName string, dir int, name string) error {
	return wrap("rename", name, unix.Renameat2(oldDir, oldName, dir, name, unix.RENAME_NOREPLACE))
}

// OpenDirBelow opens a directory by a path that lies below dir and holds no
// symbolic link (openat2(2), Linux 5.6). "" and "." are dir itself.
func OpenDirBelow(dir int, path string) (fd int, err error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	err = retry(func() (err error) {
		fd, err = unix.Openat2(dir, path, &how)
		return err
	})
	if err != nil {
		return -1, wrap("open", path, err)
	}
	return fd, nil
}
