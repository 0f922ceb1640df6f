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
)

func main() {
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
	s, err := bridge.Open(root, runRoot, o)
	if err != nil {
		return err
	}
	return converse(ctx, s, user.Options{CgroupParent: o.CgroupParent}, os.NewFile(socket, "socket"))
}

// converse answers one request, and what follows from it.
func converse(ctx context.Context, s *bridge.Store, u user.Options, conn *os.File) error {
	m, _, files, err := attach.Receive(conn)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case m.Request != nil && m.Request.Part != "":
		return part(ctx, s, *m.Request, files, conn)
	case m.Request != nil && m.Request.User:
		// First, so that it never reaches what it must not.
		if m.Request.Helper != 0 { // else it is refused
			if err := s.KeepApart(ctx, m.Request.ID, m.Request.Helper); err != nil {
				return attach.Send(conn, attach.Fail(err), nil, nil)
			}
		}
		a, err := u.Attach(ctx, *m.Request)
		if err != nil {
			return attach.Send(conn, attach.Fail(err), nil, nil)
		}
		if err := attach.Send(conn, attach.Message{Prepared: &a.Prepared}, a.Taps, nil); err != nil {
			return err
		}
		a.Close() // the supervisor has it
		return enter(ctx, a, conn)
	case m.Request != nil:
		a, err := s.Attach(ctx, *m.Request)
		if err != nil {
			return attach.Send(conn, attach.Fail(err), nil, nil)
		}
		if err := attach.Send(conn, attach.Message{Prepared: &a.Prepared}, a.Taps, a.Reserved); err != nil {
			return err
		}
		a.Close() // the supervisor has them
		return enter(ctx, a, conn)
	case m.Release != "":
		rest, err := s.Leave(ctx, m.Release)
		err = errors.Join(u.Release(ctx, m.Release), err)
		// Whoever hears the answer may start the workload again: nothing of it is left.
		syscall.Close(lock)
		return errors.Join(answer(conn, err), rest(ctx))
	}
	return errors.New("the supervisor asks for nothing")
}

// part takes a workload out of a network. Its namespace came along, unless it has
// taps.
func part(ctx context.Context, s *bridge.Store, r network.Request, files []*os.File, conn *os.File) error {
	var netns *os.File
	if len(files) > 0 {
		netns = files[0]
		defer netns.Close()
	}
	a, err := s.Part(ctx, r, netns)
	if err != nil {
		return attach.Send(conn, attach.Fail(err), nil, nil)
	}
	defer a.Close() // the supervisor has them
	return attach.Send(conn, attach.Message{Prepared: &a.Prepared}, nil, a.Reserved)
}

// enter waits for the workload's namespace, which never comes for taps.
func enter(ctx context.Context, a interface {
	Enter(context.Context, *os.File) error
}, conn *os.File) error {
	_, _, files, err := attach.Receive(conn)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("%d descriptors came where one namespace was expected", len(files))
	}
	defer files[0].Close()
	return answer(conn, a.Enter(ctx, files[0]))
}

func answer(conn *os.File, err error) error {
	if err != nil {
		return attach.Send(conn, attach.Fail(err), nil, nil)
	}
	return attach.Send(conn, attach.Message{Done: true}, nil, nil)
}
