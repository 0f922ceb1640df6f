package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A change of the networks of a workload that runs is made first and recorded
// last: if the supervisor dies in between, so does the workload, and whoever cleans
// up after it takes all back that its leases name. Between two lives there is
// nothing to make; the next one begins with what is recorded.

// connect puts the workload into one more network. It returns sentences for
// whoever asked for it.
func (s *supervisor) connect(want *workload.Attachment) (warnings []string, err error) {
	if want == nil {
		return nil, fmt.Errorf("%w: a connection to nothing", wire.ErrProtocol)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.net.wiring.Lock()
	defer s.net.wiring.Unlock()
	spec := s.asked()
	if slices.ContainsFunc(spec.Networks, func(a workload.Attachment) bool { return a.Network == want.Network }) {
		return nil, network.Invalidf("it is in network %s already", want.Network)
	}
	w, err := s.reachWires(&spec)
	if err != nil {
		return nil, err
	}
	before := spec
	spec.Networks = append(slices.Clone(spec.Networks), *want)
	if w == nil {
		return nil, s.keepNetworks(spec.Networks, nil)
	}
	ctx := context.Background()
	got, err := s.add(ctx, w, &spec)
	if err == nil {
		if err = s.keepNetworks(spec.Networks, &got.Prepared); err == nil {
			state.Did("connect: recorded")
			s.networksHappened("connect", got.NICs[len(got.NICs)-1:])
			return got.Warnings, nil
		}
	}
	had := s.snapshot().NICs
	if got != nil {
		had = got.NICs
	}
	_, rerr := s.remove(ctx, w, &before, want.Network, had)
	return nil, errors.Join(err, rerr)
}

// disconnect takes the workload out of a network. Where an error is about its
// guest alone, it is out all the same.
func (s *supervisor) disconnect(from *workload.Attachment) error {
	if from == nil {
		return fmt.Errorf("%w: a disconnection from nothing", wire.ErrProtocol)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.net.wiring.Lock()
	defer s.net.wiring.Unlock()
	spec := s.asked()
	i := slices.IndexFunc(spec.Networks, func(a workload.Attachment) bool { return a.Network == from.Network })
	if i < 0 {
		return network.Invalidf("it is not in network %s", from.Network)
	}
	w, err := s.reachWires(&spec)
	if err != nil {
		return err
	}
	spec.Networks = slices.Delete(slices.Clone(spec.Networks), i, i+1)
	had := s.snapshot().NICs
	got, err := s.remove(context.Background(), w, &spec, from.Network, had)
	if got == nil {
		return err
	}
	if rerr := s.keepNetworks(spec.Networks, &got.Prepared); rerr != nil {
		return errors.Join(err, fmt.Errorf("it is out of the network until it is started again, which is not kept: %w", rerr))
	}
	state.Did("disconnect: recorded")
	if w != nil {
		s.networksHappened("disconnect", slices.DeleteFunc(slices.Clone(had), func(n workload.NIC) bool { return n.Network != from.Network }))
	}
	return err
}

// wires are how interfaces get into an instance that runs, one of the two.
type wires struct {
	namespace boundary.NetNS
	rewirer   boundary.Rewirer
}

// errFixed says why the networks of a machine stay while it runs.
var errFixed = fmt.Errorf("%w: a machine of its own has its network devices from the start; stop the workload first, and the change takes effect when it is started again", workload.ErrUnsupported)

// errWired says why the networks of a sandbox stay while it runs.
var errWired = fmt.Errorf("%w: gVisor takes its network interfaces when it starts; stop the workload first, and the change takes effect when it is started again", workload.ErrUnsupported)

// reachWires returns how the instance that runs is reached; nil between two lives.
// What cannot be reached is an error.
func (s *supervisor) reachWires(spec *workload.Spec) (*wires, error) {
	if spec.Network != workload.NetworkBridge || s.start.Networks == nil {
		return nil, fmt.Errorf("%w: its network is %s, beside which there is no other", workload.ErrUnsupported, spec.Network)
	}
	l, err := s.running()
	if errors.Is(err, workload.ErrNotRunning) && s.snapshot().Status == workload.Restarting && s.halted.Err() == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w, ok := &wires{}, false
	if s.boundary.Needs(*spec).Network == boundary.Tap {
		if w.rewirer, ok = l.inst.(boundary.Rewirer); !ok {
			return nil, errFixed
		}
		return w, nil
	}
	if w.namespace, ok = l.inst.(boundary.NetNS); !ok {
		return nil, fmt.Errorf("%w: the boundary %s cannot join networks", workload.ErrUnsupported, spec.Boundary)
	}
	if _, fixed := l.inst.(boundary.Wired); fixed {
		return nil, errWired
	}
	return w, nil
}

// netns opens the namespace, nil where there is none on the host.
func (w *wires) netns() (*os.File, error) {
	if w == nil || w.namespace == nil {
		return nil, nil
	}
	ns, err := w.namespace.NetNS()
	if err != nil {
		return nil, fmt.Errorf("open the workload's network namespace: %w", err)
	}
	return ns, nil
}

// add makes what the last network of spec takes. On error something of it may be
// left.
func (s *supervisor) add(ctx context.Context, w *wires, spec *workload.Spec) (*attach.Attachment, error) {
	ns, err := w.netns()
	if err != nil {
		return nil, err
	}
	if ns != nil {
		defer ns.Close()
	}
	s.net.begun = true
	r := s.request(spec)
	r.Join = true
	got, err := attach.Start(ctx, *s.net.config, r)
	if err != nil {
		return nil, err
	}
	defer got.Close()
	defer func() {
		for _, f := range got.Taps {
			f.Close() // the machine has its own
		}
	}()
	state.Did("connect: network attached")
	if ns != nil {
		if err := got.Enter(ctx, ns); err != nil {
			return nil, err
		}
		state.Did("connect: network entered")
	}
	rewiring := boundary.Rewiring{Taps: got.Taps}
	if ns == nil {
		rewiring.Add = got.NICs[len(got.NICs)-1:]
	}
	return got, s.rewire(ctx, w, spec, &got.Prepared, rewiring)
}

// remove takes the workload out of a network, spec being without it and had what it
// has so far. With what it returns it is out; an error says then what the guest did
// not do. It may be called again.
func (s *supervisor) remove(ctx context.Context, w *wires, spec *workload.Spec, name string, had []workload.NIC) (*attach.Attachment, error) {
	ns, err := w.netns()
	if err != nil {
		return nil, err
	}
	if ns != nil {
		defer ns.Close()
	}
	r := s.request(spec)
	r.Part = name
	got, err := attach.Part(ctx, *s.net.config, r, ns)
	if err != nil {
		return nil, err
	}
	state.Did("disconnect: network left")
	s.net.more = append(s.net.more, got.Reserved...)
	if w == nil {
		return got, nil
	}
	var rewiring boundary.Rewiring
	if ns == nil {
		for _, n := range had {
			i := slices.IndexFunc(got.NICs, func(g workload.NIC) bool { return g.Network == n.Network })
			switch {
			case i < 0:
				rewiring.Remove = append(rewiring.Remove, n)
			case !slices.Equal(got.NICs[i].Gateways, n.Gateways):
				rewiring.Route = append(rewiring.Route, got.NICs[i])
			}
		}
	}
	if err := s.rewire(ctx, w, spec, &got.Prepared, rewiring); err != nil {
		return got, fmt.Errorf("it is out of the network, and not all of it has seen that: %w", err)
	}
	return got, nil
}

// rewire lets a workload see what it has of networks now.
func (s *supervisor) rewire(ctx context.Context, w *wires, spec *workload.Spec, p *network.Prepared, r boundary.Rewiring) error {
	texts, err := s.texts(spec, p)
	if err != nil {
		return err
	}
	r.Files = map[string]workload.FileEdit{}
	for target, text := range texts {
		r.Files[target] = workload.FileEdit{Old: s.net.texts[target], New: text, Lines: target == "/etc/hosts"}
	}
	if w.rewirer != nil {
		err = w.rewirer.Rewire(ctx, r)
	} else {
		for target, edit := range r.Files {
			if eerr := boundary.EditFile(s.start.State.Files[target], edit); eerr != nil {
				err = errors.Join(err, fmt.Errorf("change the workload's %s: %w", target, eerr))
			}
		}
	}
	if err == nil {
		s.net.texts = texts
		state.Did("connect: files changed")
	}
	return err
}

// keepNetworks records which networks the workload is in, and what it has there,
// nil for what it had.
func (s *supervisor) keepNetworks(networks []workload.Attachment, p *network.Prepared) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return workload.ErrNotRunning
	}
	nics, ports := s.state.NICs, s.state.Ports
	var err error
	if p != nil {
		s.state.NICs, s.state.Ports = p.NICs, p.Ports
		if err = s.write(); err == nil {
			// The end will have to be recorded, too, which is longer now.
			err = s.layout.Reserve(s.spec.ID, &s.state)
		}
	}
	if err == nil {
		err = s.layout.Change(s.spec.ID, func(c *state.Changes) { c.Networks = &networks })
	}
	if err != nil {
		s.state.NICs, s.state.Ports = nics, ports
		return errors.Join(err, s.write())
	}
	s.spec.Networks = networks
	return nil
}

// settleNetworks waits for a change of the networks of a life that has ended, and
// tells of its leaving them.
func (s *supervisor) settleNetworks() {
	s.net.wiring.Lock()
	defer s.net.wiring.Unlock()
	s.networksHappened("disconnect", s.snapshot().NICs)
}
