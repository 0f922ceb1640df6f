package resolve

import (
	"bytes"
	"fmt"
	"syscall"
)

// maxQuery is the longest message that is taken from a workload, in bytes.
const maxQuery = 4096

// serveUDP answers what comes in by one socket.
func (s *server) serveUDP(c *socket) error {
	buf := make([]byte, maxQuery)
	for {
		n, from, err := c.receive(buf)
		if err == syscall.ENOBUFS || err == syscall.ENOMEM { //nolint:errorlint // raw errno
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		l, err := s.who(address(from))
		if err != nil {
			return err
		}
		if l == nil || n > len(buf) {
			continue
		}
		q, answer := s.answer(buf[:n], l)
		switch {
		case q == nil:
		case answer != nil:
			c.send(q.fit(answer, q.size), from)
		default:
			s.forwardUDP(c, q, l, from)
		}
	}
}

// forwardUDP asks upstream without keeping anybody waiting.
func (s *server) forwardUDP(c *socket, q *query, l *lease, from syscall.Sockaddr) {
	done, ok := s.limits.wait(l.workload)
	if !ok {
		c.send(q.failure(rcodeServerFailure), from)
		return
	}
	q.question = bytes.Clone(q.question)
	go func() {
		defer done()
		c.send(q.fit(s.forward(q, l), q.size), from)
	}()
}
