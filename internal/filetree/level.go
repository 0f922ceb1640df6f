package filetree

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// level is a directory that is being unpacked in. The stack of them is the path
// of the last entry, so that a whole tree takes one step for each entry and
// one descriptor for each level.
type level struct {
	name  string
	fd    int
	attrs *attributes // to be given to it when it is left; nil for none
}

// enter brings the stack to a directory, makes what is missing on the way, and
// returns its descriptor.
func (u *unpacker) enter(comps []string) (int, error) {
	same := 0
	for same < len(comps) && same+1 < len(u.stack) && u.stack[same+1].name == comps[same] {
		same++
	}
	if err := u.leave(same); err != nil {
		return -1, err
	}
	for n := same; n < len(comps); n++ {
		if err := u.descend(comps[:n+1]); err != nil {
			return -1, err
		}
	}
	return u.top(), nil
}

func (u *unpacker) top() int { return u.stack[len(u.stack)-1].fd }

// descend opens the last of comps in the innermost directory.
func (u *unpacker) descend(comps []string) error {
	name := comps[len(comps)-1]
	fd, err := at.OpenDir(u.top(), name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := at.Mkdir(u.top(), name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		fd, err = at.OpenDir(u.top(), name)
	}
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
		fd, err = u.followed(comps)
	}
	if err != nil {
		return err
	}
	u.stack = append(u.stack, level{name: name, fd: fd})
	return nil
}

// followed opens a directory that a link in the path leads to.
func (u *unpacker) followed(comps []string) (int, error) {
	look, err := u.beneath(comps)
	if err != nil {
		return -1, err
	}
	defer at.Close(look)
	return at.OpenDir(look, ".")
}

// beneath looks up a directory from the first one on, for looking only. Links
// are followed as far as they stay below it. On a host they are not: the archive
// may have brought them, and the first directory may hold more than what was
// asked for, so that a link leads from one to the other without leaving it.
func (u *unpacker) beneath(comps []string) (fd int, err error) {
	name := strings.Join(comps, "/")
	if name == "" {
		name = "."
	}
	switch {
	case u.o.Host:
		fd, err = at.OpenDirBelow(u.dest, name)
		if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
			return -1, fmt.Errorf("%w: a name below %s, which is no directory", ErrMalformed, shown(name))
		}
	case u.o.Whole:
		fd, err = at.InRoot(u.dest, name+"/", true)
	default:
		fd, err = at.Beneath(u.dest, name)
	}
	if errors.Is(err, syscall.EXDEV) {
		return -1, fmt.Errorf("the link at %s leads out of the directory", shown(name))
	}
	return fd, err
}

// leave closes all but the first n+1 directories of the stack, and gives those
// that were made their attributes: what is made in a directory changes its time.
func (u *unpacker) leave(n int) (err error) {
	for len(u.stack) > n+1 {
		l := u.stack[len(u.stack)-1]
		u.stack = u.stack[:len(u.stack)-1]
		if l.attrs != nil && err == nil {
			if err = u.applyOpen(l.fd, l.attrs); err == nil {
				err = at.Ftimes(l.fd, times(l.attrs.hdr), times(l.attrs.hdr))
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", shown(l.attrs.hdr.Name), err)
			}
		}
		at.Close(l.fd)
	}
	return err
}

// close lets go of every directory.
func (u *unpacker) close() {
	for _, l := range u.stack {
		at.Close(l.fd)
	}
	u.stack = nil
}

// directory makes the directory of an entry and enters it.
func (u *unpacker) directory(parent int, name string, a *attributes) error {
	err := at.Mkdir(parent, name, 0o700)
	made := err == nil
	for n := 0; errors.Is(err, fs.ErrExist) && n < races; n++ {
		var st at.Stat
		if st, err = at.Lstat(parent, name); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = at.Mkdir(parent, name, 0o700)
				made = err == nil
			}
			continue
		}
		if at.IsDir(st) {
			break
		}
		if u.o.NoOverwriteDir {
			return errors.New("cannot overwrite something else with a directory")
		}
		if err = at.Remove(parent, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			err = at.Mkdir(parent, name, 0o700)
			made = err == nil
		}
	}
	if err != nil {
		return err
	}
	fd, err := at.OpenDir(parent, name)
	if err != nil {
		return err
	}
	if !made && !u.o.Owners {
		a = nil
	}
	u.stack = append(u.stack, level{name, fd, a})
	return nil
}
