package bridge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The name server of a network is started for the first workload in it and ended
// after the last. It is in the network as a workload is, by a port of the bridge:
//
//	bridge ── bhd… ═══ eth0 (.254, ::53), in a namespace that only its sockets keep
//
// Nothing of it is the host's: no rule for it on the way in, which another
// firewall would have to agree with, and no port 53 that another server may have.

// ensureServer makes sure that the network's name server answers; the lock is held.
func (s *Store) ensureServer(ctx context.Context, n *network.Network) error {
	answers, err := s.beginServer(ctx, n)
	if err == nil {
		err = answers(ctx)
	}
	return err
}

// beginServer is ensureServer up to the point where the lock is needed no more, see
// dns.Begin. answers is to be called if there is no error.
func (s *Store) beginServer(ctx context.Context, n *network.Network) (answers func(context.Context) error, err error) {
	addrs := nameservers(n)
	if s.o.DNSProgram == "" || len(addrs) == 0 {
		return func(context.Context) error { return nil }, nil
	}
	c := dns.Config{
		Program: s.o.DNSProgram, Dir: s.server(n.Name), LeaseDir: s.leases(n.Name), Peers: s.active(), Network: n.Name, Listen: addrs,
		NetNS: func() (*os.File, error) { return serverNamespace(n, s.t.group) },
	}
	for _, sub := range n.Subnets {
		c.Subnets = append(c.Subnets, sub.Prefix)
	}
	if !n.Internal {
		if c.Upstream, err = upstream(resolvConf); err != nil {
			return nil, err
		}
	}
	// An internal network has nobody who connects for it before a workload asks for
	// a server in it.
	c.Own = !n.Internal
	if n.Internal {
		in, err := s.membersOf(n.Name)
		if err != nil {
			return nil, err
		}
		c.Own = slices.ContainsFunc(in, func(l network.Lease) bool { return len(l.Upstream) > 0 })
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the name server's directory: %w", err)
	}
	if c.IDBase, err = s.serverIDs(n); err != nil {
		return nil, err
	}
	if c.Cgroups, err = s.serverCgroup(n); err != nil {
		return nil, err
	}
	_, answers, err = dns.Begin(ctx, c)
	if err != nil {
		return nil, err
	}
	did("name server started")
	return answers, nil
}

// stopServer ends the network's name server, if there is one.
func (s *Store) stopServer(ctx context.Context, n *network.Network) error {
	wait, err := s.killServer(n)
	return errors.Join(err, wait(ctx))
}

// killServer is stopServer up to the point where the name server answers nobody any
// more. wait, which is to be called, does the rest. What it leaves when this process
// is killed before, Sweep finds.
func (s *Store) killServer(n *network.Network) (wait func(context.Context) error, err error) {
	if _, err := os.Lstat(s.server(n.Name)); errors.Is(err, os.ErrNotExist) {
		return func(context.Context) error { return nil }, nil
	}
	gone, failed := dns.Kill(s.server(n.Name))
	did("name server killed")
	return func(ctx context.Context) error {
		err := gone(ctx)
		if err != nil || failed != nil {
			return err // the record stays
		}
		did("name server ended")
		return s.forgetServer(ctx, n)
	}, failed
}

// forgetServer removes what is kept of a name server that has ended.
func (s *Store) forgetServer(ctx context.Context, n *network.Network) error {
	// Its namespace goes with its last socket, a moment later, and would take the
	// interface along.
	err := deleteLink(serverLink(n.ID))
	if path := s.cgroupPath(n); path != "" {
		m, lerr := cgroup.Load(path, cgroup.Options{})
		if lerr == nil {
			lerr = m.Kill(ctx) // one whose record was lost with the run-time directory
		}
		if lerr == nil {
			lerr = m.Destroy(ctx)
		}
		if !errors.Is(lerr, os.ErrNotExist) {
			err = errors.Join(err, lerr)
		}
	}
	return errors.Join(err, os.RemoveAll(s.server(n.Name)))
}

