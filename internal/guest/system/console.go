package system

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// console is the terminal that lies at the system's /dev/console. What its init
// and its journal write there is the workload's output. Nobody types.
type console struct {
	name   string   // such as /dev/pts/0
	master *os.File // ours
	slave  *os.File // kept open, so that reading does not end when nobody else has it
	out    *os.File // nil drops all
	done   chan struct{}
	once   sync.Once
}

// width is what programs that cut lines to the width of the console are told.
const width = 200

func newConsole(out *os.File) (_ *console, err error) {
	c := &console{done: make(chan struct{})}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	fd, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/pts/ptmx", Err: err}
	}
	c.master = os.NewFile(uintptr(fd), "console")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, os.NewSyscallError("ioctl TIOCSPTLCK", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, os.NewSyscallError("ioctl TIOCGPTN", err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: width}); err != nil {
		return nil, os.NewSyscallError("ioctl TIOCSWINSZ", err)
	}
	c.name = "/dev/pts/" + strconv.Itoa(n)
	if c.slave, err = os.OpenFile(c.name, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, err
	}
	if out != nil {
		// The caller closes its own when the system has begun.
		dup, err := unix.FcntlInt(out.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		c.out = os.NewFile(uintptr(dup), "output")
	}
	return c, nil
}

// copy passes on what is written to the console, until finish is called.
func (c *console) copy() {
	defer close(c.done)
	buf := make([]byte, 32<<10)
	var lines newlines
	for {
		n, err := c.master.Read(buf)
		if n > 0 && c.out != nil {
			if _, werr := c.out.Write(lines.plain(buf[:n])); werr != nil {
				c.out.Close() // nobody listens; the system must not wait for it
				c.out = nil
			}
		}
		if err != nil {
			return
		}
	}
}

// settled is how long the console may be silent after its last writer has ended.
const settled = 100 * time.Millisecond

// finish returns when all that was written has been passed on.
func (c *console) finish() {
	if c.master.SetReadDeadline(time.Now().Add(settled)) == nil {
		<-c.done
	}
	c.close()
}

func (c *console) close() {
	c.once.Do(func() {
		for _, f := range []*os.File{c.master, c.slave, c.out} {
			if f != nil {
				f.Close()
			}
		}
	})
}

// newlines turns a terminal's "\r\n" into "\n": systemd sets the modes of its
// console as those of a terminal that somebody sees.
type newlines struct{ held bool }

// plain returns b in its place or a copy. A carriage return at the end waits for
// what follows.
func (l *newlines) plain(b []byte) []byte {
	if l.held {
		b = append([]byte{'\r'}, b...)
		l.held = false
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		l.held, b = true, b[:n-1]
	}
	return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
}
