package dns_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	first  = "127.0.0.53:53"
	second = "127.0.0.54:53"
	third  = "[::1]:53"
)

func ports(all ...string) (out []netip.AddrPort) {
	for _, a := range all {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

// TestUpstreamLies asks for names whose server does not do what it should.
func TestUpstreamLies(t *testing.T) {
	p := populated(t)
	f := newFake(t, first)
	p.start(ports(first)...)
	const ok, failure = dnsmessage.RCodeSuccess, dnsmessage.RCodeServerFailure
	var wg sync.WaitGroup
	for _, c := range []struct {
		name string
		code dnsmessage.RCode
		tcp  bool // it has to be asked over TCP
	}{
		{"fine", ok, false},
		{"wrongid", ok, false},
		{"wrongtype", ok, false},
		{"query", ok, false},
		{"empty", ok, false},
		{"garbage", ok, false},
		{"lowercase", ok, true},
		{"guess", ok, true},
		{"wrongonly", failure, false},
		{"wrongquestion", failure, false},
		{"loop", failure, false},
		{"cut", failure, false},
		{"claims", failure, false},
		{"silent", failure, false},
		{"nothing", dnsmessage.RCodeNameError, false},
		{"broken", failure, false},
		{"refused", dnsmessage.RCodeRefused, false},
	} {
		conn := p.dial("udp", db4)
		wg.Go(func() {
			name := c.name + ".example"
			b, err := tryExchange(conn, question(t, name, a, 0), 20*time.Second, 1)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			got := parse(t, b)
			want := []string(nil)
			if c.code == ok {
				want = []string{"192.0.2.1"}
			}
			if got.RCode != c.code || !slices.Equal(got.addresses(), want) || got.Questions[0].Name.String() != name+"." {
				t.Errorf("%s: %v %v %v", name, got.RCode, got.addresses(), got.Questions)
			}
			if tcp := slices.ContainsFunc(f.about(name), func(a asked) bool { return a.tcp }); tcp != c.tcp {
				t.Errorf("%s was asked over TCP: %t", name, tcp)
			}
		})
	}
	wg.Wait()
}

// TestServerWithoutTCP has a server that refuses TCP. Where it does not keep the case
// of a question, it is asked once more; where somebody guesses, nothing is believed.
func TestServerWithoutTCP(t *testing.T) {
	p := populated(t)
	f := newFake(t, first)
	f.refuseTCP()
	p.start(ports(first)...)
	const ok, failure = dnsmessage.RCodeSuccess, dnsmessage.RCodeServerFailure
	for _, c := range []struct {
		name  string
		code  dnsmessage.RCode
		asked int // in each of two attempts, if the first fails
	}{{"fine", ok, 1}, {"lowercase", ok, 2}, {"lowercasecut", failure, 4}, {"guess", failure, 2}, {"big", ok, 1}} {
		b, err := tryExchange(p.dial("udp", db4), question(t, c.name+".example", a, 0), 20*time.Second, 1)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := parse(t, b); got.RCode != c.code || (len(got.addresses()) > 0) != (c.code == ok) {
			t.Errorf("%s: %v %v", c.name, got.RCode, got.addresses())
		}
		if n := len(f.about(c.name + ".example")); n != c.asked {
			t.Errorf("%s: asked %d times, want %d", c.name, n, c.asked)
		}
	}
}

// TestTruncation asks for what does not fit into a datagram.
func TestTruncation(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	p.start(ports(first)...)
	ask := func(name, proto string, size int) reply {
		t.Helper()
		b, err := tryExchange(p.dial(proto, db4), question(t, name+".example", a, size), 20*time.Second, 1)
		if err != nil {
			t.Fatal(name, err)
		}
		return parse(t, b)
	}
	for _, c := range []struct {
		name, proto string
		size        int
		answers     int
		truncated   bool
	}{
		{"big", "udp", 0, 30, true},
		{"big", "udp", 1232, 74, true},
		{"big", "udp", 4096, 74, true},
		{"big", "tcp", 0, 300, false},
		{"bigudp", "tcp", 0, 300, false},
		{"huge", "tcp", 4096, 4000, false},
		{"huge", "udp", 4096, 74, true},
		// Nothing comes over TCP: what came before is passed on, with the mark.
		{"tcpcut", "udp", 0, 1, true},
		{"tcpid", "udp", 0, 1, true},
		{"tcpquestion", "udp", 0, 1, true},
		{"tcpslow", "udp", 0, 1, true},
	} {
		// An upstream server has a second and a half for its answer. This one is the
		// test: on an emulated machine that is busy, it may be too late for once.
		const tries = 5
		got := ask(c.name, c.proto, c.size)
		for n := 1; n < tries && got.Truncated && !c.truncated; n++ {
			got = ask(c.name, c.proto, c.size)
		}
		if got.Truncated != c.truncated || len(got.Answers) != c.answers || got.RCode != 0 {
			t.Errorf("%s over %s with EDNS %d: %v, truncated %t, %d answers in %d bytes", c.name, c.proto, c.size, got.RCode, got.Truncated, len(got.Answers), got.size)
		}
		if most := max(512, min(c.size, 1232)); c.proto == "udp" && got.size > most {
			t.Errorf("%s: %d bytes, more than %d", c.name, got.size, most)
		}
		if edns := len(got.Additionals) == 1; edns != (c.size > 0) && c.truncated {
			t.Errorf("%s: EDNS in the answer: %v", c.name, got.Additionals)
		}
	}
}

// TestQuestionsUpstream looks at what an upstream server is sent.
func TestQuestionsUpstream(t *testing.T) {
	p := populated(t)
	f := newFake(t, first)
	p.start(ports(first)...)
	const asks = 60
	const name = "a-rather-long-name-of-many-letters.example"
	ports, ids, cases := map[uint16]bool{}, map[uint16]bool{}, map[string]bool{}
	conn := p.dial("udp", db4)
	for range asks {
		if got := parse(t, exchange(t, conn, question(t, name, a, 0))); got.Questions[0].Name.String() != name+"." || got.Answers[0].Header.Name.String() != name+"." {
			t.Fatalf("the case that was asked in is not the answer's: %v", got)
		}
	}
	for _, a := range f.about(name) {
		ports[a.from.Port()], ids[a.ID], cases[a.Questions[0].Name.String()] = true, true, true
		if a.Response || !a.RecursionDesired || len(a.Additionals) != 0 || a.from.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Fatalf("asked %+v %v from %v", a.Header, a.Additionals, a.from)
		}
	}
	if len(ports) < asks-3 || len(ids) < asks-3 || len(cases) < asks-3 {
		t.Errorf("in %d questions: %d ports, %d IDs, %d spellings", asks, len(ports), len(ids), len(cases))
	}
	// A workload's EDNS options, such as a cookie or its own network, stay here.
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true, CheckingDisabled: true})
	b.StartQuestions()
	b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName("edns.example."), Type: a, Class: dnsmessage.ClassINET})
	b.StartAdditionals()
	h := dnsmessage.ResourceHeader{}
	h.SetEDNS0(4096, 0, true)
	b.OPTResource(h, dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 8, Data: []byte("\x00\x01\x20\x00\x0a\x4d\x80\x03")}, {Code: 10, Data: []byte("cookie--")}}})
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn, msg)
	got := f.last()
	opt, ok := got.Additionals[0].Body.(*dnsmessage.OPTResource)
	if !ok || len(opt.Options) != 0 || len(got.Additionals) != 1 || !got.CheckingDisabled || !got.Additionals[0].Header.DNSSECAllowed() || got.Additionals[0].Header.Class != 1232 {
		t.Errorf("asked with EDNS: %+v %+v", got.Header, got.Additionals)
	}
}

