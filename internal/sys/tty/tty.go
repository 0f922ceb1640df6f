// Package tty sets the modes and sizes of terminals (termios(3),
// ioctl_tty(2)).
package tty

import (
	"os"

	"golang.org/x/sys/unix"
)

// Size is a terminal's size in character cells.
type Size struct{ Rows, Cols uint16 }

// Is reports whether f is a terminal.
func Is(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// MakeRaw hands every byte of f through unchanged and returns a function that
// restores what was before.
func MakeRaw(f *os.File) (restore func() error, err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, &os.PathError{Op: "read the terminal's modes", Path: f.Name(), Err: err}
	}
	raw := *old // as cfmakeraw(3), termios(3)
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, &os.PathError{Op: "make raw", Path: f.Name(), Err: err}
	}
	return func() error { return unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}

// KeepNewlines stops the terminal from writing "\r\n" for "\n" (ONLCR): the
// output of a program then arrives byte for byte when it is no terminal that
// reads the other side.
func KeepNewlines(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.ONLCR
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// GetSize returns the size of the terminal f.
func GetSize(f *os.File) (Size, error) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Size{}, &os.PathError{Op: "read the terminal's size", Path: f.Name(), Err: err}
	}
	return Size{Rows: ws.Row, Cols: ws.Col}, nil
}

// SetSize sets the size of the terminal f, seen from either side.
func SetSize(f *os.File, s Size) error {
	err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	if err != nil {
		return &os.PathError{Op: "set the terminal's size", Path: f.Name(), Err: err}
	}
	return nil
}
