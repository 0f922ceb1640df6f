package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// idle is for how long a connection may say nothing (RFC 7766 section 6.2.3
	// asks for a few seconds), and for how long it may not take an answer.
	idle = 10 * time.Second
	// mostTCPAnswer is the longest message over TCP.
	mostTCPAnswer = 1<<16 - 1
)

// passing are the errors of accept(2) that are about one connection, or about
// now.
var passing = map[unix.Errno]bool{
	unix.ECONNABORTED: true, unix.EINTR: true, unix.EPERM: true, unix.EPROTO: true, unix.ENOPROTOOPT: true, unix.EOPNOTSUPP: true,
	unix.ENETDOWN: true, unix.ENETUNREACH: true, unix.EHOSTDOWN: true, unix.EHOSTUNREACH: true, unix.ENONET: true,
	unix.EMFILE: true, unix.ENFILE: true, unix.ENOMEM: true, unix.ENOBUFS: true,
}

// serveTCP accepts connections of one listener.
func (s *server) serveTCP(l *socket) error {
	for {
		c, from, err := l.accept()
		if err != nil {
			var e unix.Errno
			if !errors.As(err, &e) || !passing[e] {
				return fmt.Errorf("accept: %w", err)
			}
			if e == unix.EMFILE || e == unix.ENFILE || e == unix.ENOMEM || e == unix.ENOBUFS {
				time.Sleep(50 * time.Millisecond) // until others are done
			}
			continue
		}
		client, err := s.who(address(from))
		if err != nil {
			c.Close()
			return err
		}
		done, ok := func() {}, false
		if client != nil {
			done, ok = s.limits.connect(client.workload)
		}
		if !ok {
			c.Close()
			continue
		}
		go func() {
			defer done()
			defer c.Close()
			s.converse(c, from)
		}()
	}
}

// converse answers the questions of a connection, one after the other.
func (s *server) converse(c *os.File, from syscall.Sockaddr) {
	a := address(from)
	buf := make([]byte, maxQuery)
	for {
		if c.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(u16(size[:], 0))
		if n > len(buf) {
			return
		}
		if _, err := io.ReadFull(c, buf[:n]); err != nil {
			return
		}
		// Whoever has the address now may be another than at the beginning.
		client, err := s.who(a)
		if err != nil || client == nil {
			return
		}
		q, answer := s.answer(buf[:n], client)
		if q == nil {
			return
		}
		if answer == nil {
			if done, ok := s.limits.wait(client.workload); ok {
				answer = s.forward(q, client)
				done()
			} else {
				answer = q.failure(rcodeServerFailure)
			}
		}
		answer = q.fit(answer, mostTCPAnswer)
		if c.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
