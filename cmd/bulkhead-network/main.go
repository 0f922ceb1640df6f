// The runtime would read its cgroup's files at start, and keep them open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bulkhead-network makes the host's half of one workload's networks for
// its supervisor, which stays small that way. It is started by package attach and
// talks over the socket that is its descriptor 3, until that is closed.
//
//	bulkhead-network --root DIR --run DIR [--dns PROGRAM] [--cgroup-parent CGROUP]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/user"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func main() {
	trace.Main()
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The descriptors that package attach leaves to its child. The lock, which need
// not be there, is of no use but to be open.
const socket, lock = 3, 4

func run(ctx context.Context, args []string) error {
	var root, runRoot string
	var o bridge.Options
	f := flag.NewFlagSet("bulkhead-network", flag.ContinueOnError)
	f.StringVar(&root, "root", "", "state directory")
	f.StringVar(&runRoot, "run", "", "run-time directory")
	f.StringVar(&o.DNSProgram, "dns", "", "path of bulkhead-dns; without it networks have no name server")
	f.StringVar(&o.CgroupParent, "cgroup-parent", "", "cgroup below which name servers are")
	if err := f.Parse(args); err != nil {
		return err
	}
	if _, err := syscall.Getsockname(socket); err != nil {
		return errors.New("bulkhead-network is started by bulkhead-supervisor, and of no use by hand")
	}
	syscall.CloseOnExec(socket)
	syscall.CloseOnExec(lock) // a name server stays
	syscall.Close(attach.Last)
	u := user.Options{CgroupParent: o.CgroupParent}
	o.EndApart = u.Release
	return converse(ctx, os.NewFile(socket, "socket"), u, func(ctx context.Context) (*bridge.Store, error) {
		defer trace.Step(ctx, "networks opened").End()
		return bridge.Open(root, runRoot, o)
	})
}

// conversation is what the program has with its supervisor.
type conversation struct {
	conn  *os.File
	trace *trace.Recorder // nil where the request asks for none
}

// send answers, with the phases that came to an end meanwhile.
func (c *conversation) send(m attach.Message, taps, files []*os.File) error {
	m.Phases = c.trace.Take()
	return attach.Send(c.conn, m, taps, files)
}

// converse answers one request, and what follows from it.
func converse(ctx context.Context, conn *os.File, u user.Options, open func(context.Context) (*bridge.Store, error)) error {
	m, _, files, err := attach.Receive(conn)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	c := &conversation{conn: conn}
	if m.Trace {
		c.trace = trace.New("network")
		ctx = trace.With(ctx, c.trace)
		trace.Past(ctx, "program loaded", "network", trace.Born(), trace.Loaded())
	}
	s, err := open(ctx)
	if err != nil {
		return err
	}
	switch {
	case m.Request != nil && m.Request.Part != "":
		return c.part(ctx, s, *m.Request, files)
	case m.Request != nil && m.Request.User:
		// First, so that it never reaches what it must not.
		if m.Request.Helper != 0 { // else it is refused
			if err := s.KeepApart(ctx, m.Request.ID, m.Request.Helper); err != nil {
				return c.send(attach.Fail(err), nil, nil)
			}
		}
		a, err := u.Attach(ctx, *m.Request)
		if err != nil {
			return c.send(attach.Fail(err), nil, nil)
		}
		if err := c.send(attach.Message{Prepared: &a.Prepared}, a.Taps, nil); err != nil {
			return err
		}
		a.Close() // the supervisor has it
		return c.follow(ctx, s, a, m.Request.Taps)
	case m.Request != nil:
		a, err := s.Attach(ctx, *m.Request)
		if err != nil {
			return c.send(attach.Fail(err), nil, nil)
		}
		if err := c.send(attach.Message{Prepared: &a.Prepared}, a.Taps, a.Reserved); err != nil {
			return err
		}
		a.Close() // the supervisor has them
		return c.follow(ctx, s, a, m.Request.Taps)
	case m.Release != "":
		return c.release(ctx, s, m.Release)
	}
	return errors.New("the supervisor asks for nothing")
}

// release takes a workload out of its networks.
func (c *conversation) release(ctx context.Context, s *bridge.Store, id workload.ID) error {
	rest, err := s.Leave(ctx, id)
	// Whoever hears the answer may start the workload again: nothing of it is left.
	syscall.Close(lock)
	return errors.Join(c.answer(err), rest(ctx))
}

// part takes a workload out of a network. Its namespace came along, unless it has
// taps.
func (c *conversation) part(ctx context.Context, s *bridge.Store, r network.Request, files []*os.File) error {
	var netns *os.File
	if len(files) > 0 {
		netns = files[0]
		defer netns.Close()
	}
	a, err := s.Part(ctx, r, netns)
	if err != nil {
		return c.send(attach.Fail(err), nil, nil)
	}
	defer a.Close() // the supervisor has them
	return c.send(attach.Message{Prepared: &a.Prepared}, nil, a.Reserved)
}

// follow waits for the workload's namespace, or with taps for being asked whether
// everything works, which nobody asks where an interface is added; and then for the
// workload's end, which comes while the supervisor keeps the socket open, or not at
// all.
func (c *conversation) follow(ctx context.Context, s *bridge.Store, a interface {
	Enter(context.Context, *os.File) error
}, taps bool) error {
	_, _, files, err := attach.Receive(c.conn)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	var netns *os.File
	switch {
	case len(files) == 1:
		netns = files[0]
	case !taps || len(files) > 1:
		return fmt.Errorf("%d descriptors came where one namespace was expected", len(files))
	}
	err = a.Enter(ctx, netns)
	netns.Close() // nil with taps; or the namespace would outlive the workload
	if err := c.answer(err); err != nil {
		return err
	}
	m, _, _, err := attach.Receive(c.conn)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if m.Release == "" {
		return nil
	}
	return c.release(ctx, s, m.Release)
}

func (c *conversation) answer(err error) error {
	if err != nil {
		return c.send(attach.Fail(err), nil, nil)
	}
	return c.send(attach.Message{Done: true}, nil, nil)
}
