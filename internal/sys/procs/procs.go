// Package procs reads about processes and interfaces from /proc, see proc(5).
// Names and arguments in it are chosen by the processes, who may be hostile:
// what is returned is bounded, printable and UTF-8.
package procs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MaxCommand is the length of the longest command that is returned, in bytes.
const MaxCommand = 2048

// maxStatus bounds what is read of proc_pid_status(5), in bytes. Before the IDs in it
// stand all supplementary groups, up to 65536 of up to 11 bytes (NGROUPS_MAX,
// setgroups(2)), which a process chooses.
const maxStatus = 1 << 20

// ticks is how many of the units of proc_pid_stat(5) a second has: USER_HZ,
// which is 100 on all architectures of ours.
const ticks = 100

// Process is one process as whoever reads it sees it.
type Process struct {
	// IDs are its process IDs, in the reader's namespace first and in its own
	// last.
	IDs     []int
	PPID    int // in the reader's namespace
	UID     uint32
	State   string
	Started time.Duration // after the boot
	CPU     time.Duration
	RSS     int64  // bytes
	TTY     string // "pts/0", "" without one
	Command string // in brackets where the process has no arguments
}

// Read reads about one process. The error wraps os.ErrNotExist when there is
// none.
func Read(pid int) (Process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	var p Process
	text, err := readFile(dir+"/stat", 4096)
	if err == nil {
		err = p.parseStat(text)
	}
	if err == nil {
		text, err = readFile(dir+"/status", maxStatus)
	}
	if err == nil {
		err = p.parseStatus(text)
	}
	if err == nil {
		text, err = readFile(dir+"/cmdline", MaxCommand)
	}
	if err != nil {
		return Process{}, fmt.Errorf("read about process %d: %w", pid, noent(err))
	}
	if words := bytes.TrimRight(text, "\x00"); len(words) > 0 {
		p.Command = printable(string(bytes.ReplaceAll(words, []byte{0}, []byte{' '})))
	}
	return p, nil
}

// noent makes the error of a process that has ended while it was read that of one
// that is not there.
func noent(err error) error {
	if strings.HasSuffix(err.Error(), "no such process") {
		return fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return err
}

func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

var errMalformed = errors.New("malformed")

// parseStat reads proc_pid_stat(5). The name, in parentheses, may hold anything.
func (p *Process) parseStat(b []byte) error {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return fmt.Errorf("stat: %w", errMalformed)
	}
	p.Command = "[" + printable(string(b[open+1:end])) + "]"
	f := strings.Fields(string(b[end+1:]))
	// f[0] is field 3 of the manual page.
	if len(f) < 22 {
		return fmt.Errorf("stat: %w", errMalformed)
	}
	n := make([]int64, len(f))
	for _, i := range []int{1, 4, 11, 12, 19, 21} {
		var err error
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return fmt.Errorf("stat: %w", errMalformed)
		}
	}
	p.State = printable(f[0][:1])
	p.PPID = int(n[1])
	p.TTY = terminal(n[4])
	p.CPU = fromTicks(n[11]) + fromTicks(n[12])
	p.Started = fromTicks(n[19])
	p.RSS = max(0, n[21]) * int64(os.Getpagesize())
	return nil
}

// fromTicks turns ticks into a duration, as far as one reaches.
func fromTicks(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second/ticks)
	return time.Duration(min(max(n, 0), most)) * (time.Second / ticks)
}

// terminal names a controlling terminal by its device number.
func terminal(dev int64) string {
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	switch {
	case dev == 0:
		return ""
	case major >= 136 && major <= 143: // UNIX98_PTY_SLAVE_MAJOR
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major == 5 && minor == 1:
		return "console"
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// parseStatus reads proc_pid_status(5).
func (p *Process) parseStatus(b []byte) error {
	uid := false
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		switch name {
		case "Uid": // real, effective, …: ps shows the effective one
			if len(f) < 2 {
				return fmt.Errorf("status: %w", errMalformed)
			}
			n, err := strconv.ParseUint(f[1], 10, 32)
			if err != nil {
				return fmt.Errorf("status: %w", errMalformed)
			}
			p.UID, uid = uint32(n), true
		case "NSpid":
			for _, s := range f {
				n, err := strconv.Atoi(s)
				if err != nil || len(p.IDs) >= 64 {
					return fmt.Errorf("status: %w", errMalformed)
				}
				p.IDs = append(p.IDs, n)
			}
		}
	}
	if !uid || len(p.IDs) == 0 {
		return fmt.Errorf("status: %w", errMalformed)
	}
	return nil
}

// printable replaces what does not belong on a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Boot returns when the machine was booted, as far as Started of a Process is
// after it.
func Boot() (time.Time, error) {
	b, err := readFile("/proc/uptime", 128)
	if err != nil {
		return time.Time{}, err
	}
	text, _, _ := strings.Cut(string(b), " ")
	up, err := time.ParseDuration(text + "s")
	if err != nil {
		return time.Time{}, fmt.Errorf("uptime: %w", errMalformed)
	}
	return time.Now().Add(-up), nil
}

// Traffic returns the bytes that all interfaces but loopback of a process's
// network namespace have received and sent.
func Traffic(pid int) (received, sent int64, err error) {
	b, err := readFile("/proc/"+strconv.Itoa(pid)+"/net/dev", 1<<20)
	if err != nil {
		return 0, 0, fmt.Errorf("read about the network of process %d: %w", pid, noent(err))
	}
	received, sent = parseDev(b)
	return received, sent, nil
}

// parseDev reads proc_pid_net(5), dev. Lines that do not look as they should
// count nothing.
func parseDev(b []byte) (received, sent int64) {
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		in, err1 := strconv.ParseInt(f[0], 10, 64)
		out, err2 := strconv.ParseInt(f[8], 10, 64)
		if err1 == nil && err2 == nil && in >= 0 && out >= 0 {
			received, sent = add(received, in), add(sent, out)
		}
	}
	return received, sent
}

// add adds without going beyond what an int64 holds.
func add(a, b int64) int64 {
	if a > 1<<63-1-b {
		return 1<<63 - 1
	}
	return a + b
}
