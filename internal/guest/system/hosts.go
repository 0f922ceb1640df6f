package system

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// hostsFile is the system's own from its first start on, but for the lines with
// the addresses that this start has: they lie between two marks. See hosts(5).
const hostsFile = "/etc/hosts"

const (
	hostsBegin = "# The lines up to the next mark are written anew at each start of the machine.\n"
	hostsEnd   = "# From here on the file is the system's own.\n"
)

// maxHosts is the size in bytes from which on a file is left alone.
const maxHosts = 1 << 20

// markHosts is the file at the first start.
func markHosts(lines []byte) []byte {
	if len(lines) > 0 && lines[len(lines)-1] != '\n' {
		lines = append(bytes.Clone(lines), '\n')
	}
	return bytes.Join([][]byte{[]byte(hostsBegin), lines, []byte(hostsEnd)}, nil)
}

// mergeHosts puts lines between the marks of old. It reports false where the
// system has removed the marks, and so wants to be left alone.
func mergeHosts(old, lines []byte) ([]byte, bool) {
	before, rest, ok := cutLine(old, hostsBegin)
	if !ok {
		return nil, false
	}
	_, after, ok := cutLine(rest, hostsEnd)
	if !ok {
		return nil, false
	}
	return bytes.Join([][]byte{before, markHosts(lines), after}, nil), true
}

// cutLine is bytes.Cut at a whole line.
func cutLine(text []byte, line string) (before, after []byte, found bool) {
	for at := 0; ; {
		n := bytes.Index(text[at:], []byte(line))
		if n < 0 {
			return nil, nil, false
		}
		at += n
		if at == 0 || text[at-1] == '\n' {
			return text[:at], text[at+len(line):], true
		}
		at++
	}
}

// updateHosts puts other lines between the marks of the system's file. It keeps
// the file's owner and mode, and is whole: a power cut leaves the old or the new
// one. Anything that is no plain file stays as it is.
func (t *tree) updateHosts(lines []byte) error {
	dir, err := t.open(path.Dir(hostsFile), false)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, path.Base(hostsFile), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ELOOP || err == unix.ENXIO {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: hostsFile, Err: err}
	}
	f := os.NewFile(uintptr(fd), hostsFile)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: hostsFile, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxHosts {
		return nil
	}
	old, err := io.ReadAll(io.LimitReader(f, maxHosts))
	if err != nil {
		return err
	}
	text, ok := mergeHosts(old, lines)
	if !ok || bytes.Equal(text, old) {
		return nil
	}
	return replace(dir, path.Base(hostsFile), text, &st)
}

// replace gives a file another content, and nothing else of it.
func replace(dir int, name string, text []byte, st *unix.Stat_t) error {
	tmp := fmt.Sprintf(".%s.new", name)
	if err := unix.Unlinkat(dir, tmp, 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: tmp, Err: err}
	}
	fd, err := unix.Openat(dir, tmp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: tmp, Err: err}
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(text)
	if err == nil {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = unix.Fchmod(fd, st.Mode&0o7777) // after the owner, which takes bits away
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat(dir, tmp, dir, name)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(dir, tmp, 0))
	}
	return nil
}
