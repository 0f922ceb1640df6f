package system

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/pid1"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// tree is the system's root directory while it is put together, a mount.
type tree struct {
	dir string
	fd  int // of the mounted root, 0 before that
}

// close lets go of the root, which could not be unmounted otherwise.
func (t *tree) close() {
	if t.fd != 0 {
		unix.Close(t.fd)
		t.fd = 0
	}
}

const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mount makes the root: the image with the writable layer above it, what every
// init finds mounted when an initramfs hands over, the console, and the mounts
// of the user's.
func (t *tree) mount(p boundary.Prepared, console string, mounts []workload.Mount) error {
	if len(p.Layers) != 1 {
		return fmt.Errorf("%d layers: a system has one", len(p.Layers))
	}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return err
	}
	options := "lowerdir=" + p.Layers[0] + ",upperdir=" + p.Upper + ",workdir=" + p.Work
	if err := unix.Mount("overlay", t.dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount the system's root: %w", err)
	}
	fd, err := unix.Open(t.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: t.dir, Err: err}
	}
	t.fd = fd
	if err := unix.Mount("", t.dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the system's root private: %w", err)
	}
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
		options                string
	}{
		{"proc", "proc", "proc", strict, ""},
		{"/sys", "sys", "", unix.MS_BIND | unix.MS_REC, ""},
		// With it the terminals, whose names are then the same for both.
		{"/dev", "dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"tmpfs", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755,size=20%"},
	} {
		err := t.at(m.target, false, func(target string) error {
			return unix.Mount(m.source, target, m.fstype, m.flags, m.options)
		})
		if err == nil {
			// Nothing that is mounted in it may show up in the agent's.
			err = t.at(m.target, false, func(target string) error {
				return unix.Mount("", target, "", unix.MS_REC|unix.MS_PRIVATE, "")
			})
		}
		if err != nil {
			return fmt.Errorf("mount /%s: %w", m.target, err)
		}
	}
	if err := t.at("dev/console", true, func(target string) error {
		return unix.Mount(console, target, "", unix.MS_BIND, "")
	}); err != nil {
		return fmt.Errorf("mount /dev/console: %w", err)
	}
	for _, m := range mounts {
		if err := t.user(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

// user makes a mount of the user's.
func (t *tree) user(m workload.Mount) error {
	if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
		return errors.New("the target is no place below the root")
	}
	flags := uintptr(unix.MS_NODEV)
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if m.NoExec {
		flags |= unix.MS_NOEXEC
	}
	if m.Type == "tmpfs" {
		mode := m.TmpfsMode
		if mode == 0 {
			mode = 0o1777
		}
		options := fmt.Sprintf("mode=%o", mode)
		if m.TmpfsSize > 0 {
			options += fmt.Sprintf(",size=%d", m.TmpfsSize)
		}
		return t.at(m.Target, false, func(target string) error {
			return unix.Mount("tmpfs", target, "tmpfs", flags|unix.MS_NOSUID, options)
		})
	}
	if m.Type != "bind" {
		return fmt.Errorf("%w: mount type %q", workload.ErrUnsupported, m.Type)
	}
	fi, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	// By a new mount that is moved: a bind's flags would need a second call, at a
	// path that by then leads to the bind.
	tree, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	set := uint64(unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		set |= unix.MOUNT_ATTR_RDONLY
	}
	if m.NoExec {
		set |= unix.MOUNT_ATTR_NOEXEC
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: set, Propagation: unix.MS_PRIVATE}); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return t.at(m.Target, !fi.IsDir(), func(target string) error {
		return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS))
	})
}

// inRoot takes links as the system itself would, and never out of it.
var inRoot = unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}

// at calls f with a path that leads to name in the tree: a mount point, made
// where it is missing, of a file if asked for.
func (t *tree) at(name string, file bool, f func(target string) error) error {
	fd, err := t.open(name, file)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f("/proc/self/fd/" + strconv.Itoa(fd))
}

