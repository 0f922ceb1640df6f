// Package kmod reads a directory of kernel modules, such as /lib/modules/RELEASE,
// and works out what has to be loaded for some of them, and in which order. It
// asks the modules themselves, so it needs neither depmod nor what depmod
// writes: a package that was only unpacked has none of it.
package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// ErrMissing is wrapped by the error about a module that is neither there nor
// built in.
var ErrMissing = errors.New("module missing")

const (
	maxModules = 100_000  // the largest distribution kernels have 7,000
	maxModule  = 64 << 20 // bytes of one module, unpacked
	maxBuiltin = 4 << 20  // bytes of modules.builtin
	maxInfo    = 1 << 20  // bytes of what a module says of itself
	maxClosure = 1000     // modules of one closure
)

// suffixes are the names' ends by how a module is packed.
var suffixes = []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

// Tree is a directory of modules. Its methods must not be called at the same
// time.
type Tree struct {
	root    *os.Root
	files   map[string]string // name to path below the root
	builtin map[string]bool
	infos   map[string]info
	aliases map[string][]string // of the crypto modules; nil before the first look
}

// Module is one that has to be loaded.
type Module struct {
	Name string // as lsmod shows it
	Path string // below the directory
}

// Open reads the names of a directory's modules. The caller must Close it.
// Symbolic links are not followed.
func Open(dir string) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root, files: map[string]string{}, builtin: map[string]bool{}, infos: map[string]info{}}
	if err := t.index(); err != nil {
		root.Close()
		return nil, fmt.Errorf("read modules in %s: %w", dir, err)
	}
	return t, nil
}

// Close lets go of the directory.
func (t *Tree) Close() error { return t.root.Close() }

// Len is how many modules there are.
func (t *Tree) Len() int { return len(t.files) }

// Name is a module's name as the kernel spells it: modules say - and _ for the
// same thing.
func Name(s string) string { return strings.ReplaceAll(s, "-", "_") }

// fileName is the module's name in the name of a file, "" if it is none.
func fileName(file string) string {
	for _, suffix := range suffixes {
		if name, ok := strings.CutSuffix(path.Base(file), suffix); ok {
			return Name(name)
		}
	}
	return ""
}

func (t *Tree) index() error {
	err := fs.WalkDir(t.root.FS(), ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := fileName(file)
		if name == "" || !entry.Type().IsRegular() {
			return nil
		}
		if len(t.files) >= maxModules {
			return fmt.Errorf("more than %d modules", maxModules)
		}
		// Modules in updates/ take precedence for modprobe; that is a matter of
		// taste, an order that does not change is not: WalkDir sorts.
		if _, taken := t.files[name]; !taken {
			t.files[name] = file
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.readBuiltin()
}

// readBuiltin reads modules.builtin: a path for each module that the kernel has
// inside. A directory without the file has nothing built in that is known.
func (t *Tree) readBuiltin() error {
	f, err := t.root.Open("modules.builtin")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxBuiltin))
	for lines.Scan() {
		if name := fileName(lines.Text()); name != "" {
			t.builtin[name] = true
		}
	}
	return lines.Err()
}

// Closure returns what has to be loaded for the named modules, dependencies
// first, and which of the named ones are built in. release, unless "", is the
// kernel's: modules made for another are an error.
func (t *Tree) Closure(release string, names ...string) (load []Module, builtin []string, err error) {
	c := closure{tree: t, release: release, seen: map[string]bool{}}
	for _, name := range names {
		name = Name(name)
		if t.files[name] == "" && t.builtin[name] {
			builtin = append(builtin, name)
			continue
		}
		if err := c.add(name); err != nil {
			return nil, nil, err
		}
	}
	return c.load, builtin, nil
}

// closure is the walk through the dependencies.
type closure struct {
	tree    *Tree
	release string
	seen    map[string]bool
	load    []Module
}

// add appends a module after everything it depends on. Circles, which only a
// damaged tree has, end where they close.
func (c *closure) add(name string) error {
	if c.seen[name] {
		return nil
	}
	if len(c.seen) >= maxClosure {
		return fmt.Errorf("more than %d modules depend on each other", maxClosure)
	}
	c.seen[name] = true
	file := c.tree.files[name]
	if file == "" {
		if c.tree.builtin[name] {
			return nil
		}
		return fmt.Errorf("%s: %w", name, ErrMissing)
	}
	in, err := c.tree.info(name)
	if err != nil {
		return err
	}
	if c.release != "" && in.release != "" && in.release != c.release {
		return fmt.Errorf("module %s is made for kernel %s, not for %s", name, in.release, c.release)
	}
	for _, soft := range in.before {
		// A soft dependency may be missing.
		if provider := c.tree.provider(soft); provider != "" {
			if err := c.add(provider); err != nil {
				return err
			}
		}
	}
	for _, hard := range in.depends {
		if err := c.add(hard); err != nil {
			return fmt.Errorf("%s needs %w", name, err)
		}
	}
	c.load = append(c.load, Module{Name: name, Path: file})
	return nil
}

// provider is the module behind a name or an alias, "" if there is none. Of
// several, the portable one: it loads on every processor.
func (t *Tree) provider(name string) string {
	if n := Name(name); t.files[n] != "" {
		return n
	}
	if t.builtin[Name(name)] {
		return ""
	}
	if t.aliases == nil {
		t.readAliases()
	}
	candidates := t.aliases[Name(name)]
	for _, c := range candidates {
		if strings.HasSuffix(c, "_generic") {
			return c
		}
	}
	if len(candidates) > 0 {
		return candidates[0]
	}
	return ""
}

// readAliases reads the aliases of the kernel's algorithms: the only ones that
// file systems name as soft dependencies.
func (t *Tree) readAliases() {
	t.aliases = map[string][]string{}
	for name, file := range t.files {
		if path.Dir(file) != "kernel/crypto" {
			continue
		}
		in, err := t.info(name)
		if err != nil {
			continue // it is soft, and whoever needs it will say so
		}
		for _, alias := range in.aliases {
			t.aliases[alias] = append(t.aliases[alias], name)
		}
	}
	for _, names := range t.aliases {
		slices.Sort(names)
	}
}
