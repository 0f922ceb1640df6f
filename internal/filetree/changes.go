package filetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// opaqueXattr marks a directory of an overlay's upper layer that hides those of
// the same name below it.
const opaqueXattr = "trusted.overlay.opaque"

// Changes lists what the upper directory of an overlay changes of the layers
// below it, lowest first, in the order of paths:
//
//	in upper                 in a layer below   is
//	a whiteout (char 0:0)    yes                D
//	anything                 no                 A
//	anything but below       yes                C
//	a directory              a directory        C if its attributes or something in it changed;
//	                                            D for what an opaque one hides
//	the root directory       always             C if its attributes changed
//
// ignore names paths that the engine makes, such as mount points; what is below
// them is looked at all the same. ids are the owner's of upper; in the layers
// owners are as in the image.
func Changes(ctx context.Context, upper string, lower []string, ids IDs, ignore func(path string) bool) (_ []workload.Change, err error) {
	d := &differ{ctx: ctx, ids: ids, ignore: ignore}
	top, err := openDir(upper)
	if err != nil {
		return nil, err
	}
	defer at.Close(top)
	below := layers{}
	defer func() { below.close() }()
	for _, dir := range slices.Backward(lower) {
		fd, err := openDir(dir)
		if err != nil {
			return nil, err
		}
		below = append(below, fd)
	}
	if err = d.root(top, below); err == nil {
		err = d.directory(top, below, "", 0, false)
	}
	if err != nil {
		return nil, fmt.Errorf("compare with the image: %w", err)
	}
	return d.out, nil
}

func openDir(dir string) (int, error) {
	fd, err := at.LookPath(dir, true)
	if err != nil {
		return -1, err
	}
	defer at.Close(fd)
	return at.OpenDir(fd, ".")
}

// layers are directories of the same path in several layers, highest first.
type layers []int

func (l layers) close() {
	for _, fd := range l {
		at.Close(fd)
	}
}

// lookup finds what the layers show under a name, and which of them does.
func (l layers) lookup(name string) (dir int, st at.Stat, found bool, err error) {
	for _, fd := range l {
		st, err := at.Lstat(fd, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fd, st, false, err
		}
		return fd, st, !at.IsWhiteout(st), nil
	}
	return -1, st, false, nil
}

// enter opens the directories of a name, as far down as they are visible.
func (l layers) enter(name string) (layers, error) {
	var out layers
	for _, fd := range l {
		sub, err := at.OpenDir(fd, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
			return out, nil // another kind of file, or a whiteout, hides the rest
		case err != nil:
			out.close()
			return nil, err
		}
		out = append(out, sub)
		if isOpaque(sub) {
			return out, nil
		}
	}
	return out, nil
}

