package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/etc"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// networking is the workload's place in networks of the engine. The program that
// makes it is slow to start, so it works while the boundary makes the instance:
//
//	join ──┬── attach.Start: addresses, ports ──┐
//	       └── the boundary's Create ───────────┴── enter ── Start … Delete ── leave
//
// Where interfaces are descriptors that Create takes, join waits. Each life joins
// anew, and gets the addresses and ports of the one before, which stay the
// workload's in between. The zero value is of a workload that joins nothing.
type networking struct {
	config *attach.Config // nil if there is nothing to join
	taps   bool

	begun   bool          // something may have been made
	leaving chan error    // of beginLeave; nil before, and when it was received from
	done    chan struct{} // of what join began; nil if that was nothing
	got     *attach.Attachment
	err     error

	// wiring is held while a life begins, and while its networks, limits or name
	// change.
	wiring sync.Mutex
	// more is what is reserved beside got.Reserved.
	more []*os.File
	// texts are what the workload's files were given, by path inside.
	texts map[string][]byte
}

// join begins to get the workload into its networks, and adds to p what Create
// must have of them.
func (s *supervisor) join(ctx context.Context, spec *workload.Spec, p *boundary.Prepared) error {
	n := &s.net
	if s.start.Networks == nil {
		return nil
	}
	n.config = s.start.Networks
	n.config.Lock = s.lock
	if n.leaving != nil { // the policy was changed meanwhile
		if err := s.leave(ctx); err != nil {
			return err
		}
	}
	n.unreserve() // of the life before: a port cannot be reserved twice
	n.taps, n.done = s.boundary.Needs(*spec).Network == boundary.Tap, nil
	if spec.Network == workload.NetworkBridge && len(spec.Networks) == 0 { // it was taken out of the last
		return s.tellAddresses(spec, &network.Prepared{})
	}
	n.begun = true
	r := s.request(spec)
	n.done = make(chan struct{})
	go func() {
		defer close(n.done)
		ctx, preparing := trace.Begin(ctx, "networks prepared")
		defer preparing.End()
		n.got, n.err = attach.Start(ctx, *n.config, r)
	}()
	if !n.taps {
		return nil
	}
	if err := s.joined(ctx, spec); err != nil {
		return err
	}
	p.NICs, p.Taps = n.got.NICs, n.got.Taps
	return nil
}

// request asks for the networks of spec.
func (s *supervisor) request(spec *workload.Spec) network.Request {
	st := s.snapshot()
	r := network.Request{
		ID: spec.ID, Name: spec.Name, Hostname: spec.Hostname, Networks: spec.Networks, Ports: spec.Ports, Upstream: spec.DNS.Servers,
		Last: st.NICs, LastPorts: st.Ports, Taps: s.net.taps, Owner: st.IDBase,
		Raw:  spec.Security.RawSockets(),
		User: spec.Network == workload.NetworkUser,
	}
	if r.User && st.IDCount > 0 {
		r.Helper = st.IDBase + st.IDCount - 1 // no other workload's; in this one only what root turns into it
	}
	return r
}

// joined waits for what join began, notes it, and tells the workload by its
// files.
func (s *supervisor) joined(ctx context.Context, spec *workload.Spec) error {
	n := &s.net
	waiting := trace.Step(ctx, "networks awaited")
	<-n.done
	waiting.End()
	if n.err != nil {
		return n.err
	}
	state.Did("start: network attached")
	return s.tellAddresses(spec, &n.got.Prepared)
}

// enter puts the interfaces into an instance that is created and not started.
func (s *supervisor) enter(ctx context.Context, spec *workload.Spec, inst boundary.Instance) error {
	n := &s.net
	if n.config == nil || n.done == nil {
		return nil
	}
	if n.taps {
		for _, f := range n.got.Taps {
			f.Close() // the VMM has its own
		}
		n.got.Taps = nil
		// The name servers start while the guest boots.
		ctx, entering := trace.Begin(ctx, "networks entered")
		defer entering.End()
		return n.got.Enter(ctx, nil)
	}
	if err := s.joined(ctx, spec); err != nil {
		return err
	}
	ctx, entering := trace.Begin(ctx, "networks entered")
	defer entering.End()
	in, ok := inst.(boundary.NetNS)
	if !ok {
		return fmt.Errorf("%w: the boundary %s cannot join networks; --network none runs the workload without", workload.ErrUnsupported, spec.Boundary)
	}
	ns, err := in.NetNS()
	if err != nil {
		return fmt.Errorf("open the workload's network namespace: %w", err)
	}
	defer ns.Close()
	if err := n.got.Enter(ctx, ns); err != nil {
		return err
	}
	state.Did("start: network entered")
	return nil
}

