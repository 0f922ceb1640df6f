package dns_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestStrangers asks from an address that nobody has a lease for, which any
// workload can write into a packet.
func TestStrangers(t *testing.T) {
	p := populated(t)
	f := newFake(t, first)
	p.start(ports(first)...)
	p.put("10.77.128.50", []byte("{"))               // half a lease
	p.lease("10.99.0.1", "w9", "elsewhere")          // of no address of the network
	p.put("10.77.128.51", []byte(`{"names":["x"]}`)) // of nobody
	q := question(t, "fine.example", a, 0)
	for _, from := range []string{"10.77.128.99", "10.77.128.50", "10.77.128.51", "10.77.255.254", "fd00:77::1:7"} {
		for _, proto := range []string{"udp", "tcp"} {
			if !p.silent(proto, from, q) {
				t.Errorf("%s is answered over %s", from, proto)
			}
		}
	}
	if n := len(f.about("fine.example")); n != 0 {
		t.Errorf("strangers were asked for %d times", n)
	}
	if got := p.ask(db4, "elsewhere", a); got.RCode != dnsmessage.RCodeNameError {
		t.Errorf("an address of another network: %v", got.addresses())
	}
}

// TestHostAndOthersAreNotHeard asks from where the network's interface is not in
// between.
func TestHostAndOthersAreNotHeard(t *testing.T) {
	p := populated(t)
	p.start()
	c, err := net.Dial("udp", "10.77.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := tryExchange(c, question(t, "web", a, 0), 300*time.Millisecond, 1); err == nil {
		t.Errorf("the host is answered: %x", b)
	}
}

