package dns_test

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	web4, web6 = "10.77.128.2", "fd00:77::1:2"
	db4, db6   = "10.77.128.3", "fd00:77::1:3"
	web2       = "10.77.128.4"
)

// populated is a network with a few workloads.
func populated(t testing.TB) *place {
	p := newPlace(t)
	p.lease(web4, "w1", "web", "Shop", "www.shop.example")
	p.lease(web6, "w1", "web", "Shop", "www.shop.example")
	p.lease(db4, "w2", "db", "w2")
	p.lease(db6, "w2", "db", "w2")
	p.lease(web2, "w3", "web2", "shop")
	return p
}

func TestNames(t *testing.T) {
	p := populated(t)
	p.start()
	const ptr, mx, any, txt = dnsmessage.TypePTR, dnsmessage.TypeMX, dnsmessage.TypeALL, dnsmessage.TypeTXT
	const ok, none = dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		code dnsmessage.RCode
		want []string
	}{
		{"web", a, ok, []string{web4}},
		{"web", aaaa, ok, []string{web6}},
		{"WEB.", a, ok, []string{web4}},
		{"wEb.LaB", a, ok, []string{web4}},
		{"shop", a, ok, []string{web4, web2}},
		{"shop.lab", aaaa, ok, []string{web6}},
		{"www.shop.example", a, ok, []string{web4}},
		{"web", any, ok, []string{web4, web6}},
		{"web2", aaaa, ok, nil}, // it exists, but has none
		{"web", mx, ok, nil},
		{"web", txt, ok, nil},
		{"nobody", a, none, nil},
		{"nobody.lab", a, none, nil},
		{"web.other", a, none, nil},
		{"web.lab.lab", a, none, nil},
		{"lab", a, none, nil},
		{"localhost", a, ok, []string{"127.0.0.1"}},
		{"x.localhost", aaaa, ok, []string{"::1"}},
		{"2.128.77.10.in-addr.arpa", ptr, ok, []string{"web.lab."}},
		{"2.128.77.10.in-addr.arpa", a, ok, nil},
		{"9.128.77.10.in-addr.arpa", ptr, none, nil},
		{"3.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa", ptr, ok, []string{"db.lab."}},
		{"3.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.0.0.0.0.D.F.IP6.ARPA", ptr, ok, []string{"db.lab."}},
		{"4.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa", ptr, none, nil},
		{"8.8.8.8.in-addr.arpa", ptr, none, nil}, // nobody upstream
		{"example.com", a, none, nil},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			for _, from := range []string{db4, db6} {
				got := p.askOver(proto, from, c.name, c.kind)
				slices.Sort(c.want)
				if got.RCode != c.code || !slices.Equal(got.addresses(), c.want) || len(got.Answers) != len(c.want) {
					t.Errorf("%s %v over %s from %s: %v %v, want %v %v", c.name, c.kind, proto, from, got.RCode, got.addresses(), c.code, c.want)
				}
				if !got.RecursionAvailable || !got.RecursionDesired || len(got.Questions) != 1 || got.Questions[0].Name.String() != withDot(c.name) {
					t.Errorf("%s: answered by %+v to %v", c.name, got.Header, got.Questions)
				}
			}
		}
	}
}

func withDot(name string) string {
	if name[len(name)-1] != '.' {
		name += "."
	}
	return name
}

