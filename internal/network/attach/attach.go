package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Config says which program makes networks, and where.
type Config struct {
	// Program is the path of bulkhead-network, DNSProgram that of bulkhead-dns,
	// which may be "".
	Program    string `json:"program"`
	DNSProgram string `json:"dnsProgram,omitempty"`
	// Root and Run are the state directory and the run-time directory.
	Root string `json:"root"`
	Run  string `json:"run"`
	// CgroupParent is the cgroup below which name servers are; see package bridge.
	CgroupParent string `json:"cgroupParent,omitempty"`
	// Lock is held by the program as long as it runs, nil for none: whoever finds
	// it free after the supervisor was killed knows that nothing is made any more.
	Lock *os.File `json:"-"`
}

// Attachment is a workload's place in its networks.
type Attachment struct {
	network.Prepared
	// Taps are the tap devices, in the order of NICs, where they were asked for;
	// Reserved are bound sockets, to be kept open while the workload runs. Both are
	// the caller's to close.
	Taps, Reserved []*os.File

	id    workload.ID
	p     *program
	spare *time.Timer // ends the program when it fires; nil before Enter
}

// Start starts the program, which prepares what r asks for. With r.Join the Taps
// are those of what is new. Errors wrap those of
// package network. The program runs until a moment after Enter, until Close, or, before
// Enter has returned, until ctx ends.
func Start(ctx context.Context, c Config, r network.Request) (*Attachment, error) {
	p, err := c.start(ctx)
	if err != nil {
		return nil, err
	}
	a, err := p.request(ctx, r, nil)
	if err != nil {
		p.end()
	}
	return a, err
}

// request sends a request and returns what came of it.
func (p *program) request(ctx context.Context, r network.Request, files []*os.File) (*Attachment, error) {
	m, taps, got, err := p.ask(ctx, Message{Request: &r}, files)
	if err == nil && m.Prepared == nil {
		err = errors.New("bulkhead-network did not say what it prepared")
	}
	if err != nil {
		for _, f := range append(taps, got...) {
			f.Close()
		}
		return nil, err
	}
	return &Attachment{Prepared: *m.Prepared, Taps: taps, Reserved: got, id: r.ID, p: p}, nil
}

// Part takes a workload that runs out of the network r.Part, through the program.
// What it has then is Prepared, and Reserved what its ports need beside what was
// reserved before. netns is its network namespace, nil where it has taps. It may be
// called again, and after any crash.
func Part(ctx context.Context, c Config, r network.Request, netns *os.File) (*Attachment, error) {
	p, err := c.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.end()
	var files []*os.File
	if netns != nil {
		files = append(files, netns)
	}
	return p.request(ctx, r, files)
}

// Enter has the interfaces made in the workload's network namespace, which is nil
// with taps: then it waits until everything works. It is called once.
func (a *Attachment) Enter(ctx context.Context, netns *os.File) error {
	var files []*os.File
	if netns != nil {
		files = []*os.File{netns}
	}
	m, _, _, err := a.p.ask(ctx, Message{}, files)
	if err == nil && !m.Done {
		err = errors.New("bulkhead-network did not finish")
	}
	if err == nil {
		a.p.unbind()
		a.spare = time.AfterFunc(spare, a.p.leave)
	}
	return err
}

// spare is how long the program stays after Enter: a workload that ends at once is
// taken out of its networks by the one that took it in.
const spare = 250 * time.Millisecond

// Release is the function Release for this workload, by the program that is still
// there, if it is. c is that of Start.
func (a *Attachment) Release(ctx context.Context, c Config) error {
	if a.spare != nil && a.spare.Stop() {
		defer a.p.leave()
		if err := a.p.release(ctx, a.id); !errors.Is(err, errNoAnswer) {
			return err
		}
	}
	return Release(ctx, c, a.id)
}

// Close ends the program if it still runs. Before Enter it waits for that, as the
// program may be making something. The workload stays attached, Taps and Reserved
// stay open.
func (a *Attachment) Close() error {
	if a.spare != nil {
		a.p.leave()
	} else {
		a.p.end()
	}
	return nil
}

// Release takes back, through the program, all that a workload has in networks. It
// may be called again, and after any crash. The program may run on for a moment, to
// see name servers end that nobody needs any more.
func Release(ctx context.Context, c Config, id workload.ID) error {
	p, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer p.leave()
	return p.release(ctx, id)
}

