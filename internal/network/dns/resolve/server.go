package resolve

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
)

// Options say what a name server serves.
type Options struct {
	// Leases is the directory of leases.
	Leases string
	// Peers is a directory that has <network>/leases of each network; "" if the
	// others are not to be seen.
	Peers string
	// Network is the network's name, and the domain of its names.
	Network string
	// Public says that there is a top-level domain of the world with that name.
	Public bool
	// Subnets are the network's.
	Subnets []netip.Prefix
	// UDP and TCP are sockets that are bound and do not block; those of TCP listen.
	UDP, TCP []int
	// Dialer connects to the upstream servers; nil if there are none.
	Dialer *dial.Client
	// Upstream is the number of upstream servers.
	Upstream int
}

// server is a running name server.
type server struct {
	opt   Options
	table *table
	peers *peers
	*forwarder
}

// Serve answers until something happens that a name server cannot go on after,
// which it returns. It calls ready once it answers.
func Serve(o Options, ready func()) error {
	if o.Dialer == nil {
		o.Upstream = 0
	}
	t, err := openTable(o.Leases, o.Network, o.Subnets)
	if err != nil {
		return err
	}
	defer t.close()
	s := &server{opt: o, table: t, peers: &peers{root: o.Peers}, forwarder: newForwarder(o.Dialer, o.Upstream)}
	failed := make(chan error, len(o.UDP)+len(o.TCP))
	var sockets []*socket
	var wg sync.WaitGroup
	defer func() {
		for _, c := range sockets {
			c.file.Close()
		}
		wg.Wait()
		s.peers.close()
	}()
	start := func(fds []int, serve func(*socket) error) error {
		for _, fd := range fds {
			c, err := newSocket(fd)
			if err != nil {
				return fmt.Errorf("socket %d: %w", fd, err)
			}
			sockets = append(sockets, c)
			wg.Go(func() { failed <- serve(c) })
		}
		return nil
	}
	if err := start(o.UDP, s.serveUDP); err != nil {
		return err
	}
	if err := start(o.TCP, s.serveTCP); err != nil {
		return err
	}
	ready()
	return <-failed
}

// who returns the lease of an address, nil if it is not to be answered.
func (s *server) who(a netip.Addr) (*lease, error) {
	known := s.table.client(a)
	if known == nil && !s.limits.stranger() || known != nil && !s.limits.question(known.workload) {
		return nil, nil
	}
	return s.table.refresh(a)
}

// answer looks at one message of a workload. Without a query it is to be
// dropped; without an answer an upstream server has to be asked.
func (s *server) answer(msg []byte, from *lease) (*query, []byte) {
	q, rcode, err := parseQuery(msg)
	if err != nil {
		return nil, nil
	}
	if rcode != rcodeSuccess {
		return &q, q.failure(rcode)
	}
	answer, _ := s.local(&q, from)
	return &q, answer
}

// forward asks the upstream servers of a workload.
func (s *server) forward(q *query, from *lease) []byte {
	answer, err := s.ask(q, from)
	if err != nil {
		return q.failure(rcodeServerFailure)
	}
	return answer
}