// abandon waits for what join began when there will be nothing to enter. What was
// made stays until leave, or until the engine releases it.
func (n *networking) abandon(cancel context.CancelFunc) {
	if n.config == nil || n.done == nil {
		return
	}
	cancel()
	<-n.done
	n.unreserve()
}

// unreserve closes what a life held of its networks.
func (n *networking) unreserve() {
	for _, f := range n.more {
		f.Close()
	}
	n.more = nil
	if n.got == nil {
		return
	}
	for _, f := range append(n.got.Reserved, n.got.Taps...) {
		f.Close()
	}
	n.got.Close()
	n.got = nil
}

// beginLeave takes the workload, whose first process has ended, out of its
// networks while its boundary deletes the rest, if nothing can follow. Interfaces
// go before addresses, so what is left of the workload cannot use those.
func (s *supervisor) beginLeave() {
	policy := s.asked().Restart.Policy
	if s.net.begun && (policy == "" || policy == workload.RestartNo) {
		left := make(chan error, 1)
		s.net.leaving = left
		ctx, leaving := trace.Begin(s.context(), "networks taken back")
		go func() {
			err := s.release(ctx)
			leaving.End()
			left <- err
		}()
	}
}

// leave takes the workload, of which no process is left, out of its networks. Where
// beginLeave did so it tells how that went, once: after an error the next call tries
// again.
func (s *supervisor) leave(ctx context.Context) error {
	if !s.net.begun {
		return nil
	}
	if left := s.net.leaving; left != nil {
		s.net.leaving = nil
		return <-left
	}
	return s.release(ctx)
}

func (s *supervisor) release(ctx context.Context) error {
	// The rules of a port go before the port: who gets it next makes his own.
	var err error
	if s.net.got != nil {
		err = s.net.got.Release(ctx, *s.net.config)
	} else {
		err = attach.Release(ctx, *s.net.config, s.start.Spec.ID)
	}
	s.net.unreserve()
	if err != nil {
		return fmt.Errorf("leave the networks: %w", err)
	}
	state.Did("end: network released")
	return nil
}

// warnings are sentences about the networks for whoever starts the workload.
func (n *networking) warnings() []string {
	if n.got == nil {
		return nil
	}
	return n.got.Warnings
}

// tellAddresses notes what the workload has of its networks and writes what its
// files say of them. They may be mounted in it already, so they are written in
// place.
func (s *supervisor) tellAddresses(spec *workload.Spec, p *network.Prepared) error {
	s.mu.Lock()
	s.state.NICs, s.state.Ports = p.NICs, p.Ports
	s.mu.Unlock()
	texts, err := s.texts(spec, p)
	if err != nil {
		return err
	}
	for target, b := range texts {
		if err := overwrite(s.start.State.Files[target], b); err != nil {
			return fmt.Errorf("write the workload's %s: %w", target, err)
		}
	}
	s.net.texts = texts
	return nil
}

// texts are what the workload's files say of its networks, without those that the
// user mounts something in the place of.
func (s *supervisor) texts(spec *workload.Spec, p *network.Prepared) (map[string][]byte, error) {
	n := etc.Net{NICs: p.NICs, Nameservers: p.Nameservers, Forward: p.Forward, Host: p.Host}
	texts := map[string][]byte{}
	for target, text := range map[string]func(*workload.Spec, etc.Net) ([]byte, error){"/etc/hosts": etc.Hosts, "/etc/resolv.conf": etc.Resolv} {
		if s.start.State.Files[target] == "" {
			continue
		}
		b, err := text(spec, n)
		if err != nil {
			return nil, fmt.Errorf("write the workload's %s: %w", target, err)
		}
		texts[target] = b
	}
	return texts, nil
}

// overwrite puts b into an existing file. It keeps the file's owner, who is the
// workload's root, and follows no link.
func overwrite(file string, b []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
