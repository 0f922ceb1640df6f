package copy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Local is a source of this machine that is open.
type Local struct {
	Source
	fd int
}

// OpenLocal opens a source. With follow a link at its end is followed.
func OpenLocal(name string, follow bool) (*Local, error) {
	abs, err := Absolute(name)
	if err != nil {
		return nil, err
	}
	fd, err := at.LookPath(abs, follow)
	if err != nil {
		return nil, plain(name, err)
	}
	st, err := at.Fstat(fd)
	if err != nil {
		at.Close(fd)
		return nil, plain(name, err)
	}
	return &Local{Source{filetree.Base(abs), at.IsDir(st)}, fd}, nil
}

// Close lets go of it.
func (l *Local) Close() error { return at.Close(l.fd) }

// Read writes it as an archive whose names begin with as, or Base for "".
// skipped is told what an archive cannot hold.
func (l *Local) Read(ctx context.Context, as string, skipped func(name, why string), w io.Writer) error {
	if as == "" {
		as = l.Base
	}
	return filetree.Read(ctx, l.fd, as, filetree.ReadOptions{Skipped: skipped}, w)
}

// plain says what is wrong with a path of the user's.
func plain(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// LocalTarget looks at a destination of this machine. A link is followed, as by
// cp(1); one that leads nowhere is refused, as its maker may not be the user.
func LocalTarget(name string) (Target, error) {
	abs, err := Absolute(name)
	if err != nil {
		return Target{}, err
	}
	fi, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(abs); err == nil {
			return Target{}, fmt.Errorf("%s: it is a link that leads nowhere", name)
		}
		parent, err := os.Stat(filepath.Dir(filepath.Clean(abs)))
		if err != nil || !parent.IsDir() {
			return Target{}, fmt.Errorf("%s: %w", filepath.Dir(filepath.Clean(name)), ErrNoDirectory)
		}
		return Target{Path: abs}, nil
	case err != nil:
		return Target{}, plain(name, err)
	case fi.IsDir():
		return Target{Path: abs, Exists: true, IsDir: true}, nil
	case !fi.Mode().IsRegular():
		return Target{}, fmt.Errorf("%s: it is neither a file nor a directory", name)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return Target{}, plain(name, err)
	}
	return Target{Path: abs, Exists: true}, nil
}

// Unpack unpacks the archive of base, which a workload made, in dir as as. Only
// what lies beneath that is made, whatever the archive says. owners keeps the
// owners that it names. skipped is told what is not made.
func Unpack(ctx context.Context, dir, base, as string, owners bool, skipped func(name, why string) error, r io.Reader) error {
	fd, err := at.LookPath(dir, true)
	if err != nil {
		return plain(dir, err)
	}
	defer at.Close(fd)
	return filetree.Write(ctx, fd, filetree.WriteOptions{
		Owners: owners, NoOverwriteDir: true, Within: base, As: as, Host: true, Skipped: skipped,
	}, r)
}
