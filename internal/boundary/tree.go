package boundary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Tree implements Files for an instance whose root directory this process can
// open.
type Tree struct {
	// Open returns a descriptor of the root, as the workload sees it, which is
	// then Tree's to close. Its error says why there is none.
	Open func() (int, error)
	IDs  filetree.IDs
	// Upper and Layers are the overlay's, see Prepared; with Upper "" there are no
	// changes to list. Ignore names paths that are not the workload's doing.
	Upper  string
	Layers []string
	Ignore func(path string) bool

	mu     sync.Mutex
	closed bool
	cancel map[*context.CancelFunc]bool
	work   sync.WaitGroup
}

var _ Files = (*Tree)(nil)

// parting is how long Close waits for operations that it has ended: one may hang
// in a file system of somebody else's.
const parting = 5 * time.Second

// Close ends every operation. Later ones give workload.ErrNotRunning.
func (t *Tree) Close() {
	t.mu.Lock()
	t.closed = true
	for cancel := range t.cancel {
		(*cancel)()
	}
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.work.Wait()
	}()
	timer := time.NewTimer(parting)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// begin counts an operation, and lets Close end it.
func (t *Tree) begin(ctx context.Context) (context.Context, func(), error) {
	if t == nil { // of an instance that another process created
		return nil, nil, workload.ErrNotRunning
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, workload.ErrNotRunning
	}
	ctx, cancel := context.WithCancel(ctx)
	if t.cancel == nil {
		t.cancel = map[*context.CancelFunc]bool{}
	}
	t.cancel[&cancel] = true
	t.work.Add(1)
	return ctx, func() {
		t.mu.Lock()
		delete(t.cancel, &cancel)
		t.mu.Unlock()
		cancel()
		t.work.Done()
	}, nil
}

// do resolves a path and calls f with what it found and with the root.
func (t *Tree) do(ctx context.Context, path string, follow bool, f func(ctx context.Context, root, fd int) error) error {
	ctx, end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	root, err := t.Open()
	if err != nil {
		return err
	}
	defer at.Close(root)
	fd, err := filetree.Open(root, path, follow)
	if err == nil {
		defer at.Close(fd)
		err = f(ctx, root, fd)
	} else {
		err = pathError(path, err)
	}
	if err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// pathError says what is wrong with a path of the user's.
func pathError(path string, err error) error {
	var pe *os.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = workload.ErrNoPath
	case errors.As(err, &pe):
		err = pe.Err
	}
	if short := strings.TrimRight(path, "/"); short != "" {
		path = short
	}
	return fmt.Errorf("%s: %w", path, err)
}

// ReadArchive implements Files.
func (t *Tree) ReadArchive(ctx context.Context, path string, o ReadOptions, w io.Writer) error {
	return t.do(ctx, path, o.Follow, func(ctx context.Context, _, fd int) error {
		err := filetree.Read(ctx, fd, filetree.Base(path), filetree.ReadOptions{IDs: t.IDs, OneFileSystem: o.OneFileSystem}, w)
		if errors.Is(err, filetree.ErrKernelFiles) {
			return pathError(path, err)
		}
		return err
	})
}

// WriteArchive implements Files.
func (t *Tree) WriteArchive(ctx context.Context, dir string, o ArchiveOptions, r io.Reader) error {
	return t.do(ctx, strings.TrimRight(dir, "/")+"/", true, func(ctx context.Context, root, fd int) error {
		if st, err := at.Fstat(fd); err == nil && !at.IsDir(st) {
			return pathError(dir, syscall.ENOTDIR)
		}
		if kernel, err := at.IsKernelFiles(fd); err == nil && kernel {
			return pathError(dir, filetree.ErrKernelFiles)
		}
		return filetree.Write(ctx, fd, filetree.WriteOptions{
			IDs: t.IDs, Owners: o.Owners, NoOverwriteDir: o.NoOverwriteDir, Whole: same(root, fd),
		}, r)
	})
}

// same tells whether two descriptors are of one directory of one mount.
func same(a, b int) bool {
	x, mx, errX := at.StatMount(a)
	y, my, errY := at.StatMount(b)
	return errX == nil && errY == nil && mx == my && x.Dev == y.Dev && x.Ino == y.Ino
}

// StatPath implements Files.
func (t *Tree) StatPath(ctx context.Context, path string) (s workload.PathStat, err error) {
	err = t.do(ctx, path, false, func(_ context.Context, _, fd int) (err error) {
		s, err = filetree.Stat(fd, path)
		return err
	})
	return s, err
}

// Changes implements Files.
func (t *Tree) Changes(ctx context.Context) ([]workload.Change, error) {
	ctx, end, err := t.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if t.Upper == "" {
		return nil, fmt.Errorf("%w: this workload has no writable layer of its own", workload.ErrUnsupported)
	}
	return filetree.Changes(ctx, t.Upper, t.Layers, t.IDs, t.Ignore)
}
