package meter

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

const (
	mebibyte = 1 << 20
	// maxFile is the size of a file in MiB; in memory, which may be limited, it is
	// maxMemoryFile.
	maxFile       = 64
	maxMemoryFile = 16
)

var fileFigures = []figure{
	{id: "files.write", unit: report.BytesPerSecond, each: mebibyte, most: maxFile, slow: true, prepare: writeFile},
	{id: "files.read", unit: report.BytesPerSecond, each: mebibyte, prepare: readFile},
	{id: "files.create", unit: report.PerSecond, each: 1, prepare: createFiles},
}

// name is one that nobody has in the directory.
func (r *rig) name() string { return filepath.Join(r.dir, ".bulkhead-meter-"+rand.Text()) }

// file makes a file that has no name any more, so that nothing is left of it
// however this program ends, and says how many MiB of those wanted it may have.
func (r *rig) file(wanted int) (fd int, most int, err error) {
	name := r.name()
	if fd, err = unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600); err != nil {
		return 0, 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	r.later(func() { unix.Close(fd) })
	if err := unix.Unlink(name); err != nil {
		return 0, 0, &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, 0, os.NewSyscallError("fstatfs", err)
	}
	most = wanted
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		most = min(most, maxMemoryFile)
	}
	if st.Blocks > 0 { // of some file systems nobody knows
		most = int(min(uint64(most), st.Bavail*uint64(st.Bsize)/4/mebibyte))
	}
	if most == 0 {
		return 0, 0, &os.PathError{Op: "write", Path: r.dir, Err: unix.ENOSPC}
	}
	return fd, most, nil
}

// content is what compresses as a program does, for file systems that compress.
func content() []byte { return text(mebibyte) }

// writeFile writes a file anew and has it stored.
func writeFile(r *rig) (func(int) error, error) {
	fd, most, err := r.file(maxFile)
	if err != nil {
		return nil, err
	}
	block := content()
	return func(n int) error {
		if err := unix.Ftruncate(fd, 0); err != nil {
			return os.NewSyscallError("ftruncate", err)
		}
		for i := range n {
			// Where there is not room for all the first part is written again.
			if err := writeAll(fd, block, int64(i%most)*mebibyte); err != nil {
				return err
			}
		}
		return os.NewSyscallError("fsync", unix.Fsync(fd))
	}, nil
}

// readFile reads what was written, from the caches of whoever keeps it.
func readFile(r *rig) (func(int) error, error) {
	fd, most, err := r.file(maxFile)
	if err != nil {
		return nil, err
	}
	block := content()
	size := 0
	for end := time.Now().Add(r.budget / 2); size < most && (size == 0 || time.Now().Before(end)); size++ {
		if err := writeAll(fd, block, int64(size)*mebibyte); err != nil {
			return nil, err
		}
	}
	next := 0
	return func(n int) error {
		for range n {
			if err := readAll(fd, block, int64(next)*mebibyte); err != nil {
				return err
			}
			next = (next + 1) % size
		}
		return nil
	}, nil
}

func readAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pread64", err)
		}
		if n == 0 {
			return errors.New("pread64: the file is shorter than what was written")
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func writeAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pwrite64", err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// createFiles makes small files and removes them.
func createFiles(r *rig) (func(int) error, error) {
	name, block := r.name(), content()[:4096]
	r.later(func() { _ = unix.Unlink(name) }) // there is one only after a failure
	return func(n int) error {
		for range n {
			fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return &os.PathError{Op: "open", Path: name, Err: err}
			}
			err = writeAll(fd, block, 0)
			if err := errors.Join(err, os.NewSyscallError("close", unix.Close(fd))); err != nil {
				return err
			}
			if err := unix.Unlink(name); err != nil {
				return &os.PathError{Op: "unlink", Path: name, Err: err}
			}
		}
		return nil
	}, nil
}
