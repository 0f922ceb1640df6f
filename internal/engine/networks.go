package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// NetworkSource knows the networks that workloads can join. What package bridge
// opens implements it.
type NetworkSource interface {
	// Get returns a network by its name, its ID or the beginning of one. The error
	// wraps network.ErrNotFound or ErrAmbiguous.
	Get(ctx context.Context, ref string) (*network.Network, error)
	// Rename makes a workload's names in its networks those of r: Name, Hostname and
	// the aliases in Networks. One that is in no network is no error.
	Rename(ctx context.Context, r network.Request) error
	// Release takes back what a workload has in networks: interfaces, addresses,
	// rules, names. It may be called again, and after any crash.
	Release(ctx context.Context, id workload.ID) error
	// Sweep releases every workload that alive does not return true for.
	Sweep(ctx context.Context, alive func(workload.ID) bool) error
	// Attach says how a supervisor gets its workload into networks.
	Attach() (attach.Config, error)
}

// checkNetworks makes sure that the networks of a new workload exist and can be
// what it asks for, as far as that can be told before it starts, and puts their
// names in the place of IDs.
func (e *Engine) checkNetworks(ctx context.Context, s *workload.Spec) error {
	switch s.Network {
	case workload.NetworkNone, workload.NetworkHost, "":
		return nil
	case workload.NetworkBridge, workload.NetworkUser:
	default:
		return fmt.Errorf("%w: network mode %q", workload.ErrUnsupported, s.Network)
	}
	if e.cfg.Networks == nil {
		return fmt.Errorf("%w: networks", workload.ErrUnsupported)
	}
	if _, err := e.cfg.Networks.Attach(); err != nil {
		return err
	}
	if s.Network == workload.NetworkUser {
		return checkUser(s)
	}
	s.Networks = slices.Clone(s.Networks)
	internal := true
	for i := range s.Networks {
		a := &s.Networks[i]
		n, err := e.checkAttachment(ctx, a)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(s.Networks[:i], func(b workload.Attachment) bool { return b.Network == n.Name }) {
			return fmt.Errorf("%w: network %s is asked for twice", network.ErrInvalid, n.Name)
		}
		internal = internal && n.Internal
	}
	if internal && len(s.Ports) > 0 {
		return fmt.Errorf("%w: ports are published, and every network of the workload is internal", network.ErrInvalid)
	}
	return nil
}

// checkAttachment makes sure that a network can give what is asked for, and puts
// its name in the place of an ID.
func (e *Engine) checkAttachment(ctx context.Context, a *workload.Attachment) (*network.Network, error) {
	n, err := e.cfg.Networks.Get(ctx, a.Network)
	if err != nil {
		return nil, err
	}
	a.Network = n.Name
	for _, addr := range []netip.Addr{a.IPv4, a.IPv6} {
		if addr.IsValid() && !slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool { return s.Prefix.Contains(addr) }) {
			return nil, fmt.Errorf("%w: address %s is in no subnet of network %s", network.ErrInvalid, addr, n.Name)
		}
	}
	return n, nil
}

// checkUser refuses what the user network cannot be, before anything is made.
func checkUser(s *workload.Spec) error {
	switch {
	case s.Namespaces.HostUser:
		return fmt.Errorf("%w: the user network with the host's user namespace, in which its process would have the host's privileges", workload.ErrUnsupported)
	case slices.ContainsFunc(s.ExtraHosts, func(h workload.HostEntry) bool { return !h.Addr.IsValid() }):
		return fmt.Errorf("%w: an address of the host (host-gateway) in the user network, in which the host has none", workload.ErrUnsupported)
	}
	return nil
}

// joins tells whether a workload is in a network that somebody makes.
func joins(s *workload.Spec) bool {
	return s.Network == workload.NetworkBridge || s.Network == workload.NetworkUser
}

// attachConfig is what a supervisor must know of networks, nil if it joins none.
func (e *Engine) attachConfig(s *workload.Spec) (*attach.Config, error) {
	if !joins(s) {
		return nil, nil
	}
	if e.cfg.Networks == nil {
		return nil, fmt.Errorf("%w: networks", workload.ErrUnsupported)
	}
	c, err := e.cfg.Networks.Attach()
	return &c, err
}

// releaseNetworks takes back what a dead supervisor's workload has in networks.
func (e *Engine) releaseNetworks(ctx context.Context, s *workload.Spec) error {
	if !joins(s) || e.cfg.Networks == nil {
		return nil
	}
	return e.cfg.Networks.Release(ctx, s.ID)
}

// sweepNetworks releases what processes that were killed left of workloads that
// are not active any more. In a network is only who has a run-time directory, which is
// made before and removed after.
func (e *Engine) sweepNetworks(ctx context.Context) error {
	if e.cfg.Networks == nil {
		return nil
	}
	return e.cfg.Networks.Sweep(ctx, func(id workload.ID) bool {
		_, err := os.Lstat(e.layout.RunDir(id))
		return !errors.Is(err, os.ErrNotExist)
	})
}
