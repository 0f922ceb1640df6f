package dns_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A fake is an upstream server. What it does depends on the first label of the
// name that it is asked for.
type fake struct {
	t         testing.TB
	addr      netip.AddrPort
	refuseTCP func()

	mu    sync.Mutex
	asked []asked
	odd   int // messages that were no questions
}

func (f *fake) malformed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.odd
}

// asked is a question that came.
type asked struct {
	dnsmessage.Message
	raw  []byte
	from netip.AddrPort
	tcp  bool
}

// newFake serves at an address of the test's own loopback.
func newFake(t testing.TB, address string) *fake {
	t.Helper()
	f := &fake{t: t, addr: netip.MustParseAddrPort(address)}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(f.addr))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(f.addr))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { f.serveUDP(u) })
	wg.Go(func() { f.serveTCP(l, &wg) })
	f.refuseTCP = func() { l.Close() }
	t.Cleanup(func() {
		u.Close()
		l.Close()
		wg.Wait()
	})
	return f
}

func (f *fake) serveUDP(u *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		msg := bytes.Clone(buf[:n])
		for _, b := range f.handle(msg, from, false) {
			u.WriteToUDPAddrPort(b, from)
		}
	}
}

func (f *fake) serveTCP(l *net.TCPListener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			msg := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, msg); err != nil {
				return
			}
			for _, b := range f.handle(msg, netip.MustParseAddrPort(c.RemoteAddr().String()), true) {
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
			if strings.HasPrefix(f.last().name(), "tcpslow") {
				c.Read(size[:]) // until the other side has had enough
			}
		})
	}
}

func (f *fake) last() asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

// about returns the questions for a name.
func (f *fake) about(name string) (all []asked) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if a.name() == name {
			all = append(all, a)
		}
	}
	return all
}

func (a asked) name() string {
	return strings.TrimSuffix(strings.ToLower(a.Questions[0].Name.String()), ".")
}

var (
	good = [4]byte{192, 0, 2, 1}
	evil = [4]byte{192, 0, 2, 66}
)

// answer answers a question with addresses.
func (a asked) answer(code dnsmessage.RCode, addresses ...[4]byte) dnsmessage.Message {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: a.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: code}, Questions: a.Questions}
	for _, ip := range addresses {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: a.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 300}, Body: &dnsmessage.AResource{A: ip},
		})
	}
	return m
}

func (f *fake) pack(m dnsmessage.Message) []byte {
	b, err := m.Pack()
	if err != nil {
		f.t.Error(err)
	}
	return b
}

// changed returns what else a message could be.
func changed(b []byte, change func(b []byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	return b
}

func (f *fake) handle(msg []byte, from netip.AddrPort, tcp bool) [][]byte {
	a := asked{raw: msg, from: from, tcp: tcp}
	if err := a.Unpack(msg); err != nil || len(a.Questions) != 1 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.odd++
		return nil
	}
	f.mu.Lock()
	f.asked = append(f.asked, a)
	f.mu.Unlock()
	right := f.pack(a.answer(0, good))
	wrong := f.pack(a.answer(0, evil))
	name, _, _ := strings.Cut(a.name(), ".")
	if tcp {
		switch name {
		case "wrongonly", "wrongquestion", "loop", "cut", "claims", "silent", "tcpslow":
			return nil
		case "tcpcut":
			return [][]byte{append(right[:len(right):len(right)], make([]byte, 100)...)[:20]}
		case "tcpid":
			return [][]byte{changed(wrong, func(b []byte) { b[0]++ })}
		case "tcpquestion":
			return [][]byte{changed(wrong, func(b []byte) { b[13] ^= 1 })}
		case "biglate":
			time.Sleep(200 * time.Millisecond) // as from far away
			return [][]byte{f.pack(a.answer(0, slicesRepeat(good, 300)...))}
		case "big", "bigudp":
			return [][]byte{f.pack(a.answer(0, slicesRepeat(good, 300)...))}
		case "huge":
			return [][]byte{f.pack(a.answer(0, slicesRepeat(good, 4000)...))}
		}
		return [][]byte{right}
	}
	truncated := func() [][]byte {
		m := a.answer(0, evil)
		m.Truncated = true
		return [][]byte{f.pack(m)}
	}
	switch name {
	case "silent":
		return nil
	case "silentatfirst":
		if f.addr.String() == first {
			return nil
		}
	case "big", "biglate", "huge", "tcpcut", "tcpid", "tcpquestion", "tcpslow":
		return truncated()
	case "bigudp":
		return [][]byte{f.pack(a.answer(0, slicesRepeat(good, 300)...))}
	case "wrongid":
		return [][]byte{changed(wrong, func(b []byte) { b[0]++ }), changed(wrong, func(b []byte) { b[1]++ }), right}
	case "wrongonly":
		return [][]byte{changed(wrong, func(b []byte) { b[0]++ })}
	case "wrongquestion":
		return [][]byte{changed(wrong, func(b []byte) { b[13] ^= 1 })}
	case "wrongtype":
		return [][]byte{changed(wrong, func(b []byte) { b[12+len(a.Questions[0].Name.String())+2] ^= 1 }), right}
	case "query":
		return [][]byte{msg, right}
	case "lowercase":
		return [][]byte{changed(wrong, func(b []byte) { copy(b[12:], bytes.ToLower(b[12:30])) })}
	case "lowercasecut":
		return [][]byte{changed(wrong, func(b []byte) { copy(b[12:], bytes.ToLower(b[12:33])) })[:len(wrong)-3]}
	case "guess":
		var all [][]byte
		for i := range 100 {
			all = append(all, changed(wrong, func(b []byte) { b[0] += byte(1 + i) }))
		}
		return all
	case "loop":
		// The record's name is a pointer to itself.
		return [][]byte{changed(wrong, func(b []byte) { copy(b[len(b)-16:], []byte{0xc0, byte(len(b) - 16)}) })}
	case "cut":
		return [][]byte{wrong[:len(wrong)-3]}
	case "claims":
		return [][]byte{changed(wrong, func(b []byte) { b[6], b[7] = 0xff, 0xff })}
	case "garbage":
		return [][]byte{append(right, "leftover"...)}
	case "nothing", "nobody":
		return [][]byte{f.pack(a.answer(dnsmessage.RCodeNameError))}
	case "broken":
		return [][]byte{f.pack(a.answer(dnsmessage.RCodeServerFailure))}
	case "refused":
		return [][]byte{f.pack(a.answer(dnsmessage.RCodeRefused))}
	case "empty":
		return [][]byte{{}, {1}, make([]byte, 11), right}
	}
	return [][]byte{right}
}

func slicesRepeat(a [4]byte, n int) (all [][4]byte) {
	for i := range n {
		a[2], a[3] = byte(i>>8), byte(i)
		all = append(all, a)
	}
	return all
}

// listenSilently takes questions and answers none; the function counts them.
func listenSilently(t testing.TB, address string) (func() int, error) {
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	n := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<12)
		for {
			if _, _, err := u.ReadFrom(buf); err != nil {
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		u.Close()
		wg.Wait()
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}, nil
}