// Last is a descriptor that the program starts with and closes: its table has room
// for as many from the beginning. Where there are threads, the kernel makes room
// only after all processors have let go of the old table (expand_fdtable in
// fs/file.c), which takes 10 ms, and starting a name server takes seventy.
const Last = 127

// program is bulkhead-network, running.
type program struct {
	cmd    *exec.Cmd
	conn   *os.File
	stderr *tail
	unbind func() bool // from the end of the context that it was started with
	once   sync.Once
	ended  chan struct{}
	begun  time.Duration // when it was executed, on the clock of package trace
}

func (c Config) start(ctx context.Context) (*program, error) {
	defer trace.Step(ctx, "bulkhead-network executed").End()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	conn, theirs := os.NewFile(uintptr(fds[0]), "socket of bulkhead-network"), os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	p := &program{conn: conn, stderr: &tail{}, ended: make(chan struct{}), begun: trace.Now()}
	p.cmd = exec.Command(c.Program, "--root", c.Root, "--run", c.Run, "--dns", c.DNSProgram, "--cgroup-parent", c.CgroupParent)
	p.cmd.ExtraFiles = make([]*os.File, Last-2)
	p.cmd.ExtraFiles[0], p.cmd.ExtraFiles[1] = theirs, c.Lock // its descriptors 3 and 4
	p.cmd.ExtraFiles[Last-3] = theirs
	p.cmd.Stderr = p.stderr
	p.cmd.Dir = "/"
	p.cmd.Env = shortLived(os.Environ())
	// A name server that it starts must not keep Wait waiting.
	p.cmd.WaitDelay = waitDelay
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start bulkhead-network: %w", err)
	}
	p.unbind = context.AfterFunc(ctx, func() { p.cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	go func() {                                                        // at once: it may end before it is told to
		defer close(p.ended)
		defer p.unbind()
		p.cmd.Wait() //nolint:errcheck // what counted was its answer
	}()
	return p, nil
}

// shortLived is an environment without garbage collection, as long as the program
// stays small: it ends before that pays. A supervisor's own makes it collect often.
func shortLived(env []string) []string {
	env = slices.DeleteFunc(env, func(v string) bool {
		return strings.HasPrefix(v, "GOGC=") || strings.HasPrefix(v, "GOMEMLIMIT=")
	})
	return append(env, "GOGC=off", "GOMEMLIMIT=64MiB")
}

func (p *program) release(ctx context.Context, id workload.ID) error {
	m, _, _, err := p.ask(ctx, Message{Release: id}, nil)
	if err == nil && !m.Done {
		err = errors.New("bulkhead-network did not finish")
	}
	return err
}

var errNoAnswer = errors.New("bulkhead-network ended without an answer")

// ask sends a message and waits for the answer, which is an error if it says so; it
// wraps errNoAnswer if there is none.
func (p *program) ask(ctx context.Context, m Message, files []*os.File) (Message, []*os.File, []*os.File, error) {
	var taps, got []*os.File
	m.Trace = trace.From(ctx) != nil
	err := Send(p.conn, m, nil, files)
	if err == nil {
		m, taps, got, err = Receive(p.conn)
		for i := range m.Phases {
			// When a program was executed it can only estimate (trace.Born).
			f := &m.Phases[i]
			f.Begin = max(f.Begin, p.begun)
		}
		trace.Merge(ctx, m.Phases)
	}
	switch {
	case err == nil && m.Error != nil:
		err = m.Error.Err()
	case err != nil && ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		p.end() // it said why, perhaps
		err = fmt.Errorf("%w: %w%s", errNoAnswer, cause(err), p.stderr.quote())
	}
	return m, taps, got, err
}

func cause(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) {
		return errors.New("its end of the socket is closed")
	}
	return err
}

// end ends the conversation, and returns when the program has ended.
func (p *program) end() {
	p.leave()
	<-p.ended
}

// leave ends the conversation, which is the program's end too, in its own time.
func (p *program) leave() {
	p.once.Do(func() { p.conn.Close() })
}

// tail keeps the beginning of what a program complains about.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const maxTail = 2048 // bytes

// waitDelay is how long whoever inherited the program's standard error may keep it.
const waitDelay = 100 * time.Millisecond

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(b[:min(len(b), maxTail-t.b.Len())])
	return len(b), nil
}

func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(t.b.String()); s != "" {
		return ": " + s
	}
	return ""
}