// TestMalformed sends what is no question; the name server goes on.
func TestMalformed(t *testing.T) {
	p := populated(t)
	s := p.start()
	right := question(t, "web", a, 1232)
	c := p.dial("udp", db4)
	corpus := [][]byte{
		{}, {0}, right[:11], right[:12], right[:16], right[:len(right)-1],
		changed(right, func(b []byte) { b[2] |= 0x80 }),            // an answer
		changed(right, func(b []byte) { b[5] = 0 }),                // no question
		changed(right, func(b []byte) { b[5] = 2 }),                // two, of which one is there
		changed(right, func(b []byte) { b[4] = 0xff }),             // 65281
		changed(right, func(b []byte) { b[6] = 0xff }),             // answers
		changed(right, func(b []byte) { b[10] = 0xff }),            // additional records
		changed(right, func(b []byte) { b[12] = 0xc0 }),            // a pointer into the header
		changed(right, func(b []byte) { b[12], b[13] = 0xc0, 12 }), // to itself
		changed(right, func(b []byte) { b[12], b[13] = 0xff, 0xff }),
		changed(right, func(b []byte) { b[12] = 0x40 }),
		changed(right, func(b []byte) { b[12] = 63 }),
		changed(right, func(b []byte) { b[2] |= 0x28 }), // an update
		append(append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, strings.Repeat("\x01x", 200)...), 0, 0, 1, 0, 1),
		append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, make([]byte, 4000)...),
		make([]byte, 60000),
	}
	for range 3000 {
		b := make([]byte, len(right))
		copy(b, right)
		for range 1 + rand.IntN(4) {
			b[rand.IntN(len(b))] = byte(rand.Uint32())
		}
		corpus = append(corpus, b[:rand.IntN(len(b)+1)])
	}
	go io.Copy(io.Discard, c)
	for _, b := range corpus {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range corpus[:40] {
		c := p.dial("tcp", db4)
		c.Write(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
		c.(*net.TCPConn).CloseWrite()
		c.Close()
	}
	if got := p.ask(db6, "web", a).addresses(); len(got) != 1 {
		t.Errorf("after all that: %v", got)
	}
	if again := p.start(); again != s {
		t.Error("the name server has ended")
	}
}

// TestErrorsAreAnswered asks what cannot be answered.
func TestErrorsAreAnswered(t *testing.T) {
	p := populated(t)
	p.start()
	right := question(t, "web", a, 1232)
	for _, c := range []struct {
		what   string
		change func(b []byte)
		want   int
	}{
		{"an update", func(b []byte) { b[2] |= 5 << 3 }, 4},
		{"two questions", func(b []byte) { b[5] = 2 }, 1},
		{"class CHAOS", func(b []byte) { b[12+5+3] = 3 }, 5},
		{"a transfer", func(b []byte) { b[12+5+1] = 252 }, 5},
		{"EDNS 7", func(b []byte) { b[len(b)-5] = 7 }, 0}, // BADVERS: 16, whose lower bits these are
	} {
		conn := p.dial("udp", db4)
		b := exchange(t, conn, changed(right, c.change))
		if got := int(b[3] & 15); got != c.want || len(b) > len(right) {
			t.Errorf("%s: %d in %d bytes, want %d", c.what, got, len(b), c.want)
		}
		if c.what == "EDNS 7" && (len(b) < 11 || b[len(b)-6] != 1) {
			t.Errorf("EDNS 7: %x", b)
		}
	}
}

// TestFlood has one workload send as fast as it can, while another asks.
func TestFlood(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	s := p.start(ports(first)...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var sent int
	flood := p.dial("udp", web4)
	local, remote := question(t, "db", a, 0), question(t, "silent.example", a, 0)
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			msg := local
			if i%2 == 0 {
				msg = remote
			}
			flood.Write(msg)
			sent++
		}
	})
	c := p.dial("udp", db4)
	for i := range 40 {
		time.Sleep(20 * time.Millisecond)
		name := "web2"
		if i%2 == 0 {
			name = "fine.example"
		}
		served := false
		for try := 0; try < 5 && !served; try++ { // as resolvers do
			b, err := tryExchange(c, question(t, name, a, 0), 2*time.Second, 1)
			served = err == nil && len(parse(t, b).Answers) == 1
		}
		if !served {
			t.Errorf("%s is not answered while another sends", name)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d datagrams in the way; PSS %d kB and %d kB", sent, pss(t, s.PID), pss(t, s.Dialer))
	if n := pss(t, s.PID); n > 48<<10 {
		t.Errorf("the resolver takes %d kB", n)
	}
}

// TestWaitingIsShared has one workload wait for as much as it may.
func TestWaitingIsShared(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	p.start(ports(first)...)
	var conns []net.Conn
	for i := range 300 {
		c := p.dial("udp", web4)
		if _, err := c.Write(question(t, fmt.Sprintf("silent.%d.example", i), a, 0)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for i := range 20 {
		if got := p.ask(db4, fmt.Sprintf("fine.%d.example", i), a); len(got.Answers) != 1 {
			t.Errorf("another workload: %v", got.RCode)
		}
	}
	failed := 0
	for _, c := range conns {
		c.SetDeadline(time.Now().Add(15 * time.Second))
		buf := make([]byte, 512)
		if n, err := c.Read(buf); err != nil {
			t.Fatal("a question without an answer:", err)
		} else if parse(t, buf[:n]).RCode == dnsmessage.RCodeServerFailure {
			failed++
		}
	}
	if failed != len(conns) {
		t.Errorf("%d of %d failed", failed, len(conns))
	}
}

// TestStreamsAreShared has one workload ask, again and again, for answers that are to
// come over TCP and do not, while another asks for some that do.
func TestStreamsAreShared(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	p.start(ports(first)...)
	c := p.dial("udp", web4)
	go io.Copy(io.Discard, c)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if _, err := c.Write(question(t, fmt.Sprintf("tcpslow.%d.example", i), a, 0)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	time.Sleep(2 * time.Second) // longer than one of them is waited for
	for range 3 {
		if got := p.askOver("tcp", db4, "biglate.example", a); got.Truncated || len(got.Answers) != 300 {
			t.Errorf("another workload's long answer: %v, truncated %t, %d answers", got.RCode, got.Truncated, len(got.Answers))
		}
		if got := p.ask(db4, "lowercase.example", a); !slices.Equal(got.addresses(), []string{"192.0.2.1"}) {
			t.Errorf("from a server that does not keep the case: %v %v", got.RCode, got.addresses())
		}
	}
	close(stop)
	wg.Wait()
}

// TestConnectionsAreShared has one workload open all connections that it can.
func TestConnectionsAreShared(t *testing.T) {
	p := populated(t)
	s := p.start()
	for range 300 {
		p.dial("tcp", web4)
	}
	if got := p.askOver("tcp", db4, "web2", a); len(got.Answers) != 1 {
		t.Errorf("another workload: %v", got.RCode)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID))
	if err != nil || len(fds) > 56 {
		t.Errorf("the resolver has %d descriptors: %v", len(fds), err)
	}
	// Many questions in a row over one connection, and a slow reader.
	c := p.dial("tcp", db4)
	q := question(t, "web", a, 0)
	for range 100 {
		parse(t, exchange(t, c, q))
	}
}

// pss is the share of a process in the memory of the machine, in kB.
func pss(t testing.TB, pid int) (kb int) {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/smaps_rollup", pid))) {
		if strings.HasPrefix(line, "Pss:") {
			fmt.Sscanf(line, "Pss: %d kB", &kb)
		}
	}
	return kb
}

func TestMemory(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	s := p.start(ports(first)...)
	for range 10 {
		p.ask(db4, "fine.example", a)
	}
	one, other := pss(t, s.PID), pss(t, s.Dialer)
	t.Logf("PSS of the resolver %d kB, of the dialer %d kB", one, other)
	if one+other > 8<<10 {
		for _, pid := range []int{s.PID, s.Dialer} {
			t.Errorf("%d kB in two processes; %d:\n%s", one+other, pid, read(t, fmt.Sprintf("/proc/%d/smaps_rollup", pid)))
		}
	}
}
