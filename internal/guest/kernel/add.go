package kernel

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kmod"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/vmlinux"
)

// Add stores a kernel under a name. The first kernel becomes the default.
func (s *Store) Add(ctx context.Context, name string, o AddOptions, p Progress) (Kernel, error) {
	if !ValidName(name) {
		return Kernel{}, fmt.Errorf("%q cannot be the name of a kernel: use letters, digits and ._-, at most 64", name)
	}
	if _, err := s.read(name); err == nil && !o.Replace {
		return Kernel{}, fmt.Errorf("%w: %s", ErrExists, name)
	}
	if err := s.sweep(ctx); err != nil {
		return Kernel{}, err
	}
	st, err := s.newStage(ctx)
	if err != nil {
		return Kernel{}, err
	}
	defer st.close()
	return s.add(ctx, st, name, o, heard(p))
}

// add does Add's work in a stage.
func (s *Store) add(ctx context.Context, st *stage, name string, o AddOptions, p Progress) (Kernel, error) {
	p.Update(name, "unpacking", 0, 0)
	if err := os.Mkdir(st.path("kernel"), 0o700); err != nil {
		return Kernel{}, err
	}
	source := o.Image
	move := false
	if isDeb(o.Image) {
		image, modules, err := unpackDeb(ctx, st, o.Image)
		if err != nil {
			return Kernel{}, err
		}
		if o.Modules == "" {
			o.Modules, move = modules, true
		}
		o.Image = image
	}
	k, err := s.addImage(ctx, st, o.Image)
	if err != nil {
		return Kernel{}, err
	}
	if o.Modules != "" {
		if err := addModules(ctx, st, o.Modules, move); err != nil {
			return Kernel{}, err
		}
		k.ModulesDir = st.path("kernel/" + modulesDir)
	}
	k.Name, k.ID, k.Source, k.Added = name, strings.ToLower(rand.Text())[:16], source, time.Now().UTC().Truncate(time.Second)
	if o.Source != "" {
		k.Source = o.Source
	}
	p.Update(name, "storing", 0, 0)
	if err := s.publish(ctx, st, k, o.Replace); err != nil {
		return Kernel{}, err
	}
	p.Done(name, "kernel "+k.Release+" is ready")
	return s.Get(name)
}

// addImage puts the uncompressed image into the stage and describes it.
func (s *Store) addImage(ctx context.Context, st *stage, file string) (Kernel, error) {
	in, size, err := openImage(file)
	if err != nil {
		return Kernel{}, err
	}
	defer in.Close()
	k, err := expand(ctx, in, size, st.path("kernel/"+imageFile))
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", file, err)
	}
	return k, nil
}

// openImage opens a plain file that somebody says is a kernel.
func openImage(file string) (*os.File, int64, error) {
	// Opening a pipe would wait for a writer; O_NONBLOCK does not.
	f, err := os.OpenFile(file, os.O_RDONLY|nonblock, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, file)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("kernel %s: %w: it is not a plain file", file, ErrInvalid)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// expand writes the ELF image of a kernel file to target, on the disk when it
// returns, and describes it.
func expand(ctx context.Context, in io.ReaderAt, size int64, target string) (Kernel, error) {
	kind, err := vmlinux.Identify(in, size)
	if err != nil {
		return Kernel{}, err
	}
	sum := sha256.New()
	err = writeSynced(target, func(w io.Writer) error {
		out := io.MultiWriter(&stopper{ctx, w}, sum)
		switch kind {
		case vmlinux.BzImage:
			_, err := vmlinux.Unpack(in, size, out)
			return err
		case vmlinux.ELF:
			if size > vmlinux.MaxUnpacked {
				return fmt.Errorf("%w: it has %d bytes, more than %d", ErrInvalid, size, vmlinux.MaxUnpacked)
			}
			_, err := io.Copy(out, io.NewSectionReader(in, 0, size))
			return err
		}
		return fmt.Errorf("%w: a %s cannot be booted; `bulkhead kernel add` takes it", ErrInvalid, kind)
	})
	if err != nil {
		return Kernel{}, err
	}
	k, err := examine(target)
	if err != nil {
		return Kernel{}, err
	}
	if k.Release == "" && kind == vmlinux.BzImage {
		k.Release = vmlinux.Release(in, size)
	}
	k.Digest = hex.EncodeToString(sum.Sum(nil))
	return k, nil
}

// examine describes an ELF image, or says why it cannot be booted.
func examine(file string) (Kernel, error) {
	f, size, err := openImage(file)
	if err != nil {
		return Kernel{}, err
	}
	defer f.Close()
	info, err := vmlinux.CheckELF(f, size)
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{Release: info.Release, MMIO: info.MMIO, Image: file, Size: size}, nil
}

// stopper is a writer that fails once ctx has ended.
type stopper struct {
	ctx context.Context
	w   io.Writer
}

func (s *stopper) Write(b []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	return s.w.Write(b)
}

// addModules puts a directory of modules into the stage: plain files and
// directories only. The links build and source of installed kernels lead
// elsewhere and are left out.
func addModules(ctx context.Context, st *stage, dir string, move bool) error {
	target := st.path("kernel/" + modulesDir)
	if move {
		if err := os.Rename(dir, target); err != nil {
			return err
		}
	} else if err := copyModules(ctx, dir, target); err != nil {
		return fmt.Errorf("copy the modules in %s: %w", dir, err)
	}
	t, err := kmod.Open(target)
	if err != nil {
		return err
	}
	defer t.Close()
	if t.Len() == 0 {
		return fmt.Errorf("%w: no module is in %s; give a directory such as /lib/modules/RELEASE", ErrModule, dir)
	}
	return nil
}

// copyModules copies modules and the lists beside them. Links are resolved
// below dir only.
func copyModules(ctx context.Context, dir, target string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		to := filepath.Join(target, name)
		switch {
		case entry.IsDir():
			return os.Mkdir(to, 0o700)
		case entry.Type().IsRegular():
			return copyFile(root, name, to)
		}
		return nil
	})
}

func copyFile(root *os.Root, name, to string) error {
	in, err := root.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
