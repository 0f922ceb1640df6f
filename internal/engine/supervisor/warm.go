package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/warm"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// holder is this process while it has a machine that waits for a workload. See
// package warm.
type holder struct {
	layout state.Layout
	holder warm.Holder
	lock   *os.File // its own
	owner  string   // of its range of IDs
	wanted warm.Wanted
	base   state.State // what a workload that comes gets
	waits  boundary.Warm
}

// wait makes a machine, tells c, and waits with it for a workload. It returns nil
// when there is to be no workload; otherwise the workload's lock, and the connection
// that carries the request to start it.
func wait(ctx context.Context, boundaries []boundary.Boundary, req *wire.Warm, c *client, terminate <-chan os.Signal) (h *holder, lock, conn *os.File, err error) {
	h = &holder{layout: state.Layout{Root: req.Root, Run: req.Run}}
	listener, err := h.make(ctx, boundaries, warm.Of(req.Run, req.Key))
	c.reply(wire.Reply{Error: wire.NewError(err)})
	c.finish(time.Second)
	if err != nil || listener == nil {
		return nil, nil, nil, errors.Join(err, h.discard(ctx))
	}
	state.Did("warm: waits")
	lock, conn = h.serve(listener, terminate)
	if conn == nil {
		return nil, nil, nil, h.discard(ctx)
	}
	return h, lock, conn, nil
}

// make makes a machine unless enough wait, and listens.
func (h *holder) make(ctx context.Context, boundaries []boundary.Boundary, pool warm.Pool) (*wire.Listener, error) {
	enough, err := h.join(ctx, pool)
	if enough || err != nil {
		return nil, err
	}
	state.Did("warm: directory made")
	w := h.wanted
	var maker boundary.Warmer
	for _, b := range boundaries {
		if b.Name() == w.Spec.Boundary {
			maker, _ = b.(boundary.Warmer)
		}
	}
	if maker == nil {
		return nil, fmt.Errorf("%w: the boundary %q has nothing that could wait", workload.ErrUnsupported, w.Spec.Boundary)
	}
	h.owner = warm.Owner(h.holder.ID)
	r, err := h.layout.AllocateIDs(h.owner)
	if err != nil {
		return nil, err
	}
	h.base = state.State{IDBase: r.Base, IDCount: r.Count, Cgroup: w.Cgroup + "/" + h.owner}
	state.Did("warm: IDs allocated")
	h.waits, err = maker.Warm(ctx, w.Spec, boundary.Prepared{
		Dir: h.holder.Dir, IDBase: r.Base, IDCount: r.Count, Cgroup: h.base.Cgroup, Machine: w.Machine, Files: w.Files,
	}, pool.Key)
	if err != nil {
		return nil, err
	}
	state.Did("warm: machine made")
	// Fewer may be wanted by now.
	unlock, err := warm.Lock(ctx, h.layout.Run)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if enough, err := h.enough(pool, func(o warm.Holder) bool { return o.Waits }); enough || err != nil {
		return nil, err
	}
	return wire.Listen(h.holder.Dir)
}

// join takes a place in the pool unless it is full.
func (h *holder) join(ctx context.Context, pool warm.Pool) (enough bool, err error) {
	unlock, err := warm.Lock(ctx, h.layout.Run)
	if err != nil {
		return false, err
	}
	defer unlock()
	if enough, err := h.enough(pool, warm.Holder.Counts); enough || err != nil {
		return enough, err
	}
	h.holder, h.lock, err = pool.Add()
	return false, err
}

// enough tells whether as many as are wanted are counted, or none is wanted any
// more.
func (h *holder) enough(pool warm.Pool, counted func(warm.Holder) bool) (bool, error) {
	w, err := pool.Wanted()
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	h.wanted = w
	others, err := pool.Holders()
	n := 0
	for _, o := range others {
		if o.ID != h.holder.ID && counted(o) {
			n++
		}
	}
	return n >= w.Count, err
}

// serve waits for a workload, or for the end. Who connects is served one after the
// other.
func (h *holder) serve(l *wire.Listener, terminate <-chan os.Signal) (lock, conn *os.File) {
	defer l.Close()
	coming, retired := make(chan *os.File), false
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			f, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case coming <- f:
			case <-over:
				f.Close()
				return
			}
		}
	}()
	for {
		select {
		case f := <-coming:
			if lock, conn, retired = h.answer(f); conn != nil || retired {
				return lock, conn
			}
		case <-h.waits.Done(): // the machine has ended
			return nil, nil
		case <-terminate: // the host goes down
			return nil, nil
		}
	}
}

