package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/initramfs"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kmod"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/vmlinux"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

const (
	nonblock = syscall.O_NONBLOCK
	// keepFor is how long what is made from files named by path, and archives,
	// stay after their last use.
	keepFor = 30 * 24 * time.Hour
	// archiveFormat is raised whenever the same parts make another archive.
	archiveFormat = "3"
	archiveFile   = "initrd"
	// How the names of archives begin that belong to no stored kernel's ID.
	noModules, ofFile = "none", "file"
)

// Resolve returns a kernel that can be booted, with its initramfs. name is ""
// for the default, the name of a stored kernel, or the path of an image: a word
// with a slash. The default is fetched if there is none. Modules of an image
// named by path are looked for in /lib/modules/RELEASE; without that directory
// everything is taken to be built in.
func (s *Store) Resolve(ctx context.Context, name string, want Wanted, p Progress) (Kernel, error) {
	p = heard(p)
	s.tidy(ctx)
	var k Kernel
	var err error
	switch {
	case strings.Contains(name, "/"):
		k, err = s.file(ctx, name)
	case name == "":
		k, err = s.standard(ctx, p)
	default:
		k, err = s.Get(name)
	}
	if err != nil {
		return Kernel{}, err
	}
	if info, err := os.Stat(k.Image); err != nil || info.Size() != k.Size {
		return Kernel{}, fmt.Errorf("kernel %s: %w: its image in the store is damaged; remove it and add it again", k.Name, ErrInvalid)
	}
	return s.withInitramfs(ctx, k, want)
}

// standard returns the default, and fetches it if there is none.
func (s *Store) standard(ctx context.Context, p Progress) (Kernel, error) {
	k, err := s.Get("")
	if !errors.Is(err, ErrNotFound) {
		return k, err
	}
	if name, _ := s.defaultName(); name != "" {
		return Kernel{}, err // chosen, and gone: nobody's guess is as good
	}
	unlock, err := s.lock(ctx, "fetch.lock", func() { p.Update(defaultName, "waiting", 0, 0) })
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if err := s.chooseOnly(ctx); err != nil {
		return Kernel{}, err
	}
	if k, err := s.Get(""); !errors.Is(err, ErrNotFound) {
		return k, err // another command fetched it, or it was there
	}
	return s.fetchDefault(ctx, p)
}

// chooseOnly makes the only kernel the default where none is: a command was killed
// between storing the first and choosing it, or between giving up the choice and
// removing the last.
func (s *Store) chooseOnly(ctx context.Context) error {
	unlock, err := s.lock(ctx, "lock", nil)
	if err != nil {
		return err
	}
	defer unlock()
	standard, err := s.defaultName()
	if err != nil || standard != "" {
		return err
	}
	all, err := s.names()
	if err != nil || len(all) != 1 {
		return err
	}
	if _, err := s.read(all[0]); errors.Is(err, ErrNotFound) {
		return nil // half of one
	} else if err != nil {
		return err
	}
	return s.setDefault(all[0])
}

// Update fetches the distribution's kernel again if there is a newer one, and
// reports whether there was. The default stays what it is.
func (s *Store) Update(ctx context.Context, p Progress) (k Kernel, newer bool, err error) {
	p = heard(p)
	unlock, err := s.lock(ctx, "fetch.lock", func() { p.Update(defaultName, "waiting", 0, 0) })
	if err != nil {
		return Kernel{}, false, err
	}
	defer unlock()
	old, err := s.read(defaultName)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Kernel{}, false, err
	}
	k, err = s.fetchDefault(ctx, p)
	return k, err == nil && k.ID != old.ID, err
}

// defaultName is what the distribution's kernel is called.
const defaultName = "debian"

// fetchDefault stores the distribution's kernel unless that very one is here.
// The caller holds fetch.lock.
func (s *Store) fetchDefault(ctx context.Context, p Progress) (Kernel, error) {
	if err := s.sweep(ctx); err != nil {
		return Kernel{}, err
	}
	st, err := s.newStage(ctx)
	if err != nil {
		return Kernel{}, err
	}
	defer st.close()
	var have string
	if k, err := s.read(defaultName); err == nil {
		have = k.Source
	}
	p.Update(defaultName, "looking for it", 0, 0)
	deb, source, err := s.fetch.fetch(ctx, st.path("package.deb"), have, p)
	switch {
	case err != nil:
		return Kernel{}, fmt.Errorf("%w: %w", ErrFetch, err)
	case deb == "":
		p.Done(defaultName, "is the newest already")
		return s.Get(defaultName)
	}
	return s.add(ctx, st, defaultName, AddOptions{Image: deb, Source: source, Replace: true}, p)
}