// serverNamespace makes a network namespace that is in the network.
func serverNamespace(n *network.Network, group uint32) (*os.File, error) {
	ns, err := newNetNS()
	if err != nil {
		return nil, err
	}
	nic := workload.NIC{Name: "eth0", MTU: mtu(n)}
	for _, sub := range n.Subnets {
		if a := sub.Nameserver(); a.IsValid() {
			nic.Addresses = append(nic.Addresses, prefixAt(a, sub.Prefix))
		}
	}
	err = makeVeth(n.Bridge, serverLink(n.ID), nic.Name, serverMAC(n.ID), nic.MTU, ns, group)
	if err == nil {
		err = configureIn(ns, []workload.NIC{nic}, false)
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// newNetNS makes a network namespace that its descriptor alone keeps.
func newNetNS() (*os.File, error) {
	type made struct {
		f   *os.File
		err error
	}
	c := make(chan made)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			c <- made{nil, os.NewSyscallError("unshare", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		c <- made{f, err}
	}()
	m := <-c
	return m.f, m.err
}

// serverIDs returns the first of the user IDs that the network's name server has.
// They stay the network's until it is removed.
func (s *Store) serverIDs(n *network.Network) (uint32, error) {
	fail := func(err error) (uint32, error) {
		return 0, fmt.Errorf("user IDs for the name server of network %q: %w", n.Name, err)
	}
	var base uint32
	pool := s.ids()
	err := readJSON(s.idFile(n.Name), &base)
	if err == nil && base != 0 {
		if err = pool.Claim(base); err == nil {
			return base, nil
		}
		if !errors.Is(err, idrange.ErrTaken) {
			return fail(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.root, "idrange"), 0o700); err != nil {
		return fail(err)
	}
	// One that a command took and did not live to write down, or that another root has.
	if err := pool.ReleaseOwner(network.IDOwner + n.Name); err != nil {
		return fail(err)
	}
	r, err := pool.Allocate(network.IDOwner+n.Name, func(string) bool { return true })
	if err != nil {
		return fail(err)
	}
	b, err := json.Marshal(r.Base)
	if err == nil {
		err = replace(s.idFile(n.Name), b)
	}
	if err != nil {
		return fail(errors.Join(err, pool.Release(r.Base, network.IDOwner+n.Name)))
	}
	return r.Base, nil
}

// machineIDs records which ranges any state root of this machine has handed out.
const machineIDs = "/run/bulkhead/idrange"

func (s *Store) ids() *idrange.Pool {
	return idrange.Open(filepath.Join(s.root, "idrange"), "/etc").Among(machineIDs)
}

func (s *Store) idFile(name string) string { return filepath.Join(s.networks(), name+".ids") }

// freeIDs gives back what serverIDs took.
func (s *Store) freeIDs(name string) error {
	err := s.ids().ReleaseOwner(network.IDOwner + name) // also what was never written down
	return errors.Join(ignoreMissing(err), ignoreMissing(os.Remove(s.idFile(name))))
}

func (s *Store) cgroupPath(n *network.Network) string {
	if s.o.CgroupParent == "" {
		return ""
	}
	return s.o.CgroupParent + "/network-" + n.ID[:12]
}

// What a name server may use, where the machine has the controllers: it reads what
// anybody in the network sends.
const (
	serverMemory = 128 << 20
	serverTasks  = 128
)

// serverCgroup makes sure that the name server's cgroup exists and returns its
// directories.
func (s *Store) serverCgroup(n *network.Network) ([]string, error) {
	path := s.cgroupPath(n)
	if path == "" {
		return nil, nil
	}
	fail := func(err error) ([]string, error) {
		return nil, fmt.Errorf("cgroup of the name server of network %q: %w", n.Name, err)
	}
	m, err := cgroup.Load(path, cgroup.Options{})
	if errors.Is(err, os.ErrNotExist) {
		f, ferr := cgroup.Probe(cgroup.Options{})
		if ferr != nil {
			return fail(ferr)
		}
		if m, err = cgroup.New(path, f.Helper(serverMemory, serverTasks), cgroup.Options{}); err == nil {
			err = m.Create()
		}
	}
	if err != nil {
		return fail(err)
	}
	return slices.Sorted(maps.Values(m.Paths())), nil
}

// maxResolvConf bounds what is read of the file, in bytes.
const maxResolvConf = 64 << 10

var resolvConf = "/etc/resolv.conf" // tests have another

// upstream returns the name servers that the host asks (resolv.conf(5)).
func upstream(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return parseUpstream(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the host's name servers: %w", err)
	}
	defer f.Close()
	return parseUpstream(io.LimitReader(f, maxResolvConf)), nil
}

func parseUpstream(r io.Reader) (out []netip.AddrPort) {
	for lines := bufio.NewScanner(r); lines.Scan() && len(out) < dns.MaxUpstream; {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err == nil && a.Zone() != "" {
			a, err = numberedZone(a)
		}
		if err != nil || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			continue
		}
		if p := netip.AddrPortFrom(a, dns.Port); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 { // as the C library does, which asks the machine itself
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dns.Port))
	}
	return out
}

// numberedZone puts the number of an interface in the place of its name, which the
// dialer cannot look up.
func numberedZone(a netip.Addr) (netip.Addr, error) {
	n, err := strconv.ParseUint(a.Zone(), 10, 31)
	if err != nil {
		i, err := net.InterfaceByName(a.Zone())
		if err != nil {
			return a, err
		}
		n = uint64(i.Index)
	}
	return a.WithZone(strconv.FormatUint(n, 10)), nil
}