// names are all that the layers show in a directory.
func (l layers) names(ctx context.Context) (map[string]bool, error) {
	seen := map[string]bool{}
	for _, fd := range l {
		all, err := readNames(fd)
		if err != nil {
			return nil, err
		}
		for _, n := range all {
			if _, ok := seen[n]; ok {
				continue // a higher layer has decided
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			st, err := at.Lstat(fd, n)
			if err != nil {
				return nil, err
			}
			seen[n] = !at.IsWhiteout(st)
		}
	}
	return seen, nil
}

func isOpaque(fd int) bool {
	v, err := at.Getxattr(fd, opaqueXattr)
	return err == nil && len(v) == 1 && v[0] == 'y'
}

// readNames lists a directory, which is bounded.
func readNames(fd int) ([]string, error) {
	again, err := at.OpenDir(fd, ".") // with a position of its own
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer f.Close()
	var out []string
	for {
		names, err := f.Readdirnames(1024)
		if out = append(out, names...); len(out) > workload.MaxChanges {
			return nil, fmt.Errorf("a directory of more than %d files", workload.MaxChanges)
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			slices.Sort(out)
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

type differ struct {
	ctx    context.Context
	ids    IDs
	ignore func(string) bool
	out    []workload.Change
	size   int
	// pending are the directories on the way that were not said to be changed.
	pending []string
}

// add says that a path changed, and with it the directories above.
func (d *differ) add(kind, path string) error {
	for _, p := range d.pending {
		d.out = append(d.out, workload.Change{Kind: "C", Path: p})
		d.size += len(p)
	}
	d.pending = d.pending[:0]
	d.out = append(d.out, workload.Change{Kind: kind, Path: path})
	if d.size += len(path); len(d.out) > workload.MaxChanges || d.size > workload.MaxChangeBytes {
		return fmt.Errorf("more than %d changes, or their names are too long", workload.MaxChanges)
	}
	return nil
}

// root compares the root directory itself. Whoever made upper gave it the owner and the
// mode of the highest layer's, but for setuid, and none of its extended attributes: that
// one is missing is not the workload's doing.
func (d *differ) root(upper int, below layers) error {
	if len(below) == 0 {
		return nil
	}
	const setuid = 0o4000
	st, err := at.Fstat(upper)
	if err != nil {
		return err
	}
	old, err := at.Fstat(below[0])
	if err != nil {
		return err
	}
	st.Mode, old.Mode = st.Mode&^setuid, old.Mode&^setuid
	changed := d.attributesDiffer(st, old)
	is, err := attributesAt(d.ids, upper, ".")
	if err != nil {
		return err
	}
	was, err := attributesAt(IDs{}, below[0], ".")
	if err != nil {
		return err
	}
	for name, value := range is {
		before, had := was[name]
		changed = changed || !had || before != value
	}
	if changed {
		return d.add("C", "/")
	}
	return nil
}

// directory compares a directory of upper with those below it, which are hidden if it
// is opaque, or one that it is in: overlayfs marks the topmost only.
func (d *differ) directory(upper int, below layers, path string, depth int, opaque bool) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%.60q…: deeper than %d directories", path, maxDepth)
	}
	names, err := readNames(upper)
	if err != nil {
		return err
	}
	hidden := map[string]bool{}
	opaque = opaque || isOpaque(upper)
	if len(below) > 0 && opaque {
		all, err := below.names(d.ctx)
		if err != nil {
			return err
		}
		own := names
		for n, shown := range all {
			if _, found := slices.BinarySearch(own, n); shown && !found {
				hidden[n] = true
				names = append(names, n)
			}
		}
		slices.Sort(names)
	}
	for _, name := range names {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		if hidden[name] {
			if err := d.add("D", path+"/"+name); err != nil {
				return err
			}
			continue
		}
		if err := d.name(upper, below, name, path+"/"+name, depth, opaque); err != nil {
			return err
		}
	}
	return nil
}

// name compares one name.
func (d *differ) name(upper int, below layers, name, path string, depth int, opaque bool) error {
	st, err := at.Lstat(upper, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	in, old, existed, err := below.lookup(name)
	if err != nil {
		return err
	}
	ignored := d.ignore != nil && d.ignore(path)
	changed := !at.IsDir(st) || !at.IsDir(old) || d.attributesDiffer(st, old)
	if existed && !ignored && !changed {
		if changed, err = d.xattrsDiffer(upper, in, name); err != nil {
			return fmt.Errorf("%.60q: %w", path, err)
		}
	}
	switch {
	case at.IsWhiteout(st):
		if existed && !ignored {
			return d.add("D", path)
		}
		return nil
	case ignored && (!at.IsDir(st) || existed && !at.IsDir(old)):
		return nil
	case !ignored && !existed:
		if err := d.add("A", path); err != nil {
			return err
		}
	case !ignored && changed:
		if err := d.add("C", path); err != nil {
			return err
		}
	case !ignored:
		before := len(d.pending)
		d.pending = append(d.pending, path)
		defer func() { d.pending = d.pending[:min(before, len(d.pending))] }()
	}
	if !at.IsDir(st) {
		return nil
	}
	return d.enter(upper, below, name, path, depth, existed && at.IsDir(old), opaque)
}

func (d *differ) enter(upper int, below layers, name, path string, depth int, merged, opaque bool) error {
	sub, err := at.OpenDir(upper, name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			return nil // replaced meanwhile
		}
		return err
	}
	defer at.Close(sub)
	var under layers
	if merged {
		if under, err = below.enter(name); err != nil {
			return err
		}
		defer under.close()
	}
	return d.directory(sub, under, path, depth+1, opaque)
}

// attributesDiffer tells whether a directory was changed itself: overlayfs
// copies one up, with its attributes, for what is made in it.
func (d *differ) attributesDiffer(st, old at.Stat) bool {
	return st.Mode != old.Mode || d.ids.inside(st.Uid) != old.Uid || d.ids.inside(st.Gid) != old.Gid
}

// xattrsDiffer is attributesDiffer for the extended attributes that an image has.
func (d *differ) xattrsDiffer(upper, lower int, name string) (bool, error) {
	is, err := attributesAt(d.ids, upper, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // gone meanwhile
	}
	if err != nil {
		return false, err
	}
	was, err := attributesAt(IDs{}, lower, name)
	return !maps.Equal(is, was), err
}

// attributesAt is attributesInside for a name in a directory.
func attributesAt(ids IDs, dir int, name string) (map[string]string, error) {
	names, err := at.Llistxattr(dir, name)
	if at.NoXattr(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ids.attributesInside(names, func(attribute string) ([]byte, error) { return at.Lgetxattr(dir, name, attribute) })
}