// file returns the kernel in a file that is named by its path.
func (s *Store) file(ctx context.Context, name string) (Kernel, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return Kernel{}, err
	}
	in, size, err := openImage(name)
	if err != nil {
		return Kernel{}, err
	}
	defer in.Close()
	kind, err := vmlinux.Identify(in, size)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", name, err)
	}
	var k Kernel
	switch kind {
	case vmlinux.ELF:
		k, err = examine(name)
	case vmlinux.BzImage:
		k, err = s.unpacked(ctx, in, size)
	case vmlinux.Deb:
		err = fmt.Errorf("%w: it is a Debian package; store it with `bulkhead kernel add` first", ErrInvalid)
	}
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", name, err)
	}
	k.Source, k.Digest = name, ""
	if dir := filepath.Join("/lib/modules", k.Release); k.Release != "" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			k.ModulesDir = dir
		}
	}
	return k, nil
}

// unpacked returns the image inside a bzImage, from the cache if it is there.
func (s *Store) unpacked(ctx context.Context, in *os.File, size int64) (Kernel, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(in, 0, size)); err != nil {
		return Kernel{}, err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	// The directory has the time of the last use: templates are found by what the
	// image is, its times included.
	dir := s.path("unpacked", digest)
	target := filepath.Join(dir, imageFile)
	if k, err := examine(target); err == nil {
		touch(dir)
		return k, nil
	}
	st, err := s.newStage(ctx)
	if err != nil {
		return Kernel{}, err
	}
	defer st.close()
	if err := os.Mkdir(st.path("unpacked"), 0o700); err != nil {
		return Kernel{}, err
	}
	k, err := expand(ctx, in, size, st.path("unpacked/"+imageFile))
	if err != nil {
		return Kernel{}, err
	}
	if err := syncDir(st.path("unpacked")); err != nil {
		return Kernel{}, err
	}
	s.forget("unpacked", imageFile)
	if err := place(st.path("unpacked"), dir); err != nil {
		return Kernel{}, err
	}
	k.Image = target
	return k, syncDir(s.path("unpacked"))
}

// place gives a directory its name. What has it already, and is of no use, takes the
// place of the directory.
func place(dir, name string) error {
	err := os.Rename(dir, name)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
		err = sys.Exchange(dir, name)
	}
	return err
}

// touch notes that what a directory holds was used. That it fails is no reason to fail.
func touch(dir string) { _ = os.Chtimes(dir, time.Time{}, time.Now()) }

// forget removes what was not used for long, and is not: who uses it has marked file
// in it. Errors are left to the next time.
func (s *Store) forget(dir, file string) {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > keepFor && !used(s.path(dir, e.Name(), file)) {
			_ = os.RemoveAll(s.path(dir, e.Name()))
		}
	}
}

// contents is what is written down beside an archive.
type contents struct {
	Modules []string `json:"modules"`
	Builtin []string `json:"builtin"`
}

// withInitramfs adds the archive to a kernel, ready-made if there is one.
func (s *Store) withInitramfs(ctx context.Context, k Kernel, want Wanted) (Kernel, error) {
	wanted, network := want.Modules, want.Network
	if wanted == nil {
		wanted = BaseModules
		if network == nil {
			network = NetModules
		}
	}
	parts := sha256.New()
	fmt.Fprintf(parts, "%s\n%q\n%q\n", archiveFormat, wanted, network)
	var programs []initramfs.Program
	for _, p := range []struct{ path, file string }{{"init", want.Agent}, {"bin/bulkhead-init", want.Init}} {
		if p.file == "" && p.path != "init" {
			continue
		}
		f, size, version, err := openProgram(p.file)
		if err != nil {
			return Kernel{}, err
		}
		defer f.Close()
		// Not the content: reading it is several milliseconds of each start.
		fmt.Fprintf(parts, "%s %s\n", p.path, version)
		programs = append(programs, initramfs.Program{Path: p.path, Content: f, Size: size})
	}
	var err error
	// A stored kernel never changes under its ID. The modules of others may, so
	// they are looked at each time.
	id := k.ID
	var made archive
	switch {
	case k.ModulesDir == "":
		id, made.Builtin = noModules, slices.Concat(wanted, network)
	case id == "":
		id = ofFile
		if made, err = collect(k, wanted, network); err != nil {
			return Kernel{}, err
		}
		for _, m := range made.modules {
			fmt.Fprintf(parts, "%s %x\n", m.Name, sha256.Sum256(m.Content))
		}
	}
	key := id + "-" + hex.EncodeToString(parts.Sum(nil)[:16])
	if done, ok := s.ready(k, key); ok {
		return done, nil
	}
	unlock, err := s.lock(ctx, "make.lock", nil)
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if done, ok := s.ready(k, key); ok {
		return done, nil
	}
	if k.ModulesDir != "" && made.modules == nil {
		if made, err = collect(k, wanted, network); err != nil {
			return Kernel{}, err
		}
	}
	if err := s.makeArchive(ctx, key, programs, made); err != nil {
		return Kernel{}, fmt.Errorf("make the initramfs for kernel %s: %w", k.Release, err)
	}
	done, ok := s.ready(k, key)
	if !ok {
		return Kernel{}, fmt.Errorf("make the initramfs for kernel %s: it was removed again", k.Release)
	}
	return done, nil
}

