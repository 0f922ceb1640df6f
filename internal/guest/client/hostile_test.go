package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// scripted returns a client each of whose streams is served by script, which
// gets the request; the stream is closed when it returns.
func scripted(t testing.TB, script func(*protocol.Request, net.Conn)) *Client {
	t.Helper()
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	return New(func(context.Context) (io.ReadWriteCloser, error) {
		ours, theirs := net.Pipe()
		all.Go(func() {
			defer theirs.Close()
			req, err := protocol.NewReader(theirs).Request()
			if err == nil {
				script(req, theirs)
			}
		})
		return ours, nil
	})
}

func message(t protocol.Type, p string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(t)<<24|uint32(len(p))), p...)
}

var good = message(protocol.TypeReply, `{}`)

func create(id workload.ID) protocol.Create {
	return protocol.Create{Image: "image0", Spec: workload.Spec{ID: id}}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestHostileReplies has an agent that answers every request with nonsense, and
// wants an error from every call that says so.
func TestHostileReplies(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	for name, tt := range map[string]struct {
		say  string
		want error
	}{
		"nothing":         {"", ErrGuestLost},
		"half a header":   {"\x02\x00", ErrGuestLost},
		"another message": {string(message(protocol.TypeStdout, "hello")), protocol.ErrProtocol},
		"no JSON":         {string(message(protocol.TypeReply, `<html>`)), protocol.ErrProtocol},
		"a huge length":   {"\x02\xff\xff\xff", protocol.ErrProtocol},
		"unknown type":    {"\xff\x00\x00\x00", protocol.ErrProtocol},
		"a cut message":   {"\x02\x00\x00\x10{", protocol.ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			c := scripted(t, func(_ *protocol.Request, conn net.Conn) { conn.Write([]byte(tt.say)) })
			in := c.Open(workload.NewID())
			_, create := c.Create(soon(t), create(in.id), boundary.Stdio{Out: os.Stderr}, nil)
			_, exec := in.Exec(soon(t), workload.Process{Terminal: true}, boundary.Stdio{})
			_, status := c.Status(soon(t))
			_, list := in.Processes(soon(t))
			_, volume := c.AttachVolume(soon(t), "v", false, nil)
			for what, err := range map[string]error{
				"create": create, "exec": exec, "status": status, "list": list, "volume": volume,
				"start": in.Start(soon(t)), "signal": in.Signal(soon(t), 9), "delete": in.Delete(soon(t)),
				"pause": in.Pause(soon(t)), "power off": c.PowerOff(soon(t)),
			} {
				if !errors.Is(err, tt.want) || !errors.Is(err, ErrGuestLost) {
					t.Errorf("%s: got %v", what, err)
				}
			}
		})
	}
	c := scripted(t, func(_ *protocol.Request, conn net.Conn) { conn.Write(good) })
	if _, err := c.Status(soon(t)); !errors.Is(err, protocol.ErrProtocol) {
		t.Errorf("a status without one: %v", err)
	}
}

// TestHostileProcesses has an agent that makes a process and then breaks the
// rules.
func TestHostileProcesses(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	number := func(t protocol.Type, n uint32) string {
		return string(message(t, string(binary.BigEndian.AppendUint32(nil, n))))
	}
	for name, say := range map[string]string{
		"an end":               "",
		"a reply":              string(good),
		"a host's message":     string(message(protocol.TypeStdin, "x")),
		"window of nothing":    number(protocol.TypeWindow, 0),
		"window too large":     number(protocol.TypeWindow, 1),
		"window overflow":      number(protocol.TypeWindow, 1<<32-1),
		"a short window":       string(message(protocol.TypeWindow, "x")),
		"status 300":           string(message(protocol.TypeExit, `{"code":300}`)),
		"signal -9":            string(message(protocol.TypeExit, `{"signal":-9}`)),
		"output without end":   string(message(protocol.TypeStdout, "some")) + "\x08\x00\xff\xffcut",
		"output of another":    string(message(protocol.TypeStderr, "some")), // was not asked for
		"notice, then nothing": string(message(protocol.TypeNotice, "\x1b[2J")),
	} {
		t.Run(name, func(t *testing.T) {
			c := scripted(t, func(_ *protocol.Request, conn net.Conn) {
				conn.Write(good)
				conn.Write([]byte(say))
			})
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			in, err := c.Create(soon(t), create(workload.NewID()), boundary.Stdio{Out: w}, func(l string) {
				if strings.Contains(l, "\x1b") {
					t.Errorf("notice %q", l)
				}
			})
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(r); err != nil { // the end is seen
				t.Error(err)
			}
			if _, err := in.Wait(soon(t)); !errors.Is(err, ErrGuestLost) {
				t.Errorf("got %v", err)
			}
			in.Abandon()
		})
	}
}

