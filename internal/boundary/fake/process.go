package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Program is the only executable file in a fake workload, NotExecutable the
// only other one. The program's arguments are a command of the language of
// boundarytest/program, of which run understands a part.
const (
	Program       = "/bin/program"
	NotExecutable = "/etc/passwd"
)

// process is one process: a goroutine with files.
type process struct {
	in       *instance
	w        workload.Process
	stdin    io.ReadCloser
	out, err io.WriteCloser
	term     *terminal

	signals chan syscall.Signal
	killed  chan struct{} // closed with SIGKILL
	ended   chan struct{}

	mu     sync.Mutex
	exit   workload.Exit
	signal syscall.Signal // that ends it
}

func (in *instance) newProcess(w workload.Process, s boundary.Stdio) (*process, error) {
	// A shell that knows one program.
	if words := w.Args; len(words) == 3 && words[0] == "/bin/sh" && words[1] == "-c" && strings.HasPrefix(words[2], Program) {
		w.Args = strings.Fields(words[2])
	}
	p := &process{
		in: in, w: w,
		signals: make(chan syscall.Signal, 64), killed: make(chan struct{}), ended: make(chan struct{}),
	}
	if w.Terminal {
		p.term = newTerminal(w.Rows, w.Cols)
		p.stdin, p.out, p.err = p.term.inside(), p.term.inside(), p.term.inside()
		return p, nil
	}
	files := []*os.File{nil, nil, nil}
	for i, f := range []*os.File{s.In, s.Out, s.Err} {
		var err error
		if files[i], err = dup(f); err != nil {
			return nil, err
		}
	}
	p.stdin, p.out, p.err = files[0], files[1], files[2]
	return p, nil
}

// dup returns a descriptor of our own for f, as a process has. Closing it ends
// a Read in it.
func dup(f *os.File) (*os.File, error) {
	if f == nil {
		return os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("fcntl", errno)
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(fd, "stdio"), nil
}

func (p *process) close() {
	p.stdin.Close()
	p.out.Close()
	p.err.Close()
}

// find looks the command up.
func (p *process) find() error {
	switch cmd := append(p.w.Args, "")[0]; cmd {
	case Program:
		return nil
	case NotExecutable:
		return fmt.Errorf("execute %s: %w", cmd, workload.ErrNotExecutable)
	default:
		return fmt.Errorf("execute %s: %w", cmd, workload.ErrCommandNotFound)
	}
}

func (p *process) run() {
	go func() {
		select {
		case <-p.killed:
			p.stdin.Close() // ends a Read
			p.out.Close()
			p.err.Close()
		case <-p.ended:
		}
	}()
	code := p.command(p.w.Args[1:])
	p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exit = workload.Exit{Code: code, At: time.Now()}
	if p.signal != 0 {
		p.exit.Code, p.exit.Signal = 128+int(p.signal), int(p.signal)
	}
}

// die ends the process by a signal, as its default action does.
func (p *process) die(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signal == 0 {
		p.signal = sig
		close(p.killed)
	}
}

// deliver sends a signal. SIGKILL ends the process; the others are for the command,
// as the first process of a pid namespace has no default actions.
func (p *process) deliver(sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		p.die(sig)
		return
	}
	select {
	case p.signals <- sig:
	default:
	}
}