// openProgram opens a program that the guest gets, and tells which version of the
// file it is.
func openProgram(file string) (f *os.File, size int64, version string, err error) {
	if f, err = os.Open(file); err != nil {
		return nil, 0, "", fmt.Errorf("open a program of the guest's: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("the guest's program %s is not a plain file", file)
	}
	if err == nil {
		version, err = sys.Identity(info)
	}
	if err != nil {
		f.Close()
		return nil, 0, "", err
	}
	return f, info.Size(), version, nil
}

// ready adds an archive that is there.
func (s *Store) ready(k Kernel, key string) (Kernel, bool) {
	dir := s.path("initramfs", key)
	raw, err := os.ReadFile(filepath.Join(dir, "contents.json"))
	if err != nil {
		return k, false
	}
	var c contents
	if err := json.Unmarshal(raw, &c); err != nil {
		return k, false
	}
	touch(dir)
	k.Initramfs, k.Modules, k.Builtin = filepath.Join(dir, archiveFile), c.Modules, c.Builtin
	return k, true
}

// archive is what goes into one.
type archive struct {
	contents
	modules []initramfs.Module
}

// collect reads the modules that are wanted and what they depend on.
func collect(k Kernel, wanted, network []string) (archive, error) {
	a, err := collectFrom(k, wanted, network)
	if errors.Is(err, kmod.ErrMissing) {
		return archive{}, fmt.Errorf("%w: kernel %s: %w", ErrModule, k.Release, err)
	}
	if err != nil {
		return archive{}, fmt.Errorf("collect the modules of kernel %s: %w", k.Release, err)
	}
	return a, nil
}

func collectFrom(k Kernel, wanted, network []string) (archive, error) {
	tree, err := kmod.Open(k.ModulesDir)
	if err != nil {
		return archive{}, err
	}
	defer tree.Close()
	load, builtin, err := tree.Closure(k.Release, wanted...)
	if err != nil {
		return archive{}, err
	}
	always := len(load)
	if len(network) > 0 {
		more, built, err := tree.Closure(k.Release, slices.Concat(wanted, network)...)
		switch {
		case err == nil:
			builtin = built
			for _, m := range more {
				if !slices.ContainsFunc(load[:always], func(l kmod.Module) bool { return l.Name == m.Name }) {
					load = append(load, m)
				}
			}
		case !errors.Is(err, kmod.ErrMissing):
			return archive{}, err
		}
	}
	a := archive{contents: contents{Builtin: builtin}, modules: []initramfs.Module{}}
	for n, m := range load {
		content, err := tree.Read(m.Path)
		if err != nil {
			return archive{}, err
		}
		a.Modules = append(a.Modules, m.Name)
		a.modules = append(a.modules, initramfs.Module{Name: m.Name, Content: kmod.Lean(content), Network: n >= always})
	}
	return a, nil
}

// makeArchive writes an archive and makes it visible. The caller holds
// make.lock.
func (s *Store) makeArchive(ctx context.Context, key string, programs []initramfs.Program, a archive) error {
	st, err := s.newStage(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	dir := st.path("initramfs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	err = writeSynced(filepath.Join(dir, archiveFile), func(w io.Writer) error {
		return initramfs.Write(&stopper{ctx, w}, programs, a.modules)
	})
	if err != nil {
		return err
	}
	err = writeSynced(filepath.Join(dir, "contents.json"), func(w io.Writer) error {
		return json.NewEncoder(w).Encode(a.contents)
	})
	if err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	s.forget("initramfs", archiveFile)
	if err := place(dir, s.path("initramfs", key)); err != nil {
		return err
	}
	return syncDir(s.path("initramfs"))
}
