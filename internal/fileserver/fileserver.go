// Package fileserver shows a directory or file of the host to a virtual
// machine, as a bind mount shows it to a container.
//
//	guest:  workload ─▶ kernel ─▶ /dev/fuse ─▶ package guest/volume ─┐
//	                                                   byte stream   │
//	host:   volume ◀─ bulkhead-fileserver (package serve) ◀──────────┘
//
// The guest is hostile, and what it sends is parsed by one helper process for
// each volume, which package launch confines: its root directory is the volume
// and nothing else, mounted nosuid, nodev, noexec and nosymfollow; it is in
// namespaces of its own, of users too, so that its four capabilities count for
// the volume's files only; it holds no descriptor but the stream and a pipe to
// say why it ends; it can make no system call but those of an allow-list. The
// kernel's view of that is what plan prints.
package fileserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// Config says what a Server shows to a guest.
type Config struct {
	// Program is the path of bulkhead-fileserver, a static binary.
	Program string
	// Source is the directory or regular file on the host. Symbolic links in it
	// are followed now, and never again.
	Source string
	// ReadOnly refuses every change, on the host.
	ReadOnly bool
	// Recursive shows what is mounted below Source too.
	Recursive bool
	// IDBase is the user ID, in the guest's initial user namespace, of the
	// workload's root. Host IDs u below IDCount are IDBase+u in the guest.
	// Others own files that nobody in the guest can be given.
	IDBase, IDCount uint32
	// Cgroups are directories of cgroups that exist, one for each hierarchy,
	// v1 or v2. The helper is in them before it runs any code of its own.
	Cgroups []string
}

// Server is one volume, served by a confined helper process.
type Server struct {
	conn    *os.File
	file    bool
	running *launch.Running
	pidfd   int // -1 once it is closed
	said    *tail
	drained chan struct{} // all is read that the helper says
	stop    func() bool

	mu     sync.Mutex
	closed bool
}

// Start starts the helper. It runs until Close, until the stream ends, or
// until ctx ends.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	fail := func(err error) (*Server, error) {
		return nil, fmt.Errorf("start the file server of %s: %w", cfg.Source, err)
	}
	if cfg.IDCount == 0 || uint64(cfg.IDBase)+uint64(cfg.IDCount) > 1<<32-1 {
		return fail(fmt.Errorf("IDs %d to %d are no range of IDs", cfg.IDBase, uint64(cfg.IDBase)+uint64(cfg.IDCount)))
	}
	var open []int // until the launch program owns them
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	var fds descriptors
	if fds.source, err = unix.Open(cfg.Source, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return fail(&os.PathError{Op: "open", Path: cfg.Source, Err: err})
	}
	open = append(open, fds.source)
	var st unix.Stat_t
	if err := unix.Fstat(fds.source, &st); err != nil {
		return fail(os.NewSyscallError("fstat", err))
	}
	file := st.Mode&unix.S_IFMT == unix.S_IFREG
	if !file && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fail(errors.New("a volume of a virtual machine is a directory or a regular file, and this is neither"))
	}
	if fds.program, err = unix.Open(cfg.Program, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return fail(&os.PathError{Op: "open", Path: cfg.Program, Err: err})
	}
	open = append(open, fds.program)
	for _, dir := range cfg.Cgroups {
		fd, err := openTasks(dir)
		if err != nil {
			return fail(err)
		}
		open, fds.tasks = append(open, fd), append(fds.tasks, fd)
	}
	conn, said, err := fds.connect()
	if err != nil {
		return fail(err)
	}
	open = append(open, fds.statusRead, fds.statusWrite, fds.goRead, fds.goWrite, fds.stream, fds.errors)
	last, err := lastCapability()
	bpf, filterErr := filter()
	var p *planned
	var running *launch.Running
	if err = errors.Join(err, filterErr); err == nil {
		open = nil // the program's
		if p, err = plan(cfg, file, fds, last, bpf); err != nil {
			p.Close()
		} else {
			running, err = p.Run(ctx, launch.Options{Child: p.first})
		}
	}
	if err != nil {
		conn.Close()
		said.Close()
		return fail(err)
	}
	s := &Server{conn: conn, file: file, running: running, pidfd: running.Value(p.pidfd), said: &tail{}, drained: make(chan struct{})}
	go func() {
		defer close(s.drained)
		defer said.Close()
		io.Copy(s.said, said) //nolint:errcheck // the end of the pipe is the end
	}()
	s.stop = context.AfterFunc(ctx, func() { s.Close() })
	return s, nil
}