// TestPrivateNames asks for what nobody outside is to hear of.
func TestPrivateNames(t *testing.T) {
	p := populated(t)
	f := newFake(t, first)
	p.start(ports(first)...)
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		out  bool
	}{
		{"web", dnsmessage.TypeMX, false},
		{"nobody", a, false},
		{"nobody", dnsmessage.TypeMX, false},
		{"nobody.lab", a, false},
		{"x.web.lab", a, false},
		{"9.128.77.10.in-addr.arpa", dnsmessage.TypePTR, false},
		{"localhost", aaaa, false},
		{"www.shop.example", dnsmessage.TypeMX, false},
		{"com", dnsmessage.TypeNS, true},
		{"com", a, false},
		{".", dnsmessage.TypeNS, true},
		{"web.example", a, true},
		{"web.other", a, true}, // another network's domain is nothing to this one
		{"1.2.3.4.in-addr.arpa", dnsmessage.TypePTR, true},
		{"slab", dnsmessage.TypeSOA, true},
	} {
		before := len(f.about(strings.TrimSuffix(c.name, ".")))
		p.ask(db4, c.name, c.kind)
		if out := len(f.about(strings.TrimSuffix(c.name, "."))) > before; out != c.out {
			t.Errorf("%s %v was asked upstream: %t", c.name, c.kind, out)
		}
	}
}

