package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxReply bounds one line that QEMU sends, in bytes. A QEMU that is taken over
// can send anything.
const maxReply = 1 << 20

// ErrGone says that QEMU has ended, or closed its control socket.
var ErrGone = errors.New("QEMU has ended")

// qmp is a client of the QEMU Machine Protocol: one JSON object a line each way
// (docs/interop/qmp-spec.txt of QEMU).
//
//	QEMU   {"QMP": {"version": …}}          greeting, once
//	us     {"execute": …, "id": "1"}        with descriptors beside it (SCM_RIGHTS)
//	QEMU   {"return": …, "id": "1"} or {"error": …, "id": "1"}
//	QEMU   {"event": …, "data": …}          at any time
type qmp struct {
	sock  *os.File
	event func(name string, data json.RawMessage)

	sending sync.Mutex // one line at a time

	mu      sync.Mutex
	next    int
	pending map[string]chan reply
	err     error // why nothing comes any more

	greeting chan Version // one value, then closed
	done     chan struct{}
}

// Version is QEMU's.
type Version struct{ Major, Minor, Micro int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// Oldest is the first version whose options and protocol are known to do.
var Oldest = Version{Major: 7, Minor: 2}

func (v Version) before(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

type reply struct {
	value json.RawMessage
	err   error
}

// CommandError is QEMU's refusal of a command.
type CommandError struct{ Command, Class, Desc string }

func (e *CommandError) Error() string { return "QEMU: " + e.Command + ": " + e.Desc }

func newQMP(sock *os.File, event func(string, json.RawMessage)) *qmp {
	q := &qmp{sock: sock, event: event, pending: map[string]chan reply{}, greeting: make(chan Version, 1), done: make(chan struct{})}
	go q.read()
	return q
}

// message is whatever QEMU sends.
type message struct {
	QMP *struct {
		Version struct{ Qemu Version }
	}
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
	ID     string
	Event  string
	Data   json.RawMessage
}

// read hands out replies until the socket ends. Then it closes it: what nobody
// reads any more would keep descriptors alive that QEMU has sent along.
func (q *qmp) read() {
	defer close(q.done)
	defer close(q.greeting)
	defer q.sock.Close()
	s := bufio.NewScanner(q.sock)
	s.Buffer(make([]byte, 0, 4096), maxReply)
	greeted := false
	var err error
	for err == nil && s.Scan() {
		var m message
		if e := json.Unmarshal(s.Bytes(), &m); e != nil {
			err = fmt.Errorf("QEMU's control socket: %w", e)
			break
		}
		switch {
		case m.QMP != nil && !greeted:
			greeted = true
			q.greeting <- m.QMP.Version.Qemu
		case m.Event != "":
			q.event(m.Event, m.Data)
		default:
			q.deliver(m)
		}
	}
	if err == nil && errors.Is(s.Err(), bufio.ErrTooLong) {
		err = fmt.Errorf("QEMU's control socket: a line of more than %d bytes", maxReply)
	}
	if err == nil {
		err = ErrGone
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
	for id, c := range q.pending {
		c <- reply{err: err}
		delete(q.pending, id)
	}
}

func (q *qmp) deliver(m message) {
	q.mu.Lock()
	c := q.pending[m.ID]
	delete(q.pending, m.ID)
	q.mu.Unlock()
	if c == nil {
		return // nobody asked, or nobody waits any longer
	}
	if m.Error != nil {
		c <- reply{err: &CommandError{Class: short(Printable([]byte(m.Error.Class))), Desc: short(Printable([]byte(m.Error.Desc)))}}
		return
	}
	c <- reply{value: m.Return}
}

// do performs one command. files go along; they stay the caller's.
func (q *qmp) do(ctx context.Context, command string, args any, files ...*os.File) (json.RawMessage, error) {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return nil, fmt.Errorf("QEMU: %s: %w", command, q.err)
	}
	q.next++
	id := strconv.Itoa(q.next)
	c := make(chan reply, 1) // never blocks the reader
	q.pending[id] = c
	q.mu.Unlock()
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        string `json:"id"`
	}{command, args, id})
	if err == nil {
		err = q.send(ctx, append(line, '\n'), files)
	}
	if err != nil {
		q.forget(id)
		return nil, fmt.Errorf("QEMU: %s: %w", command, err)
	}
	select {
	case r := <-c:
		var refused *CommandError
		if errors.As(r.err, &refused) {
			refused.Command = command
			return nil, refused
		}
		if r.err != nil {
			return nil, fmt.Errorf("QEMU: %s: %w", command, r.err)
		}
		return r.value, nil
	case <-ctx.Done():
		q.forget(id)
		return nil, fmt.Errorf("QEMU: %s: %w", command, ctx.Err())
	}
}

func (q *qmp) forget(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.pending, id)
}

// why is err, or why nothing comes any more: the socket is closed then, and that
// is all that who sends sees of it.
func (q *qmp) why(err error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	return err
}

// send writes one line. A QEMU that reads no more fills the socket; ctx ends
// that. What is half sent then makes the connection useless, so it is closed.
func (q *qmp) send(ctx context.Context, line []byte, files []*os.File) error {
	q.sending.Lock()
	defer q.sending.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		q.sock.SetWriteDeadline(time.Unix(1, 0))
	})
	n, err := q.sendAll(line, files)
	if !stop() {
		<-over // or it would be the next command's
		q.sock.SetWriteDeadline(time.Time{})
	}
	if err != nil && n > 0 {
		q.sock.Close()
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return q.why(err)
}

func (q *qmp) sendAll(line []byte, files []*os.File) (sent int, err error) {
	conn, err := q.sock.SyscallConn()
	if err != nil {
		return 0, err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			raw, err := f.SyscallConn()
			if err != nil {
				return 0, err
			}
			// The file is the caller's and stays open over this call.
			if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
				return 0, err
			}
		}
		rights = unix.UnixRights(fds...)
	}
	for sent < len(line) {
		var n int
		var failed error
		err := conn.Write(func(fd uintptr) bool {
			n, failed = unix.SendmsgN(int(fd), line[sent:], rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return sent, err
		case errors.Is(failed, unix.EINTR):
			continue
		case errors.Is(failed, unix.EPIPE):
			return sent, ErrGone
		case failed != nil:
			return sent, os.NewSyscallError("sendmsg", failed)
		}
		sent, rights = sent+n, nil
	}
	return sent, nil
}

func (q *qmp) close() {
	q.sock.Close()
	<-q.done
}
