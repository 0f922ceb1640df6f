package dns_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	a    = dnsmessage.TypeA
	aaaa = dnsmessage.TypeAAAA
)

// question is a message that asks one thing.
func question(t testing.TB, name string, kind dnsmessage.Type, size int) []byte {
	t.Helper()
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: uint16(len(name)) << 4, RecursionDesired: true})
	if err := errors.Join(b.StartQuestions(), b.Question(dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET})); err != nil {
		t.Fatal(err)
	}
	if size > 0 {
		h := dnsmessage.ResourceHeader{}
		if err := errors.Join(b.StartAdditionals(), h.SetEDNS0(size, 0, false), b.OPTResource(h, dnsmessage.OPTResource{})); err != nil {
			t.Fatal(err)
		}
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// exchange sends a message and waits for an answer, as resolvers in C libraries
// do: it asks again when nothing comes.
func exchange(t testing.TB, c net.Conn, msg []byte) []byte {
	t.Helper()
	answer, err := tryExchange(c, msg, 5*time.Second, 4)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func tryExchange(c net.Conn, msg []byte, wait time.Duration, tries int) ([]byte, error) {
	_, stream := c.(*net.TCPConn)
	buf := make([]byte, 1<<16)
	var last error
	for range tries {
		if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		if stream {
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
				return nil, err
			}
			if _, err := io.ReadFull(c, buf[:2]); err != nil {
				return nil, err
			}
			n := binary.BigEndian.Uint16(buf)
			_, err := io.ReadFull(c, buf[:n])
			return buf[:n], err
		}
		if _, err := c.Write(msg); err != nil {
			return nil, err
		}
		n, err := c.Read(buf)
		if err == nil {
			return buf[:n], nil
		}
		if last = err; !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
	return nil, last
}

// reply is an answer, unpacked.
type reply struct {
	dnsmessage.Message
	size int
}

func parse(t testing.TB, b []byte) reply {
	t.Helper()
	r := reply{size: len(b)}
	if err := r.Unpack(b); err != nil {
		t.Fatalf("an answer that is none: %v\n%x", err, b)
	}
	return r
}

// ask asks over UDP from a workload's address.
func (p *place) ask(from, name string, kind dnsmessage.Type) reply {
	p.t.Helper()
	return p.askOver("udp", from, name, kind)
}

func (p *place) askOver(proto, from, name string, kind dnsmessage.Type) reply {
	p.t.Helper()
	c := p.dial(proto, from)
	defer c.Close()
	return parse(p.t, exchange(p.t, c, question(p.t, name, kind, 1232)))
}

// silent tells whether no answer comes to a message within a moment.
func (p *place) silent(proto, from string, msg []byte) bool {
	p.t.Helper()
	c := p.dial(proto, from)
	defer c.Close()
	_, err := tryExchange(c, msg, 300*time.Millisecond, 1)
	return err != nil
}

// addresses are those of an answer, sorted.
func (r reply) addresses() (all []string) {
	for _, a := range r.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			all = append(all, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			all = append(all, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			all = append(all, b.PTR.String())
		}
	}
	slices.Sort(all)
	return all
}
