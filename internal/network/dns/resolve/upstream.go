package resolve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
)

const (
	// allAttempts is less than the five seconds after which a C library asks again.
	allAttempts = 4500 * time.Millisecond
	oneAttempt  = 1500 * time.Millisecond
	// avoided is for how long a server that did not answer is asked last.
	avoided = 15 * time.Second
	// mostJunk is how many datagrams that are no answer are looked at: whoever
	// sends more, guesses.
	mostJunk = 16
	// mostSilent bounds what is kept in mind of servers that did not answer.
	mostSilent = 4096
)

// An upstream is one of the servers that are asked for a workload.
type upstream struct {
	workload string
	own      bool // one of the workload's own, not of the network's
	number   int
}

// A forwarder asks upstream servers.
type forwarder struct {
	dialer  *dial.Client
	servers int // how many the network has
	limits  *limits

	mu sync.Mutex
	// silent tells when a server did not answer a workload. It counts for nobody else:
	// who asks for what a server cannot find out would choose whom others are asked
	// for at, and of two servers only the first may know their names.
	silent map[upstream]time.Time
}

func newForwarder(dialer *dial.Client, servers int) *forwarder {
	return &forwarder{dialer: dialer, servers: servers, limits: newLimits(), silent: map[upstream]time.Time{}}
}

// of returns the servers that are asked for a workload, and the address by which
// the dialer knows them: the zero Addr for the network's.
func (f *forwarder) of(l *lease) (all []upstream, address netip.Addr) {
	n, own := f.servers, len(l.upstream) > 0 && f.dialer != nil
	if own {
		n, address = len(l.upstream), l.address
	}
	for i := range n {
		all = append(all, upstream{l.workload, own, i})
	}
	return all, address
}

// order has those of a workload's servers that lately did not answer it come last.
func (f *forwarder) order(all []upstream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := time.Now().Add(-avoided)
	slices.SortStableFunc(all, func(a, b upstream) int {
		switch x, y := f.silent[a].After(since), f.silent[b].After(since); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
}

// answered takes note of whether a server did.
func (f *forwarder) answered(s upstream, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if yes {
		delete(f.silent, s)
		return
	}
	now := time.Now()
	if len(f.silent) >= mostSilent {
		maps.DeleteFunc(f.silent, func(_ upstream, when time.Time) bool { return now.Sub(when) > avoided })
	}
	if len(f.silent) < mostSilent {
		f.silent[s] = now
	}
}

var (
	errTruncated = errors.New("the answer goes on over TCP")
	// errCase tells of an answer that does not repeat the case of the question.
	errCase     = errors.New("the case of the question is another")
	errNoAnswer = errors.New("no answer")
	// errNotAsked says nothing about the server.
	errNotAsked = errors.New("the server was not asked")
)

// ask returns the answer of the first server that has one, with the ID and the
// question of q, which a workload with the lease l asks. It takes no longer than
// allAttempts.
func (f *forwarder) ask(q *query, l *lease) ([]byte, error) {
	end := time.Now().Add(allAttempts)
	servers, address := f.of(l)
	f.order(servers)
	var last []byte
	for i := range 2 * len(servers) {
		if i == len(servers) && last != nil {
			break // all were asked, and one of them says that it does not know
		}
		until := time.Now().Add(oneAttempt)
		if until.After(end) || i == 2*len(servers)-1 {
			until = end
		}
		if !time.Now().Before(until) {
			break
		}
		s := servers[i%len(servers)]
		answer, err := f.try(address, s, q, until)
		if !errors.Is(err, errNotAsked) {
			f.answered(s, err == nil)
		}
		if err != nil {
			continue
		}
		if rcode := u16(answer, 2) & maskRCode; rcode == rcodeSuccess || rcode == rcodeNameError {
			return answer, nil
		}
		last = answer // another server may know more
	}
	if last == nil {
		return nil, errNoAnswer
	}
	return last, nil
}

// try asks one server, over UDP if that is enough.
func (f *forwarder) try(address netip.Addr, s upstream, q *query, until time.Time) ([]byte, error) {
	answer, err := f.udp(address, s, q, until, exactly)
	if !errors.Is(err, errTruncated) && !errors.Is(err, errCase) {
		return answer, err
	}
	full, serr := f.stream(address, s, q, until)
	if serr == nil {
		return full, nil
	}
	// A server that has no TCP, and says so, is asked again: whoever guessed that
	// answer has to guess another.
	if errors.Is(err, errCase) && errors.Is(serr, unix.ECONNREFUSED) {
		answer, serr = f.udp(address, s, q, until, exceptForCase)
	}
	if answer != nil {
		return answer, nil // or the beginning of it, marked as such
	}
	return nil, serr
}

// message is a question for a server: with the name as given, and the EDNS that
// the workload has, but none of its options.
func (q *query) message(id uint16, question []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(question)+optSize)
	binary.BigEndian.PutUint16(b, id)
	binary.BigEndian.PutUint16(b[2:], q.flags&(flagRecursion|flagUnverified|flagVerified))
	b[5] = 1
	return q.finish(append(b, question...), 0)
}

// shuffled returns the question with the case of its letters, and an ID, chosen
// at random.
func (q *query) shuffled() (id uint16, question []byte, err error) {
	random := make([]byte, 2+maxName/8+1)
	if n, err := unix.Getrandom(random, 0); err != nil || n != len(random) {
		return 0, nil, errors.Join(errNotAsked, errors.New("no random numbers"), err)
	}
	question = bytes.Clone(q.question)
	for i := range len(question) - 4 {
		if c := lower(question[i]); 'a' <= c && c <= 'z' { // a length is never a letter's code: it is at most 63
			question[i] = c ^ random[2+i/8]>>(i%8)&1<<5
		}
	}
	return u16(random, 0), question, nil
}

// dial returns a socket that is connected, or connecting, to a server. An error is
// about this machine, such as that it has no way there.
func (f *forwarder) dial(address netip.Addr, s upstream, tcp bool) (*os.File, error) {
	c, err := f.dialer.Dial(address, s.number, tcp)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotAsked, err)
	}
	return c, nil
}

