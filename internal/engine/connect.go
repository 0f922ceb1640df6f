package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxNetworks is how many networks one workload can be in.
const maxNetworks = 16

// Connect puts a workload into one more network: at once if it runs, which a
// machine of its own cannot, else at its next start. The error wraps
// network.ErrNotFound, ErrInvalid, ErrAddressTaken or ErrExhausted, or
// workload.ErrUnsupported, among others; the workload then stays as it was.
func (e *Engine) Connect(ctx context.Context, ref string, a workload.Attachment) error {
	fail := func(err error) error { return about(fmt.Sprintf("connect network %s to", a.Network), ref, err) }
	s, err := e.joinable(ref)
	if err == nil && len(s.Networks) >= maxNetworks {
		err = network.Invalidf("it is in %d networks, and %d is the most", len(s.Networks), maxNetworks)
	}
	if err == nil {
		_, err = e.checkAttachment(ctx, &a)
	}
	if err != nil {
		return fail(err)
	}
	req := &wire.Request{Op: wire.OpConnect, Network: &a}
	reply, err := e.change(ctx, s.ID, req, func(s *workload.Spec) error {
		if in(s, a.Network) >= 0 {
			return network.Invalidf("it is in network %s already", a.Network)
		}
		return e.keepNetworks(s, append(slices.Clone(s.Networks), a))
	})
	if err != nil {
		return fail(err)
	}
	if reply != nil {
		for _, w := range reply.Warnings {
			e.cfg.Warn(w)
		}
	}
	return nil
}

// Disconnect takes a workload out of a network, which need not exist any more: at
// once if it runs, which a machine of its own cannot, else at its next start. Ports
// that the network publishes are published by the next one that has a way out;
// without one they are in the way, and the error wraps network.ErrInvalid. force
// takes a workload that does not exist, or is not in the network, for one that has
// left it.
func (e *Engine) Disconnect(ctx context.Context, ref, name string, force bool) error {
	fail := func(err error) error { return about(fmt.Sprintf("disconnect network %s from", name), ref, err) }
	s, err := e.joinable(ref)
	if force && errors.Is(err, workload.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fail(err)
	}
	n, err := e.cfg.Networks.Get(ctx, name)
	switch {
	case err == nil:
		name = n.Name
	case !errors.Is(err, network.ErrNotFound):
		return fail(err)
	}
	switch i := in(s, name); {
	case i < 0 && force:
		return nil
	case i < 0 && err != nil:
		return fail(err)
	}
	req := &wire.Request{Op: wire.OpDisconnect, Network: &workload.Attachment{Network: name}}
	_, err = e.change(ctx, s.ID, req, func(s *workload.Spec) error {
		i := in(s, name)
		if i < 0 {
			return network.Invalidf("it is not in network %s", name)
		}
		rest := slices.Delete(slices.Clone(s.Networks), i, i+1)
		if err := e.checkPorts(ctx, s, rest); err != nil {
			return err
		}
		return e.keepNetworks(s, rest)
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// in is the place of a network among those of a workload, -1 for none.
func in(s *workload.Spec, name string) int {
	return slices.IndexFunc(s.Networks, func(a workload.Attachment) bool { return a.Network == name })
}

// joinable returns a workload that is in networks of the engine, or can be.
func (e *Engine) joinable(ref string) (*workload.Spec, error) {
	id, err := e.layout.Find(ref)
	if err != nil {
		return nil, err
	}
	s, err := e.layout.ReadSpec(id)
	switch {
	case err != nil:
		return nil, err
	case s.VM.Machine:
		return nil, workload.ErrNotFound
	case s.Network != workload.NetworkBridge:
		return nil, fmt.Errorf("%w: its network is %q, beside which there is no other", workload.ErrUnsupported, s.Network)
	case e.cfg.Networks == nil:
		return nil, fmt.Errorf("%w: networks", workload.ErrUnsupported)
	}
	return s, nil
}

// checkPorts makes sure that the ports of a workload can be published by the first of
// rest that has a way out, which is the one that publishes them.
func (e *Engine) checkPorts(ctx context.Context, s *workload.Spec, rest []workload.Attachment) error {
	if len(s.Ports) == 0 {
		return nil
	}
	for _, a := range rest {
		n, err := e.cfg.Networks.Get(ctx, a.Network)
		if err != nil && !errors.Is(err, network.ErrNotFound) {
			return err
		}
		if err == nil && !n.Internal {
			return publishes(n, s.Ports)
		}
	}
	return network.Invalidf("ports are published by it, and the workload is in no other network that has a way out")
}

// publishes returns an error if a network has no subnet of the family that one of the
// ports is published on.
func publishes(n *network.Network, ports []workload.Port) error {
	for _, p := range ports {
		if !p.HostIP.IsValid() || slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool { return s.Prefix.Addr().Is4() == p.HostIP.Is4() }) {
			continue
		}
		family := "IPv6"
		if p.HostIP.Is4() {
			family = "IPv4"
		}
		return network.Invalidf("network %s has no %s, so that it cannot publish port %d on %s", n.Name, family, p.Port, p.HostIP)
	}
	return nil
}

// keepNetworks records the networks of a workload that does not run.
func (e *Engine) keepNetworks(s *workload.Spec, networks []workload.Attachment) error {
	return e.layout.Change(s.ID, func(c *state.Changes) { c.Networks = &networks })
}