// TestSilentAgent never answers: calls end with their context, and Abandon ends
// what goes on.
func TestSilentAgent(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	c := scripted(t, func(req *protocol.Request, conn net.Conn) {
		if req.Op == protocol.OpCreate || req.Op == protocol.OpExec {
			conn.Write(good)
		}
		conn.Read(make([]byte, 1)) // until it is closed: nothing more is read
		conn.Read(make([]byte, 1))
		io.Copy(io.Discard, conn)
	})
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	s := workload.Spec{ID: workload.NewID(), Process: workload.Process{Terminal: true}}
	in, err := c.Create(soon(t), protocol.Create{Spec: s}, boundary.Stdio{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, status := c.Status(short())
	_, wait := in.Wait(short())
	_, list := in.Processes(short())
	for what, err := range map[string]error{
		"start": in.Start(short()), "signal": in.Signal(short(), 9), "pause": in.Pause(short()),
		"delete": in.Delete(short()), "status": status, "wait": wait, "list": list,
	} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	term := in.Terminal()
	for range 1000 {
		if err := term.Resize(24, 80); err != nil {
			t.Error(err)
		}
	}
	read, wrote := make(chan error), make(chan error)
	go func() {
		_, err := term.Read(make([]byte, 1))
		read <- err
	}()
	go func() {
		_, err := term.Write(make([]byte, 2*protocol.StdinWindow))
		wrote <- err
	}()
	time.Sleep(10 * time.Millisecond)
	began := time.Now()
	term.Close()
	if err := <-read; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read of a terminal that is closed: %v", err)
	}
	in.Abandon()
	<-wrote
	if took := time.Since(began); took > lastWords {
		t.Errorf("abandoning took %v", took)
	}
	if _, err := in.Wait(soon(t)); err == nil {
		t.Error("wait for what was abandoned: no error")
	}
}

func TestDialFails(t *testing.T) {
	c := New(func(context.Context) (io.ReadWriteCloser, error) { return nil, io.ErrClosedPipe })
	if _, err := c.Status(soon(t)); !errors.Is(err, ErrGuestLost) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c = New(func(ctx context.Context) (io.ReadWriteCloser, error) { return nil, ctx.Err() })
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrGuestLost) {
		t.Errorf("got %v", err)
	}
}

// TestTooMuchAsked is not the guest's fault.
func TestTooMuchAsked(t *testing.T) {
	c := scripted(t, func(*protocol.Request, net.Conn) {})
	req := create(workload.NewID())
	req.Files = map[string][]byte{"/etc/hosts": make([]byte, protocol.MaxRequest)}
	if _, err := c.Create(soon(t), req, boundary.Stdio{}, nil); !errors.Is(err, protocol.ErrTooLong) || errors.Is(err, ErrGuestLost) {
		t.Errorf("got %v", err)
	}
}

// heard is a stream on which the agent's part was written down.
type heard struct{ *bytes.Reader }

func (heard) Write(p []byte) (int, error) { return len(p), nil }
func (heard) Close() error                { return nil }

// FuzzProcess gives the client any bytes from an agent, for a process with
// pipes and for one with a terminal.
func FuzzProcess(f *testing.F) {
	f.Add([]byte{}, false)
	for _, terminal := range []bool{false, true} {
		f.Add(bytes.Join([][]byte{
			good, message(protocol.TypeStdout, "out"), message(protocol.TypeStderr, "err"), message(protocol.TypeNotice, "n"),
			message(protocol.TypeCloseStdin, ""), message(protocol.TypeExit, `{"code":3}`),
		}, nil), terminal)
	}
	f.Add(message(protocol.TypeReply, `{"error":{"kind":"running","message":"x"}}`), false)
	f.Fuzz(func(t *testing.T, b []byte, terminal bool) {
		c := New(func(context.Context) (io.ReadWriteCloser, error) {
			return heard{bytes.NewReader(b)}, nil
		})
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		read := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, r)
			read <- n
		}()
		req := create(workload.NewID())
		req.Spec.Process.Terminal = terminal
		in, err := c.Create(soon(t), req, boundary.Stdio{In: null, Out: w, Err: w}, func(string) {})
		w.Close()
		if err == nil {
			if term := in.Terminal(); term != nil {
				go io.Copy(io.Discard, term)
			}
			exit, err := in.Wait(soon(t))
			if err == nil && (exit.Code < 0 || exit.Code > 255) || err != nil && !errors.Is(err, ErrGuestLost) {
				t.Errorf("got %+v, %v", exit, err)
			}
			in.Abandon()
		}
		if n := <-read; n > int64(len(b)) {
			t.Errorf("%d bytes of output from %d", n, len(b))
		}
		c.Status(soon(t))
	})
}