// udp asks over UDP, and believes an answer whose question is at least as like. With
// errTruncated the answer is nil, or what there is of it.
func (f *forwarder) udp(address netip.Addr, s upstream, q *query, until time.Time, least likeness) ([]byte, error) {
	id, question, err := q.shuffled()
	if err != nil {
		return nil, err
	}
	c, err := f.dial(address, s, false)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(until); err != nil {
		return nil, err
	}
	if _, err := c.Write(q.message(id, question)); err != nil {
		return nil, err
	}
	conn, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	in := &socket{c, conn} // which takes an empty datagram for what it is, not for an end
	buf := make([]byte, ednsUDP+1)
	for range mostJunk {
		n, _, err := in.receive(buf)
		if err != nil {
			return nil, err
		}
		b := buf[:min(n, len(buf))]
		n = len(b)
		if n < headerSize || u16(b, 0) != id || u16(b, 2)&(flagResponse|maskOpcode) != flagResponse {
			continue
		}
		if n > ednsUDP {
			return nil, errTruncated // more than it was told to send
		}
		switch like := same(b, question); {
		case like >= least:
		case like == exceptForCase:
			return nil, errCase // it does not keep the case, or somebody guesses
		default:
			continue
		}
		answer, err := q.accept(b)
		if u16(b, 2)&flagTruncated != 0 {
			return answer, errTruncated
		}
		return answer, err
	}
	return nil, errTruncated
}

// stream asks over TCP.
func (f *forwarder) stream(address netip.Addr, s upstream, q *query, until time.Time) ([]byte, error) {
	done, ok := f.limits.stream(s.workload, until)
	if !ok {
		return nil, errNotAsked
	}
	defer done()
	id, _, err := q.shuffled()
	if err != nil {
		return nil, err
	}
	c, err := f.dial(address, s, true)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(until); err != nil {
		return nil, err
	}
	m := q.message(id, q.question)
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, u16(size[:], 0))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	if len(b) < headerSize || u16(b, 0) != id || u16(b, 2)&(flagResponse|maskOpcode) != flagResponse || same(b, q.question) == different {
		return nil, errMalformed
	}
	return q.accept(b)
}

type likeness int

const (
	different likeness = iota
	exceptForCase
	exactly
)

// same compares the question of an answer with the one that was asked.
func same(msg, question []byte) likeness {
	if u16(msg, 4) != 1 || len(msg) < headerSize+len(question) {
		return different
	}
	got := msg[headerSize:][:len(question)]
	if bytes.Equal(got, question) {
		return exactly
	}
	name := len(question) - 4 // the rest is type and class
	for i, c := range got {
		if c != question[i] && (i >= name || lower(c) != lower(question[i])) {
			return different
		}
	}
	return exceptForCase
}

// accept returns a sound message as the answer to q: all its records can be
// read, and it ends after them.
func (q *query) accept(msg []byte) ([]byte, error) {
	off := headerSize + len(q.question)
	for range int(u16(msg, 6)) + int(u16(msg, 8)) + int(u16(msg, 10)) {
		r, err := parseRecord(msg, off)
		if err != nil {
			return nil, err
		}
		off = r.end
	}
	msg = msg[:off]
	binary.BigEndian.PutUint16(msg, q.id)
	copy(msg[headerSize:], q.question)
	return msg, nil
}