// Wait waits for the end.
func (p *process) Wait(ctx context.Context) (workload.Exit, error) {
	select {
	case <-p.ended:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.exit, nil
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
}

// Signal sends a signal.
func (p *process) Signal(_ context.Context, sig syscall.Signal) error {
	select {
	case <-p.ended:
		return workload.ErrNotRunning
	default:
		p.deliver(sig)
		return nil
	}
}

// Terminal returns nil or the terminal.
func (p *process) Terminal() boundary.Terminal {
	if p.term == nil {
		return nil
	}
	return p.term
}

// PID has no meaning here.
func (p *process) PID() int { return 0 }

// command interprets one command and returns its exit status.
func (p *process) command(args []string) int {
	args = append(args, "", "")
	switch cmd, arg := args[0], args[1]; cmd {
	case "exit":
		n, _ := strconv.Atoi(arg)
		return n
	case "echo":
		fmt.Fprintln(p.out, strings.TrimRight(strings.Join(args[1:], " "), " "))
	case "both":
		fmt.Fprint(p.out, "to stdout\n")
		fmt.Fprint(p.err, "to stderr\n")
	case "bytes":
		return p.bytes(arg)
	case "cat":
		io.Copy(p.out, p.stdin)
	case "env":
		fmt.Fprintln(p.out, strings.Join(p.w.Env, "\n"))
	case "pwd":
		fmt.Fprintln(p.out, p.w.Cwd)
	case "hostname":
		fmt.Fprintln(p.out, p.in.hostname)
	case "kill":
		sig, err := workload.ParseSignal(arg)
		if err != nil {
			return 2
		}
		p.die(sig)
	case "set", "unset", "isset":
		return p.flag(cmd, arg)
	case "pause":
		<-p.killed
	case "wait-signal":
		return p.waitSignal(args[1:])
	case "terminal":
		return p.watchSize()
	default:
		fmt.Fprintf(p.err, "the fake does not know %q\n", cmd)
		return 2
	}
	return 0
}

// flag is the fake's file system: names that are there or not.
func (p *process) flag(cmd, name string) int {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	switch cmd {
	case "isset":
		if !p.in.flags[name] {
			fmt.Fprintf(p.err, "no %s\n", name)
			return 1
		}
	default:
		if p.in.flags == nil {
			p.in.flags = map[string]bool{}
		}
		p.in.flags[name] = cmd == "set"
	}
	return 0
}

// bytes writes n bytes, each the last eight bits of its position, to standard output.
func (p *process) bytes(arg string) int {
	n, _ := strconv.Atoi(arg)
	buf := make([]byte, 1<<16)
	for i := range buf {
		buf[i] = byte(i)
	}
	for n > 0 {
		k := min(n, len(buf))
		if _, err := p.out.Write(buf[:k]); err != nil {
			return 1
		}
		n -= k
	}
	return 0
}

// waitSignal says ready, then names each signal that comes, and ends with the one that is
// args[0], with status 7; SIGKILL aside, all others are ignored.
func (p *process) waitSignal(args []string) int {
	last, err := workload.ParseSignal(args[0])
	if err != nil {
		return 2
	}
	fmt.Fprintln(p.out, "ready")
	for {
		select {
		case <-p.killed:
			return 0
		case sig := <-p.signals:
			fmt.Fprintf(p.out, "signal %d\n", int(sig))
			if sig == last {
				return 7
			}
		}
	}
}

// watchSize prints the terminal's size now and after each change; input ends it.
func (p *process) watchSize() int {
	if p.term == nil {
		fmt.Fprintln(p.err, "no terminal")
		return 1
	}
	end := make(chan struct{})
	go func() {
		p.stdin.Read(make([]byte, 1))
		close(end)
	}()
	for {
		rows, cols, changed := p.term.size()
		fmt.Fprintf(p.out, "%d %d\n", rows, cols)
		select {
		case <-changed:
		case <-end:
			return 0
		case <-p.killed:
			return 0
		}
	}
}

// terminal is two pipes and a size: it neither echoes nor edits.
type terminal struct {
	toUs, toThem     *io.PipeWriter
	fromUs, fromThem *io.PipeReader

	mu         sync.Mutex
	rows, cols uint16
	changed    chan struct{}
}

func newTerminal(rows, cols uint16) *terminal {
	t := &terminal{rows: rows, cols: cols, changed: make(chan struct{})}
	t.fromThem, t.toUs = io.Pipe()
	t.fromUs, t.toThem = io.Pipe()
	return t
}

func (t *terminal) Read(b []byte) (int, error) {
	n, err := t.fromThem.Read(b)
	if errors.Is(err, io.ErrClosedPipe) || err == io.EOF {
		err = syscall.EIO // as Linux says when nobody has the terminal open
	}
	return n, err
}

// Write drops what nobody reads any more, as a terminal does.
func (t *terminal) Write(b []byte) (int, error) {
	if _, err := t.toThem.Write(b); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return 0, err
	}
	return len(b), nil
}

func (t *terminal) Close() error {
	t.fromThem.Close()
	return t.toThem.Close()
}

func (t *terminal) Resize(rows, cols uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows, t.cols = rows, cols
	close(t.changed)
	t.changed = make(chan struct{})
	return nil
}

func (t *terminal) size() (rows, cols uint16, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rows, t.cols, t.changed
}

// inside returns the side that the process has.
func (t *terminal) inside() insideTerminal { return insideTerminal{t} }

type insideTerminal struct{ t *terminal }

// Read ends at the character that ends a terminal's input.
func (i insideTerminal) Read(b []byte) (int, error) {
	n, err := i.t.fromUs.Read(b)
	if k := strings.IndexByte(string(b[:n]), 4); k >= 0 {
		return k, io.EOF
	}
	return n, err
}
func (i insideTerminal) Write(b []byte) (int, error) { return i.t.toUs.Write(b) }
func (i insideTerminal) Close() error {
	i.t.fromUs.Close()
	return i.t.toUs.Close()
}
