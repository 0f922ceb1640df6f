package container

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// planTerminal makes the container's own devpts and a terminal in it, before
// the fork, so that the first process inherits the terminal's descriptor and
// nothing is opened by a path inside (CVE-2025-52565).
func (p *planner) planTerminal() error {
	c := &p.proc
	if !c.spec.Terminal {
		return nil
	}
	var pts *plannedMount
	for _, m := range p.mounts {
		if m.spec.Type == "devpts" && !m.bind {
			pts = m
		}
	}
	if pts == nil {
		return errors.New("a terminal needs a devpts mount in the container")
	}
	if err := p.planDetached(pts); err != nil {
		return err
	}
	g := p.prog
	uid, err := p.ids.uid(c.uid)
	if err != nil {
		return err
	}
	p.terminal, p.slave = g.Slot("terminal"), g.Slot("tty")
	g.Keep(p.terminal)
	g.Do(launch.Host, launch.Openat, "a new terminal", launch.Use(pts.slot), launch.Str("ptmx"),
		launch.Flag(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, "O_RDWR|O_NOCTTY|O_CLOEXEC"), launch.Int(0)).ToFD(p.terminal)
	g.Do(launch.Host, launch.Ioctl, "", launch.Use(p.terminal), launch.Flag(unix.TIOCSPTLCK, "TIOCSPTLCK"), launch.Buf(make([]byte, 4), "&0"))
	g.Do(launch.Host, launch.Ioctl, "the side for the container", launch.Use(p.terminal), launch.Flag(unix.TIOCGPTPEER, "TIOCGPTPEER"),
		launch.Flag(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, "O_RDWR|O_NOCTTY|O_CLOEXEC")).ToFD(p.slave)
	if uid != 0 {
		g.Do(launch.Host, launch.Fchown, "", launch.Use(p.slave), launch.Int(int(uid)), launch.Flag(1<<32-1, "-1"))
	}
	if s := c.spec.ConsoleSize; s != nil && (s.Height > 0 || s.Width > 0) {
		g.Do(launch.Host, launch.Ioctl, "", launch.Use(p.terminal), launch.Flag(unix.TIOCSWINSZ, "TIOCSWINSZ"), winsize(s.Height, s.Width))
	}
	c.terminal = p.slave
	return nil
}

func winsize(rows, cols uint) launch.Arg {
	b := make([]byte, 8) // struct winsize
	binary.NativeEndian.PutUint16(b, uint16(rows))
	binary.NativeEndian.PutUint16(b[2:], uint16(cols))
	return launch.Buf(b, "{"+itoa(int(rows))+", "+itoa(int(cols))+"}")
}
