// Package dns starts, finds and stops the name server of a network.
//
//	workload ──UDP, TCP──> resolver ──ask──> dialer ──connect──> upstream
//	 (bridge)              │      <─socket──
//	                       └─ leases, read-only
//
// The name server is two processes of the program bulkhead-dns, both with user
// IDs of their own, in an empty root, without a capability, under an allow-list
// of system calls:
//
//   - the resolver (package resolve) parses what workloads and upstream servers
//     send. It is in a network namespace that has nothing in it, not even a
//     loopback that is up, and can neither make a socket nor connect one. It has
//     the sockets that workloads send to, made before in another namespace, and
//     sees the directory of leases.
//   - the dialer (package dial) is in the host's network namespace, as the
//     upstream server may be 127.0.0.53. It reads requests of 17 bytes at most from
//     the resolver and answers each with a new socket, connected to one of the
//     upstream servers that it was started with, or that a lease names, which it
//     reads itself. It never reads a packet and sees no file but the network's
//     leases, if those may name servers. A network without upstream servers, such
//     as an internal one, has none.
//
// So whoever takes over the resolver by a packet can talk to the network's
// workloads and to port 53 of the upstream servers, of the network and of its
// workloads, and to nobody else; this
// holds without a firewall rule, which somebody may flush.
//
// Both outlive the command that starts them. When the resolver ends, so does the
// dialer; without a dialer the resolver still knows the workloads. Whichever was
// killed, Ensure starts both anew: what they know is in the leases.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// IDs is how many user and group IDs a name server takes.
const IDs = 2

// Port is where a name server listens.
const Port = 53

// Config says what a name server is to do.
type Config struct {
	// Program is the path of bulkhead-dns, a static binary.
	Program string
	// Dir is a directory of the network's, where the record of the running name
	// server is kept: see Find. It exists.
	Dir string
	// LeaseDir holds the leases, one file for each address and named as it is
	// (network.Lease). Files come whole, by rename or link; one that cannot be
	// read is as if it were not there. Only who has a lease is answered. The name
	// server is a user like any other: the directory has mode 0755, files have
	// 0644, and it is a directory above that keeps others out.
	LeaseDir string
	// Peers is a directory with <network>/leases of all networks, LeaseDir among
	// them, all with mode 0755. With it a workload that is in several networks,
	// which its leases tell (network.Lease.Networks), is answered about all of them;
	// with "" about this one only.
	Peers string
	// Network is the network's name. What is known as web is known as
	// web.<Network>, too.
	Network string
	// Subnets are the network's. Who is asked for, and has no lease, does not
	// exist; the names of other addresses are asked upstream.
	Subnets []netip.Prefix
	// Listen are the addresses that it answers at, of the network's subnets. They
	// need not be there yet.
	Listen []netip.Addr
	// Device is the interface that they are of: what comes in by another is not
	// heard. "" hears all, which in a namespace of NetNS is the network.
	Device string
	// NetNS makes and opens the network namespace in which the listening sockets
	// are made; nil is the host's. The sockets keep the namespace, and with it the
	// interface by which it is in the network: so no rule of the host's firewall
	// stands between workloads and their name server, and no other server has its
	// port. Ensure calls it only when it starts a name server, after the one before
	// has ended, and closes what it returns. It is no part of what is compared.
	NetNS func() (*os.File, error) `json:"-"`
	// Upstream are the servers that know all other names, in the order of
	// preference, at most MaxUpstream. If there are none, as in an internal
	// network, other names do not exist, but for workloads with servers of their own.
	Upstream []netip.AddrPort
	// Own tells that leases may name servers of their workloads' own, which are asked
	// for those workloads in the place of Upstream (network.Lease.Upstream).
	Own bool
	// IDBase and the next are the host's user and group IDs that it runs as. No
	// other process has them. As all fields, they are the same each time: Ensure
	// takes anything else for a wish to start it anew.
	IDBase uint32
	// Cgroups are directories of cgroups that exist, one for each hierarchy, v1 or
	// v2. It is in them before it runs any code of its own. Without them it stays
	// in those of the caller, and ends with them.
	Cgroups []string
}

// MaxUpstream is how many upstream servers are used, as in resolv.conf(5).
const MaxUpstream = 3

// Process is a running name server.
type Process struct {
	// PID is the resolver's process ID.
	PID int
	// Dialer is the dialer's, 0 if there is none.
	Dialer int
}

// ErrNotRunning is the answer of Find where no name server runs.
var ErrNotRunning = errors.New("no name server runs")

// Ensure makes sure that a name server runs as cfg says: it leaves a running one
// alone, starts one where there is none, and replaces one that was started with
// another Config or another Program. It returns when the name server answers, or
// was started by somebody else who waits for that.
//
// The caller holds the network's lock, needs root, and is in the host's
// namespaces of mounts, networks and processes.
func Ensure(ctx context.Context, cfg Config) (Process, error) {
	p, answers, err := Begin(ctx, cfg)
	if err == nil {
		err = answers(ctx)
	}
	return p, err
}

// Begin is Ensure in two steps. When it returns, the name server has its sockets, in
// which questions wait for it, and outlives the caller. answers, which is to be called
// if there is no error, does the rest, for which nobody need hold the lock; with an
// error the name server has ended. That may be the work of somebody who has started
// another in its place.
func Begin(ctx context.Context, cfg Config) (p Process, answers func(context.Context) error, err error) {
	fail := func(err error) (Process, func(context.Context) error, error) {
		return Process{}, nil, cfg.failed(err)
	}
	if err := cfg.check(); err != nil {
		return fail(err)
	}
	print, err := cfg.fingerprint()
	if err != nil {
		return fail(err)
	}
	rec, err := readRecord(cfg.Dir)
	if err != nil {
		return fail(err)
	}
	if rec.Config == print {
		if p, err := rec.running(); err == nil {
			return p, func(context.Context) error { return nil }, nil
		}
	}
	if err := rec.end(ctx); err != nil {
		return fail(err)
	}
	p, answers, err = start(ctx, cfg, print)
	if err != nil {
		return fail(err)
	}
	return p, answers, nil
}

func (c Config) failed(err error) error {
	return fmt.Errorf("name server of network %s: %w", c.Network, err)
}

// Find returns the running name server that is recorded in dir, or
// ErrNotRunning. To be told of its end, open it by its PID as a pidfd.
func Find(dir string) (Process, error) {
	rec, err := readRecord(dir)
	if err != nil {
		return Process{}, err
	}
	return rec.running()
}

// Stop ends the name server that is recorded in dir, waits until it is gone, and
// removes the record. That none runs is no error. The caller holds the network's
// lock.
func Stop(ctx context.Context, dir string) error {
	wait, err := Kill(dir)
	return errors.Join(err, wait(ctx))
}

// Kill is Stop in two steps: it answers nobody any more when Kill returns. wait,
// which is to be called, does the rest; the kernel may take 30 ms to let go of what
// the name server watched.
func Kill(dir string) (wait func(context.Context) error, err error) {
	fail := func(err error) error { return fmt.Errorf("stop the name server in %s: %w", dir, err) }
	rec, err := readRecord(dir)
	if err != nil {
		return func(context.Context) error { return nil }, fail(err)
	}
	gone, failed := rec.kill()
	if failed != nil {
		failed = fail(failed)
	}
	return func(ctx context.Context) error {
		if err := gone(ctx); err != nil {
			return fail(err)
		}
		if failed != nil {
			return nil // the record stays
		}
		for _, name := range []string{recordName, newRecordName, logName} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}, failed
}