// TestLeasesComeAndGo asks the very moment after a change.
func TestLeasesComeAndGo(t *testing.T) {
	p := populated(t)
	p.start()
	c := p.dial("udp", db4)
	ask := func(name string) []string {
		return parse(t, exchange(t, c, question(t, name, a, 0))).addresses()
	}
	for i := range 200 {
		address, name := fmt.Sprintf("10.77.129.%d", i), fmt.Sprintf("n%d", i)
		p.lease(address, name, name, "all")
		if got := ask(name); !slices.Equal(got, []string{address}) {
			t.Fatalf("%s that has just come: %v", name, got)
		}
		if i%3 == 0 {
			p.lease(address, name, name+"x", "all")
			if got, old := ask(name+"x"), ask(name); !slices.Equal(got, []string{address}) || old != nil {
				t.Fatalf("%s that was renamed: %v, under the name before %v", name, got, old)
			}
		}
		if i%2 == 0 {
			p.release(address)
			if got := ask(name); got != nil {
				t.Fatalf("%s that has just gone: %v", name, got)
			}
		}
	}
	// A workload's own first question comes right after its lease.
	p.lease("10.77.200.1", "new", "new")
	if got := p.ask("10.77.200.1", "db", a).addresses(); !slices.Equal(got, []string{db4}) {
		t.Errorf("asked by who has just come: %v", got)
	}
	p.release("10.77.200.1")
	if !p.silent("udp", "10.77.200.1", question(t, "db", a, 0)) {
		t.Error("who has no lease any more is answered")
	}
}

func TestSharedNameIsRotated(t *testing.T) {
	p := newPlace(t)
	p.start()
	var want []string
	for i := range 5 {
		address := fmt.Sprintf("10.77.128.%d", i+1)
		p.lease(address, fmt.Sprint(i), "all")
		want = append(want, address)
	}
	first := map[string]int{}
	c := p.dial("udp", "10.77.128.1")
	for range 200 {
		got := parse(t, exchange(t, c, question(t, "all", a, 0)))
		first[fmt.Sprint(got.Answers[0].Body)]++
		if !slices.Equal(got.addresses(), want) {
			t.Fatalf("got %v", got.addresses())
		}
	}
	if len(first) != 5 {
		t.Errorf("of 5 addresses, these came first: %v", first)
	}
}

// TestThousandLeases also asks for a name that all share: the answer does not
// fit into a datagram.
func TestThousandLeases(t *testing.T) {
	p := newPlace(t)
	at := func(i int) string { return fmt.Sprintf("10.77.%d.%d", 128+i/250, 1+i%250) }
	for i := range 500 {
		p.lease(at(i), fmt.Sprint(i), fmt.Sprintf("n%d", i), "all")
	}
	p.start()
	for i := 500; i < 1000; i++ {
		p.lease(at(i), fmt.Sprint(i), fmt.Sprintf("n%d", i), "all")
	}
	c := p.dial("udp", at(0))
	for i := range 1000 {
		if got := parse(t, exchange(t, c, question(t, fmt.Sprintf("n%d", i), a, 0))).addresses(); !slices.Equal(got, []string{at(i)}) {
			t.Fatalf("n%d: %v", i, got)
		}
	}
	for size, atLeast := range map[int]int{0: 25, 1232: 70, 65000: 70} {
		got := parse(t, exchange(t, c, question(t, "all", a, size)))
		if most := max(512, min(size, 1232)); !got.Truncated || len(got.Answers) < atLeast || got.size > most {
			t.Errorf("with EDNS %d: truncated %t, %d answers, %d bytes", size, got.Truncated, len(got.Answers), got.size)
		}
	}
	if got := p.askOver("tcp", at(0), "all", a); got.Truncated || len(got.Answers) != 1000 {
		t.Errorf("over TCP: truncated %t, %d answers", got.Truncated, len(got.Answers))
	}
}

// TestOverflow changes more files than the kernel keeps in mind.
func TestOverflow(t *testing.T) {
	p := populated(t)
	p.start()
	for i := range 2500 { // more than rescanAbove, each several changes
		p.put(fmt.Sprintf("10.77.%d.%d", 130+i/250, 1+i%250), []byte("{"))
	}
	p.lease(web2, "w3", "moved")
	p.release(web4)
	for i := range 6000 { // more than fs.inotify.max_queued_events, 16384 by default
		name := fmt.Sprintf("other%d", i%2)
		p.put(name, nil)
		p.release(name)
	}
	p.lease("10.77.200.7", "late", "late")
	for name, want := range map[string][]string{"moved": {web2}, "web": nil, "web2": nil, "shop": nil, "late": {"10.77.200.7"}, "db": {db4}} {
		if got := p.ask(db4, name, a).addresses(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
