package main

import (
	"context"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/user"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The programs that networks need: the one that makes them, and the name server.
const (
	networkProgram = "bulkhead-network"
	dnsProgram     = "bulkhead-dns"
)

// networkFixes say what to do about errors of networks.
var networkFixes = []struct {
	err error
	fix string
}{
	{network.ErrNotFound, "`bulkhead network ls` lists the networks; make one with `bulkhead network create`"},
	{network.ErrAmbiguous, "give more digits of the ID, or the name"},
	{network.ErrExists, "choose another name; `bulkhead network rm` removes a network that was made"},
	{network.ErrOverlap, "choose another --subnet, or leave it out: a free one is found"},
	{network.ErrInUse, "stop or remove these workloads first; `bulkhead network inspect` lists them"},
	{network.ErrDefault, "leave it: it costs nothing while no workload is in it"},
	{network.ErrExhausted, "remove workloads that are not needed, or make a network with a larger --subnet"},
	{network.ErrAddressTaken, "choose another --ip, or leave it out; `bulkhead network inspect` lists those in use"},
	{network.ErrPortTaken, "publish another port of the host, such as -p 8081:80, or end what has this one; `ss -lntup` shows it"},
	{network.ErrDamaged, "remove it with `bulkhead network rm NAME`, and make it again; workloads find it by its name"},
	{network.ErrInvalid, "`bulkhead network inspect` shows what the network has; `bulkhead network create --help` what can be asked for"},
}

// networks are those of the chosen state. They are opened at their first use,
// as most commands use none.
type networks struct {
	a     *app
	open  func() (*bridge.Store, error)
	paths func() (attach.Config, error)
}

var _ engine.NetworkSource = (*networks)(nil)

func (a *app) networks() *networks {
	n := &networks{a: a}
	n.paths = sync.OnceValues(n.findPaths)
	n.open = sync.OnceValues(func() (*bridge.Store, error) {
		if err := mustBeRoot(); err != nil {
			return nil, err
		}
		c, err := n.paths()
		if err != nil {
			return nil, err
		}
		u := user.Options{CgroupParent: c.CgroupParent}
		return bridge.Open(c.Root, c.Run, bridge.Options{DNSProgram: c.DNSProgram, CgroupParent: c.CgroupParent, EndApart: u.Release, Warn: a.warn})
	})
	return n
}

func (n *networks) findPaths() (c attach.Config, err error) {
	c.CgroupParent = engine.DefaultCgroup
	if c.Root, c.Run, err = n.a.roots(); err != nil {
		return c, err
	}
	if c.Program, err = findProgram(networkProgram); err != nil {
		return c, err
	}
	c.DNSProgram, err = findProgram(dnsProgram)
	return c, err
}

// Attach says how supervisors get workloads into networks.
func (n *networks) Attach() (attach.Config, error) { return n.paths() }

// Get returns a network.
func (n *networks) Get(ctx context.Context, ref string) (*network.Network, error) {
	s, err := n.open()
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, ref)
}

// Rename has the name servers know a workload by the names in r.
func (n *networks) Rename(ctx context.Context, r network.Request) error {
	s, err := n.open()
	if err != nil {
		return err
	}
	return s.Rename(ctx, r)
}

// Release takes back what a workload has in networks.
func (n *networks) Release(ctx context.Context, id workload.ID) error {
	s, err := n.open()
	if err != nil {
		return err
	}
	return s.Release(ctx, id)
}

// Sweep releases what is left of workloads that are gone, and brings back rules that
// somebody flushed. Every command does this, so as long as nothing is left the names
// of files must do, and how many rules there are.
func (n *networks) Sweep(ctx context.Context, alive func(workload.ID) bool) error {
	root, run, err := n.a.roots()
	if err != nil {
		return err
	}
	left, err := bridge.Unswept(root, run, alive)
	if err != nil {
		return err
	}
	if !left {
		s, err := bridge.Open(root, run, bridge.Options{Warn: n.a.warn})
		if err != nil {
			return err
		}
		return s.SweepRules(ctx)
	}
	s, err := n.open()
	if err != nil {
		return err
	}
	return s.Sweep(ctx, alive)
}