func (t *tree) open(name string, file bool) (fd int, err error) {
	parts := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	parent := "."
	for n := range parts {
		sofar := strings.Join(parts[:n+1], "/")
		last := n == len(parts)-1
		how := inRoot
		fd, err = unix.Openat2(t.fd, sofar, &how)
		if err == unix.ENOENT {
			if err := t.make(parent, parts[n], file && last); err != nil {
				return -1, &os.PathError{Op: "make", Path: "/" + sofar, Err: err}
			}
			fd, err = unix.Openat2(t.fd, sofar, &how)
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: "/" + sofar, Err: err}
		}
		if !last {
			unix.Close(fd)
		}
		parent = sofar
	}
	return fd, nil
}

// make makes a directory or an empty file.
func (t *tree) make(parent, name string, file bool) error {
	how := inRoot
	how.Flags |= unix.O_DIRECTORY
	dir, err := unix.Openat2(t.fd, parent, &how)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if !file {
		return unix.Mkdirat(dir, name, 0o755)
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// endDir is where systemd's shutdown looks for what it runs last.
const endDir = "/run/initramfs"

// prepareEnd puts the program there that ends the machine, and opens the FIFO
// through which it speaks.
func (t *tree) prepareEnd(program string) (*os.File, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	dir, err := t.open(endDir, false) // on the /run that was just mounted
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, pid1.ShutdownProgram, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o700)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: pid1.ShutdownProgram, Err: err}
	}
	f := os.NewFile(uintptr(fd), pid1.ShutdownProgram)
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := unix.Mkfifoat(dir, pid1.EndFIFO, 0o600); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: pid1.EndFIFO, Err: err}
	}
	// For writing too, so that reading waits.
	if fd, err = unix.Openat(dir, pid1.EndFIFO, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, &os.PathError{Op: "open", Path: pid1.EndFIFO, Err: err}
	}
	return os.NewFile(uintptr(fd), pid1.EndFIFO), nil
}

// machineID is a file whose content tells installations apart: machine-id(5).
const machineID = "/etc/machine-id"

// changing are the files that follow the machine at each start. The others are
// the system's own once they have been written.
var changing = []string{"/etc/resolv.conf"}

// write puts into the root what depends on the workload, where no mount of the
// user's is above. Unlike a container's these files are no mounts: a system
// replaces them by renaming. One that follows the machine and cannot be changed
// any more, as the disk is full or the system has forbidden it, stays as it is, and
// notice is told.
func (t *tree) write(files map[string]string, upper string, s workload.Spec, notice func(string)) error {
	contents := map[string][]byte{}
	for target, source := range files {
		b, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		contents[target] = b
	}
	id := make([]byte, 16)
	rand.Read(id)
	contents[machineID] = []byte(hex.EncodeToString(id) + "\n")
	for target, b := range contents {
		if covered(target, s.Mounts) {
			continue
		}
		// What is in the writable layer was written by an earlier start, or by the
		// system since.
		_, err := os.Lstat(filepath.Join(upper, target))
		written := err == nil
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		switch {
		case err != nil:
		case target == hostsFile && written:
			err = t.updateHosts(b)
		case target == hostsFile:
			err = t.writeFile(target, markHosts(b))
		case !written || slices.Contains(changing, target):
			err = t.writeFile(target, b)
		}
		if written && fixed(err) {
			if notice != nil {
				notice(fmt.Sprintf("%s stays as it was at the last start: %v", target, err))
			}
			err = nil
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", target, err)
		}
	}
	return nil
}

// fixed tells whether an error means that a file cannot be changed.
func fixed(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// covered tells whether a mount hides a path.
func covered(target string, mounts []workload.Mount) bool {
	return slices.ContainsFunc(mounts, func(m workload.Mount) bool {
		at := path.Clean(m.Target)
		return target == at || strings.HasPrefix(target, at+"/")
	})
}

// writeFile writes a file, the old or the new one whatever happens where there is
// one. A link there is the image's wish for the content to come from elsewhere, such
// as from systemd-resolved, and stays.
func (t *tree) writeFile(target string, b []byte) error {
	dir, err := t.open(path.Dir(target), false)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, path.Base(target), &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		return replace(dir, path.Base(target), b, &st)
	}
	fd, err := unix.Openat(dir, path.Base(target), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), target)
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
