package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Release takes back all that a workload has: interfaces, rules, addresses. It
// may be called again, and after any crash.
func (s *Store) Release(ctx context.Context, id workload.ID) error {
	rest, err := s.Leave(ctx, id)
	return errors.Join(err, rest(ctx))
}

// Leave is Release for who does not wait for all of it. When it returns, the
// workload's interfaces, rules, names and addresses are gone, and so is the name
// server of a network in which nobody is left, as far as anybody can ask it. rest,
// which is to be called at once, returns when its processes have ended and nothing
// is kept of it, and who is left has name servers again; until then others who change
// networks wait. If this process is killed before, Sweep ends what is to end.
func (s *Store) Leave(ctx context.Context, id workload.ID) (rest func(context.Context) error, err error) {
	rest = func(context.Context) error { return nil }
	if in, err := s.LeasesOf(id); err == nil && len(in) == 0 {
		if _, err := os.Lstat(filepath.Join(s.apart(), string(id))); errors.Is(err, os.ErrNotExist) {
			return rest, nil // the usual second call
		}
	}
	fail := func(err error) error {
		return fmt.Errorf("take workload %s out of its networks: %w", id.Short(), err)
	}
	// Before the lock, for which everybody would wait as long as its process takes.
	err = s.endApart(ctx, id)
	unlock, lerr := s.lock(ctx)
	if lerr != nil {
		return rest, fail(errors.Join(err, lerr))
	}
	if err == nil {
		err = s.reunite(ctx, id)
	}
	wait, lerr := s.leave(ctx, id)
	if err = errors.Join(err, lerr); err != nil {
		err = fail(err)
	}
	return func(ctx context.Context) error {
		defer unlock()
		if err := wait(ctx); err != nil {
			return fail(err)
		}
		return nil
	}, err
}

// release takes back what a workload has; the lock is held.
func (s *Store) release(ctx context.Context, id workload.ID) error {
	wait, err := s.leave(ctx, id)
	return errors.Join(err, wait(ctx))
}

// leave is release in two steps, as Leave is Release; the lock is held until the
// second is over. The order is that of package bridge's journal: what names an
// address goes before the address.
func (s *Store) leave(ctx context.Context, id workload.ID) (wait func(context.Context) error, err error) {
	wait = func(context.Context) error { return nil }
	leases, err := s.LeasesOf(id)
	if err != nil || len(leases) == 0 {
		return wait, err
	}
	return s.leaveBy(ctx, leases)
}

// takeBack takes back what one workload has by some of its leases.
func (s *Store) takeBack(ctx context.Context, leases []network.Lease) error {
	wait, err := s.leaveBy(ctx, leases)
	return errors.Join(err, wait(ctx))
}

// leaveBy is leave for some of a workload's leases, or all.
func (s *Store) leaveBy(ctx context.Context, leases []network.Lease) (wait func(context.Context) error, err error) {
	// These wait for the kernel: they may do so together. An interface that is there
	// without its rules sends nothing, see linkGroup.
	links := make(chan error, 1)
	go func() {
		removing := trace.Step(ctx, "interfaces removed")
		err := removeLinks(leases)
		removing.End()
		links <- err
	}()
	ending := trace.Step(ctx, "name server ended")
	wait, err = s.lastLeft(leases)
	ending.End()
	ruling := trace.Step(ctx, "rules removed")
	rerr := s.unrule(leases)
	ruling.End()
	if err = errors.Join(err, rerr, <-links); err != nil {
		return wait, err
	}
	var errs []error
	for _, l := range leases {
		errs = append(errs, s.give(l))
	}
	ended := wait
	return func(ctx context.Context) error {
		err := ended(ctx)
		s.keepServers(ctx, leases)
		return err
	}, errors.Join(errs...)
}

// keepServers makes sure that the networks of leases that were given back still have
// their name servers, where others are in them: a start that failed, or whose
// process was killed, may have ended one to start it anew. Where one does not start,
// whoever left has left all the same.
func (s *Store) keepServers(ctx context.Context, left []network.Lease) {
	if s.o.DNSProgram == "" {
		return
	}
	for _, l := range left {
		if _, err := dns.Find(s.server(l.Network)); !errors.Is(err, dns.ErrNotRunning) || s.deserted(l.Network) == nil {
			continue
		}
		n, err := s.read(l.Network)
		if err == nil {
			err = s.ensureServer(ctx, n)
		}
		if err != nil && s.o.Warn != nil {
			s.o.Warn(fmt.Sprintf("network %s has no name server: %v", l.Network, err))
		}
	}
}

// unrule removes the rules of a workload's leases, and what the kernel goes on to do
// by them: a client that sends datagrams all the time would otherwise never reach
// who has the port on the host next.
func (s *Store) unrule(leases []network.Lease) error {
	var es []element
	for _, l := range leases {
		es = append(es, leaseElements(l)...)
	}
	var err error
	broken := slices.ContainsFunc(leases, hollow)
	if !broken {
		err = s.t.remove(es)
	}
	if broken || errors.Is(err, os.ErrNotExist) {
		// Some are not known, or not there, and so none was removed: the rest, without
		// these.
		err = s.rebuildBut(leases)
	}
	if err != nil {
		return err
	}
	did("rules removed")
	for _, l := range leases {
		if hollow(l) || slices.ContainsFunc(l.Ports, func(p workload.Port) bool { return p.Protocol == "udp" }) {
			for _, a := range addresses(l.NIC) {
				err = errors.Join(err, forgetAddress(a))
			}
		}
	}
	return err
}

func removeLinks(leases []network.Lease) error {
	var errs []error
	for _, l := range leases {
		if l.NIC.Link != "" {
			errs = append(errs, deleteLink(l.NIC.Link))
			did("interface removed")
		}
	}
	return errors.Join(errs...)
}

// lastLeft kills the name servers of networks in which nobody is but the workload
// of these leases: nobody is left to ask them. wait returns when they have ended.
func (s *Store) lastLeft(leases []network.Lease) (wait func(context.Context) error, err error) {
	var waits []func(context.Context) error
	wait = func(ctx context.Context) error {
		var errs []error
		for _, w := range waits {
			errs = append(errs, w(ctx))
		}
		return errors.Join(errs...)
	}
	entries, err := os.ReadDir(s.members())
	if err != nil {
		return wait, err
	}
	var errs []error
	for _, l := range leases {
		if slices.ContainsFunc(entries, func(e os.DirEntry) bool {
			id, name, ok := memberName(e.Name())
			return ok && name == l.Network && id != l.Workload
		}) {
			continue
		}
		n, err := s.read(l.Network)
		if errors.Is(err, network.ErrNotFound) {
			continue
		}
		if err == nil {
			var w func(context.Context) error
			w, err = s.killServer(n)
			waits = append(waits, w)
		}
		errs = append(errs, err)
	}
	return wait, errors.Join(errs...)
}

// Rename has the name servers know a workload at once by the names that r has for it:
// by r.Name, and by what it is called beside that. A workload that is in no network
// is no error.
func (s *Store) Rename(ctx context.Context, r network.Request) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	leases, err := s.LeasesOf(r.ID)
	if err == nil {
		err = complete(leases)
	}
	if err != nil {
		return err
	}
	for _, l := range leases {
		var in workload.Attachment
		if i := slices.IndexFunc(r.Networks, func(a workload.Attachment) bool { return a.Network == l.Network }); i >= 0 {
			in = r.Networks[i]
		}
		l.Names = names(r, in)
		if err := s.retake(l); err != nil {
			return fmt.Errorf("rename workload %s in network %q: %w", r.ID.Short(), l.Network, err)
		}
	}
	return nil
}