// answer answers one connection. It returns a workload's lock and connection when
// both have come, or that the holder is to end.
func (h *holder) answer(f *os.File) (lock, conn *os.File, retired bool) {
	c := newClient(f)
	defer c.finish(time.Second)
	f.SetDeadline(time.Now().Add(claimTimeout))
	var req wire.Request
	if err := wire.NewReader(f).Message(wire.TypeRequest, &req); err != nil {
		return nil, nil, false
	}
	var err error
	switch {
	case req.Version != wire.Version:
		err = fmt.Errorf("%w: what waits speaks protocol version %d, the command %d", workload.ErrUnsupported, wire.Version, req.Version)
	case req.Op == wire.OpRetire:
		err = h.holder.Leave()
		retired = err == nil
	case req.Op == wire.OpClaim:
		c.reply(wire.Reply{PID: os.Getpid()})
		if lock, conn, err = h.claimed(f); err != nil {
			return nil, nil, false // the other side is gone, or does not follow the protocol
		}
		state.Did("warm: claimed")
		base := h.base
		c.reply(wire.Reply{State: &base})
		return lock, conn, false
	default:
		err = workload.ErrNotRunning
	}
	c.reply(wire.Reply{Error: wire.NewError(err)})
	return nil, nil, retired
}

// claimed takes what a workload's supervisor would have inherited. Nobody else is
// told afterwards that there is something to claim.
func (h *holder) claimed(f *os.File) (lock, conn *os.File, err error) {
	if lock, err = wire.ReceiveFile(f); err != nil {
		return nil, nil, err
	}
	if conn, err = wire.ReceiveFile(f); err == nil {
		if err = h.holder.Leave(); err == nil {
			return lock, conn, nil
		}
		conn.Close()
	}
	lock.Close()
	return nil, nil, err
}

// claimTimeout is how long a command may take to claim what waits, while no other
// can.
const claimTimeout = 5 * time.Second

// boundaries are those of the program, with what waits behind its own.
func (h *holder) boundaries(all []boundary.Boundary) []boundary.Boundary {
	ours := h.waits.Boundary()
	out := []boundary.Boundary{ours}
	for _, b := range all {
		if b.Name() != ours.Name() {
			out = append(out, b)
		}
	}
	return out
}

// become makes the process what one is that was started for the workload.
func (h *holder) become(id workload.ID) {
	// Nothing depends on these two: they are for the eyes of people.
	_ = retitle(id.Short())
	if f, err := os.OpenFile(filepath.Join(h.layout.RunDir(id), "stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err == nil {
		_ = syscall.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
		f.Close()
	}
}

// over gives up the place in the pool: all is the workload's, or gone.
func (h *holder) over(ctx context.Context) error {
	h.owner = "" // the range of IDs is the workload's
	return h.discard(ctx)
}

// discard removes what the holder has and no workload.
func (h *holder) discard(ctx context.Context) error {
	if h.lock == nil {
		return nil // it has no place in the pool
	}
	var err error
	if h.waits != nil {
		err = h.waits.Discard(ctx)
	}
	if err == nil && h.owner != "" {
		err = h.layout.IDs().ReleaseOwner(h.owner)
	}
	if err == nil {
		err = os.RemoveAll(h.holder.Dir)
	}
	h.lock.Close() // whoever comes next tries again
	state.Did("warm: over")
	return err
}

// retitle replaces what ps shows after the program's name, as far as there is
// room: the arguments are in this process's memory, where the kernel put them.
func retitle(to string) error {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	// After the name, which may hold anything, the third field is the first:
	// arg_start is the 48th, proc_pid_stat(5).
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 46 {
		return errors.New("/proc/self/stat has no arg_start")
	}
	at, err := strconv.ParseInt(fields[45], 10, 64)
	if err != nil {
		return err
	}
	if len(os.Args) != 2 || len(os.Args[1]) != len(to) {
		return errors.New("there is no room for the title")
	}
	f, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(to), at+int64(len(os.Args[0]))+1)
	return err
}
