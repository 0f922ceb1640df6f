package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Numbers of mount(2)'s younger relatives that name themselves in programs.
var (
	emptyPath       = launch.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")
	emptyRecursive  = launch.Flag(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "AT_EMPTY_PATH|AT_RECURSIVE")
	cloneTree       = launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC")
	cloneTreeRec    = launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE")
	cloneEmpty      = launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH")
	cloneEmptyRec   = launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH|AT_RECURSIVE")
	fsCreate        = launch.Flag(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE")
	fsString        = launch.Flag(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING")
	fsFlag          = launch.Flag(unix.FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG")
	fsFD            = launch.Flag(unix.FSCONFIG_SET_FD, "FSCONFIG_SET_FD")
	openPath        = launch.Flag(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
	moveFrom        = launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH")
	moveBetween     = launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH")
	layersDirectory = "layers"
	rootDirectory   = "root"
)

// lookAtRoot opens the root file system for looking.
func (p *planner) lookAtRoot() error {
	if l := p.cfg.Layers; l != nil {
		if len(l.Lower) == 0 {
			return errors.New("the image has no layers")
		}
		look := *l
		if p.dry {
			look.Upper = "" // it may not exist, and begins empty
		}
		u, err := newUnionTree(&look, &p.held)
		if err != nil {
			return err
		}
		p.rootPath = filepath.Join(p.cfg.Dir, rootDirectory)
		p.view.mount("/", &layeredTree{below: u})
		return nil
	}
	root := p.spec.Root.Path
	if root == "" {
		return errors.New("root.path is empty")
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join(p.cfg.Bundle, root)
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if root == "/" {
		return errors.New("root.path must not be the host's root directory")
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root file system: %w", &os.PathError{Op: "open", Path: root, Err: err})
	}
	p.held = append(p.held, fd)
	p.rootPath = root
	p.view.mount("/", &layeredTree{below: dirTree{fd, root}})
	return nil
}

// planRoot makes the root mount and attaches it in mount namespace A.
func (p *planner) planRoot() error {
	g := p.prog
	p.root = g.Slot("root")
	mask := g.Do(launch.Host, launch.Umask, "modes are as written", launch.Int(0))
	if p.cfg.Hooks != nil {
		p.umask = g.Slot("umask")
		mask.To(p.umask)
	}
	switch {
	case p.cfg.Layers == nil:
		g.Do(launch.Host, launch.OpenTree, "the root file system, detached", launch.AtCWD(), launch.Str(p.rootPath), cloneTreeRec).ToFD(p.root)
	case p.facts.overlayFDs:
		return p.planOverlay()
	default:
		return p.planOldOverlay()
	}
	p.attachRoot()
	return nil
}

func (p *planner) layersPath() string { return filepath.Join(p.cfg.Dir, layersDirectory) }

func (p *planner) detachLayers() {
	p.prog.Do(launch.Host, launch.Umount2, "", launch.Str(p.layersPath()), launch.Flag(unix.MNT_DETACH, "MNT_DETACH"))
}

func (p *planner) attachRoot() {
	p.prog.Do(launch.Host, launch.MoveMount, "attach the root", launch.Use(p.root), launch.Str(""), launch.AtCWD(),
		launch.Str(p.rootPath), moveFrom)
}

// layerNames returns the directory that holds all layers and their names in it.
// A single one is its own: in a guest it is the root of an image's file system,
// and the directory above may be of a file system that cannot be ID-mapped.
func layerNames(l *Layers) (parent string, names []string, err error) {
	if len(l.Lower) == 1 {
		return l.Lower[0], []string{"."}, nil
	}
	parent = filepath.Dir(l.Lower[0])
	for common := false; !common; {
		common = true
		for _, d := range l.Lower {
			if !strings.HasPrefix(d, parent+"/") {
				parent, common = filepath.Dir(parent), false
				break
			}
		}
		if parent == "/" {
			return "", nil, errors.New("the layers share no directory of their own")
		}
	}
	for _, d := range l.Lower {
		names = append(names, strings.TrimPrefix(d, parent+"/"))
	}
	return parent, names, nil
}

// planLayers makes one ID-mapped, read-only clone of the directory that holds
// the layers, and attaches it at a place of the container's own: overlayfs
// takes directories of mounts that are attached, or whole detached mounts.
func (p *planner) planLayers() (slot launch.Slot, names []string, err error) {
	g := p.prog
	parent, names, err := layerNames(p.cfg.Layers)
	if err != nil {
		return 0, nil, err
	}
	slot = g.Slot("layers")
	g.Do(launch.Host, launch.OpenTree, "all image layers", launch.AtCWD(), launch.Str(parent), cloneTree).ToFD(slot)
	if p.ids.active() {
		p.setAttr(slot, attrs{set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY}, 0, false, "owners shifted into the container's range, read-only")
	} else {
		p.setAttr(slot, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, false, "read-only")
	}
	g.Do(launch.Host, launch.MoveMount, "where overlay can find them", launch.Use(slot), launch.Str(""), launch.AtCWD(), launch.Str(p.layersPath()), moveFrom)
	return slot, names, nil
}

func (p *planner) planOverlay() error {
	g := p.prog
	layers, names, err := p.planLayers()
	if err != nil {
		return err
	}
	fs := g.Slot("overlay")
	g.Do(launch.Host, launch.Fsopen, "the root: layers below, a writable one on top", launch.Str("overlay"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
	p.fsOption(fs, "source", "overlay")
	for i := len(names) - 1; i >= 0; i-- {
		layer := g.Slot("layer" + itoa(i))
		g.Do(launch.Host, launch.Openat, "", launch.Use(layers), launch.Str(names[i]), openPath, launch.Int(0)).ToFD(layer)
		g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsFD, launch.Str("lowerdir+"), launch.Null(), launch.Use(layer))
	}
	p.fsOption(fs, "upperdir", p.cfg.Layers.Upper)
	p.fsOption(fs, "workdir", p.cfg.Layers.Work)
	p.fsOption(fs, "redirect_dir", "off")
	p.fsOption(fs, "metacopy", "off")
	if p.cfg.Layers.Volatile {
		g.Do(launch.Host, launch.Fsconfig, "gone with the container: no writing back at the end", launch.Use(fs), fsFlag, launch.Str("volatile"), launch.Null(), launch.Int(0))
	}
	g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsCreate, launch.Null(), launch.Null(), launch.Int(0))
	g.Do(launch.Host, launch.Fsmount, "device nodes in an image stay dead", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"),
		launch.Flag(unix.MOUNT_ATTR_NODEV, "MOUNT_ATTR_NODEV")).ToFD(p.root)
	p.detachLayers()
	p.attachRoot()
	return nil
}

// maxMountData is what mount(2) takes as data: one page, with its final NUL.
const maxMountData = 4095

// planOldOverlay is for kernels whose overlay takes no descriptors (before
// Linux 6.13): the layers are attached, and named relative to the working
// directory so that many fit into mount(2)'s page.
func (p *planner) planOldOverlay() error {
	g := p.prog
	_, names, err := p.planLayers()
	if err != nil {
		return err
	}
	for _, s := range append([]string{p.cfg.Layers.Upper, p.cfg.Layers.Work}, names...) {
		if strings.ContainsAny(s, ":,\\") {
			return fmt.Errorf("overlay on this kernel cannot take the path %q: a colon, comma or backslash is in it", s)
		}
	}
	reversed := make([]string, len(names))
	for i, n := range names {
		reversed[len(names)-1-i] = n
	}
	data := "lowerdir=" + strings.Join(reversed, ":") + ",upperdir=" + p.cfg.Layers.Upper + ",workdir=" + p.cfg.Layers.Work + ",redirect_dir=off,metacopy=off"
	if p.cfg.Layers.Volatile {
		data += ",volatile"
	}
	if len(data) > maxMountData {
		return fmt.Errorf("an image of %d layers is too much for this kernel's overlay; Linux 6.13 takes more", len(names))
	}
	at := p.layersPath()
	g.Do(launch.Host, launch.Chdir, "", launch.Str(at))
	g.Do(launch.Host, launch.Mount, "the root: layers below, a writable one on top", launch.Str("overlay"), launch.Str(p.rootPath), launch.Str("overlay"),
		launch.Flag(unix.MS_NODEV, "MS_NODEV"), launch.Str(data))
	g.Do(launch.Host, launch.Chdir, "", launch.Str("/"))
	p.detachLayers()
	g.Do(launch.Host, launch.OpenTree, "", launch.AtCWD(), launch.Str(p.rootPath), launch.Flag(unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLOEXEC")).ToFD(p.root)
	return nil
}

func (p *planner) fsOption(fs launch.Slot, key, value string) {
	p.prog.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsString, launch.Str(key), launch.Str(value), launch.Int(0))
}

// setAttr changes the attributes of the mount in slot.
func (p *planner) setAttr(slot launch.Slot, a attrs, propagation uint64, recursive bool, why string) {
	b := launch.U64(a.set, a.clr, propagation, 0)
	text := "{attr_set=" + attrNames(a.set)
	if a.clr != 0 {
		text += ", attr_clr=" + attrNames(a.clr)
	}
	if propagation != 0 {
		text += ", propagation=" + propagationName(propagation)
	}
	arg := launch.Buf(b, text+"}")
	if a.set&unix.MOUNT_ATTR_IDMAP != 0 {
		arg = launch.Patched(b, 24, p.userns, text+", userns_fd=$userns}")
	}
	flags := emptyPath
	if recursive {
		flags = emptyRecursive
	}
	p.prog.Do(launch.Host, launch.MountSetattr, why, launch.Use(slot), launch.Str(""), flags, arg, launch.Int(len(b)))
}

// planPivot makes the root the root, for the host's thread and for the first
// process, whose root directory is the same and moves along.
func (p *planner) planPivot() {
	g := p.prog
	g.Do(launch.Host, launch.Fchdir, "", launch.Use(p.root))
	g.Do(launch.Host, launch.PivotRoot, "the image becomes / for this mount namespace", launch.Str("."), launch.Str("."))
	g.Do(launch.Host, launch.Umount2, "the host's files are gone from it", launch.Str("."), launch.Flag(unix.MNT_DETACH, "MNT_DETACH"))
	switch v := propagationOptions[p.spec.Linux.RootfsPropagation]; {
	case v == 0 || v&unix.MS_PRIVATE != 0:
	default:
		g.Do(launch.Host, launch.Mount, "rootfsPropagation", launch.Null(), launch.Str("/"), launch.Null(), launch.Flag(uintptr(v), propagationName(v)), launch.Null())
	}
}
