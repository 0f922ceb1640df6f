package supervisor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// requestTimeout is how long a new connection may take to say what it wants.
const requestTimeout = 10 * time.Second

// accept serves connections until the listener is closed.
func (s *supervisor) accept(l *wire.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.sessions.Go(func() { s.serve(conn) })
	}
}

// serve answers one connection's request.
func (s *supervisor) serve(conn *os.File) {
	r := wire.NewReader(conn)
	c := newClient(conn)
	defer s.idle.Reset(settled)
	defer c.finish(linger)
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	var req wire.Request
	if err := r.Message(wire.TypeRequest, &req); err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	if req.Version != wire.Version {
		// SIGTERM stops the workload as the command "stop" does.
		err := fmt.Errorf("%w: the supervisor speaks protocol version %d, the command %d; to stop the workload send SIGTERM to process %d",
			workload.ErrUnsupported, wire.Version, req.Version, os.Getpid())
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	switch req.Op {
	case wire.OpReadFiles, wire.OpWriteFiles, wire.OpStatPath, wire.OpChanges:
		s.serveFiles(conn, r, c, &req)
		return
	}
	if s.held != nil {
		c.reply(wire.Reply{Error: wire.NewError(workload.ErrNotRunning)})
		return
	}
	switch req.Op {
	case wire.OpAttach:
		s.serveAttach(r, c, &req)
	case wire.OpExec:
		s.serveExec(r, c, &req)
	case wire.OpWait:
		s.serveWait(r, c, &req)
	case wire.OpDial, wire.OpInsert, wire.OpPlug:
		s.serveHost(conn, c, &req)
	default:
		reply, err := s.answer(&req)
		reply.Error = wire.NewError(err)
		c.reply(reply)
	}
}

// answer performs the operations that end with their reply.
func (s *supervisor) answer(req *wire.Request) (reply wire.Reply, err error) {
	switch req.Op {
	case wire.OpSignal:
		err = s.command(req.Signal)
	case wire.OpStop:
		err = s.stop(req.Timeout, req.Signal)
	case wire.OpRestart:
		err = s.revive(req.Timeout, req.Signal)
	case wire.OpPause:
		err = s.pause(workload.Paused)
	case wire.OpResume:
		err = s.pause(workload.Running)
	case wire.OpStatus:
		reply.State = s.snapshot()
	case wire.OpProcesses:
		reply.Processes, err = s.processes()
	case wire.OpDescribe:
		reply.Described, err = s.describe()
	case wire.OpMeasure:
		reply.Usage, err = s.measure()
	case wire.OpUpdate:
		err = s.update(req.Update)
	case wire.OpRename:
		err = s.rename(req.Name)
	case wire.OpConnect:
		reply.Warnings, err = s.connect(req.Network)
	case wire.OpDisconnect:
		err = s.disconnect(req.Network)
	default:
		err = fmt.Errorf("%w: operation %q", workload.ErrUnsupported, req.Op)
	}
	return reply, err
}

// processes lists the processes of the life that runs.
func (s *supervisor) processes() ([]int, error) {
	l, err := ability[boundary.Lister](s, "list processes")
	if err != nil {
		return nil, err
	}
	return l.Processes(context.Background())
}

func (s *supervisor) serveStart(l *life, r *wire.Reader, c *client, req *wire.Request) {
	defer c.finish(linger)
	if !req.Streams {
		return
	}
	s.session(r, c, l.io, s.command, l.ended)
}

func (s *supervisor) serveAttach(r *wire.Reader, c *client, req *wire.Request) {
	l, err := s.running()
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	c.reply(wire.Reply{
		PID: l.inst.PID(), State: s.snapshot(),
		Terminal: l.io.Terminal() != nil, Stdin: l.io.hasInput(),
	})
	l.io.add(c)
	l.io.resize(req.Rows, req.Cols)
	s.session(r, c, l.io, s.command, l.ended)
}

func (s *supervisor) serveExec(r *wire.Reader, c *client, req *wire.Request) {
	if req.Exec == nil {
		c.reply(wire.Reply{Error: &wire.Error{Message: "exec without a process"}})
		return
	}
	id, command := workload.NewID().Short(), strings.Join(req.Exec.Process.Args, " ")
	s.happened("exec_create: "+command, "execID", id)
	io, proc, err := s.exec(req.Exec)
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	s.happened("exec_start: "+command, "execID", id)
	c.foreground = true // before anything else writes to it
	c.reply(wire.Reply{PID: proc.PID(), Terminal: io.Terminal() != nil, Stdin: io.hasInput()})
	ended := make(chan struct{})
	if req.Streams {
		io.add(c)
	}
	io.pump(nil)
	s.sessions.Go(func() {
		defer close(ended)
		exit, err := proc.Wait(context.Background())
		if err != nil {
			exit = workload.Exit{Code: 255, Error: err.Error(), At: time.Now()}
		}
		s.happened("exec_die", "execID", id, "exitCode", strconv.Itoa(exit.Code))
		io.drain()
		io.end(exit)
	})
	if req.Streams {
		signal := func(sig syscall.Signal) error { return proc.Signal(context.Background(), sig) }
		s.session(r, c, io, signal, ended)
	}
}

// exec runs another process.
func (s *supervisor) exec(e *wire.Exec) (*streams, boundary.Process, error) {
	l, err := s.running()
	if err != nil {
		return nil, nil, err
	}
	if paused, _ := s.paused(); paused {
		return nil, nil, fmt.Errorf("%w: it is paused", workload.ErrNotRunning)
	}
	io, err := newStreams(e.Process.Terminal, e.Stdin)
	if err != nil {
		return nil, nil, err
	}
	proc, err := l.inst.Exec(context.Background(), e.Process, io.Theirs())
	if err != nil {
		io.Close()
		return nil, nil, err
	}
	state.Did("exec: process started")
	io.Begun(proc.Terminal())
	return io, proc, nil
}

// session serves a client that is attached to a process until the process has
// ended or the client is gone.
func (s *supervisor) session(r *wire.Reader, c *client, io *streams, signal func(syscall.Signal) error, ended <-chan struct{}) {
	in := newInbox(io, c)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			t, payload, err := r.Next()
			if err == nil {
				err = s.input(t, payload, io, in, signal)
			}
			if err != nil {
				c.fail(err)
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-gone:
		io.remove(c)
	}
	in.finish()
}

// input handles one frame of an attached client.
func (s *supervisor) input(t wire.Type, payload []byte, io *streams, in *inbox, signal func(syscall.Signal) error) error {
	switch t {
	case wire.TypeStdin:
		return in.put(payload)
	case wire.TypeCloseStdin:
		in.closeInput()
		return nil
	case wire.TypeResize:
		rows, cols, err := wire.Size(payload)
		if err == nil {
			io.resize(rows, cols)
		}
		return err
	case wire.TypeSignal:
		n, err := wire.Uint32(payload)
		if err == nil && n > 0 && n <= 64 {
			signal(syscall.Signal(n)) // one that comes too late is no error
		}
		return err
	default:
		return fmt.Errorf("%w: unexpected frame of type %d", wire.ErrProtocol, t)
	}
}