// TestNetworkLikeATopLevelDomain has a network that is called as a part of the
// world is.
func TestNetworkLikeATopLevelDomain(t *testing.T) {
	p := newPlace(t)
	p.cfg.Network = "Dev"
	p.lease(db4, "w2", "db")
	newFake(t, first)
	p.start(ports(first)...)
	if got := p.ask(db4, "db.dev", a).addresses(); !slices.Equal(got, []string{db4}) {
		t.Errorf("a workload: %v", got)
	}
	if got := p.ask(db4, "go.dev", a).addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("a name of the world: %v", got)
	}
}

func TestSeveralServers(t *testing.T) {
	p := populated(t)
	one, two := newFake(t, first), newFake(t, third)
	p.start(ports(first, second, third)...) // nobody is at the second
	for _, name := range []string{"silent.example", "broken.example", "refused.example"} {
		c := p.dial("udp", db4)
		b, err := tryExchange(c, question(t, name, a, 0), 20*time.Second, 1)
		if err != nil {
			t.Fatal(name, err)
		}
		if len(one.about(name)) == 0 || len(two.about(name)) == 0 {
			t.Errorf("%s: the first was asked %d times, the third %d times", name, len(one.about(name)), len(two.about(name)))
		}
		parse(t, b)
	}
}

// TestDeadServerIsAskedLast has the first of two servers say nothing.
func TestDeadServerIsAskedLast(t *testing.T) {
	p := populated(t)
	dead, err := listenSilently(t, second)
	if err != nil {
		t.Fatal(err)
	}
	newFake(t, first)
	p.start(ports(second, first)...)
	c := p.dial("udp", db4)
	for i := range 30 {
		if got := parse(t, exchange(t, c, question(t, fmt.Sprintf("n%d.example", i), a, 0))).addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
			t.Fatalf("question %d: %v", i, got)
		}
	}
	if n := dead(); n < 1 || n > 3 {
		t.Errorf("the dead server was asked %d times", n)
	}
}

// TestSilenceIsOnesOwn has a workload ask for what the first server does not answer:
// others are asked for at that one as before.
func TestSilenceIsOnesOwn(t *testing.T) {
	p := populated(t)
	one, two := newFake(t, first), newFake(t, third)
	p.start(ports(first, third)...)
	if b, err := tryExchange(p.dial("udp", web4), question(t, "silentatfirst.example", a, 0), 20*time.Second, 1); err != nil || len(parse(t, b).Answers) != 1 {
		t.Fatal(b, err)
	}
	for _, c := range []struct {
		from, name string
		want       *fake
	}{{web4, "after.example", two}, {db4, "inside.example", one}} {
		p.ask(c.from, c.name, a)
		if n := len(c.want.about(c.name)); n != 1 || len(one.about(c.name))+len(two.about(c.name)) != 1 {
			t.Errorf("%s by %s: the first was asked %d times, the second %d times", c.name, c.from, len(one.about(c.name)), len(two.about(c.name)))
		}
	}
}

// TestNobodyUpstream ends at once when the host says that nobody is there.
func TestNobodyUpstream(t *testing.T) {
	p := populated(t)
	p.start(ports(first, "192.0.2.99:53")...) // the second has no route
	if got := p.ask(db4, "x.example", a); got.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("got %v", got.RCode)
	}
	if got := p.ask(db4, "web", a).addresses(); !slices.Equal(got, []string{web4}) {
		t.Errorf("a workload: %v", got)
	}
}

// TestAnswersAreNotMixed asks many things at once.
func TestAnswersAreNotMixed(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	p.start(ports(first)...)
	var wg sync.WaitGroup
	for w := range 8 {
		c := p.dial("udp", []string{web4, db4}[w%2])
		wg.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("n%d-%d.example", w, i)
				q := question(t, name, a, 0)
				q[0] = byte(w)
				b, err := tryExchange(c, q, 5*time.Second, 4)
				if err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(b[:2], q[:2]) || parse(t, b).Questions[0].Name.String() != name+"." {
					t.Errorf("to %s came %v", name, parse(t, b).Questions)
				}
			}
		})
	}
	wg.Wait()
}