// Explain prints the system calls by which a helper for cfg is started and
// confined, without performing them.
func Explain(w io.Writer, cfg Config) error {
	st, err := os.Stat(cfg.Source)
	if err != nil {
		return err
	}
	last, err := lastCapability()
	if err != nil {
		return err
	}
	bpf, err := filter()
	if err != nil {
		return err
	}
	none := descriptors{-1, -1, -1, -1, -1, -1, -1, -1, nil}
	for range cfg.Cgroups {
		none.tasks = append(none.tasks, -1)
	}
	p, err := plan(cfg, st.Mode().IsRegular(), none, last, bpf)
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = p.WriteTo(w)
	return err
}

// connect makes the pipes and the stream; the host's ends of the stream and of
// the helper's complaints are returned.
func (fds *descriptors) connect() (conn, said *os.File, err error) {
	var pipes [3][2]int
	for i := range pipes {
		if err := unix.Pipe2(pipes[i][:], unix.O_CLOEXEC); err != nil {
			for _, p := range pipes[:i] {
				unix.Close(p[0])
				unix.Close(p[1])
			}
			return nil, nil, os.NewSyscallError("pipe2", err)
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		// Only ours: the helper waits in read(2).
		if err = unix.SetNonblock(pair[0], true); err != nil {
			unix.Close(pair[0])
			unix.Close(pair[1])
		}
	}
	if err != nil {
		for _, p := range pipes {
			unix.Close(p[0])
			unix.Close(p[1])
		}
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	fds.statusRead, fds.statusWrite = pipes[0][0], pipes[0][1]
	fds.goRead, fds.goWrite = pipes[1][0], pipes[1][1]
	fds.errors, fds.stream = pipes[2][1], pair[1]
	return os.NewFile(uintptr(pair[0]), "file server"), os.NewFile(uintptr(pipes[2][0]), "file server's errors"), nil
}

func lastCapability() (int, error) {
	const name = "/proc/sys/kernel/cap_last_cap"
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("%s holds %.20q", name, b)
	}
	return n, nil
}

// Conn is the stream of FUSE messages: requests are written to it, replies
// read from it. There is one; closing it ends the helper.
func (s *Server) Conn() io.ReadWriteCloser { return s.conn }

// File says that the source is a regular file: the guest mounts it on a file.
func (s *Server) File() bool { return s.file }

// Pid is the helper's process ID.
func (s *Server) Pid() int { return s.running.Pid() }

// Close ends the helper and waits until it is gone. What it has answered is
// with the host's file system; what it works on may be left undone.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.conn.Close()
	if s.pidfd >= 0 {
		unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0) //nolint:errcheck // it may be gone already
		unix.Close(s.pidfd)
		s.pidfd = -1
	}
	s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	<-s.drained
	_, err := s.running.Wait()
	return err
}

// Wait waits until the helper is gone. It returns nil after Close and after an
// orderly end of the stream, otherwise what the helper said last.
func (s *Server) Wait() error {
	status, err := s.running.Wait()
	<-s.drained
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("wait for the file server: %w", err)
	case s.closed || status.Exited() && status.ExitStatus() == 0:
		return nil
	case status.Signaled():
		return fmt.Errorf("the file server was killed by signal %d: %s", status.Signal(), s.said)
	}
	return fmt.Errorf("the file server ended with status %d: %s", status.ExitStatus(), s.said)
}

// tail keeps the end of what the helper says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const mostSaid = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b[max(0, len(b)-mostSaid):]...)
	if extra := len(t.b) - mostSaid; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.b) == 0 {
		return "it gave no reason"
	}
	return fmt.Sprintf("%q", bytes.TrimSpace(t.b))
}
