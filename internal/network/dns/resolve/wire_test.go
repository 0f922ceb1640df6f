package resolve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestSkipName(t *testing.T) {
	pad := bytes.Repeat([]byte{0}, headerSize)
	// Each of so many pointers leads to the one before; the first to the root.
	chain := func(n int) string {
		b := []byte{0}
		for i := range n {
			b = binary.BigEndian.AppendUint16(b, uint16(0xc000|headerSize+max(0, 2*i-1)))
		}
		return string(b)
	}
	long := strings.Repeat("\x3f"+strings.Repeat("x", 63), 3) // 192 bytes
	for _, c := range []struct {
		what, name string
		at, end    int // -1 for malformed; both are counted from behind the header
	}{
		{"the root", "\x00", 0, 1},
		{"two labels", "\x03www\x02ex\x00rest", 0, 8},
		{"a dot in a label", "\x03a.b\x00", 0, 5},
		{"a pointer back", "\x02ex\x00\x03www\xc0\x0c", 4, 10},
		{"a pointer to a pointer", "\x02ex\x00\xc0\x0c\xc0\x10", 6, 8},
		{"a pointer to itself", "\xc0\x0c", 0, -1},
		{"a pointer to what goes on behind it", "\x04a\xc0\x0cb\x00", 2, -1},
		{"a loop through a label", "\x01a\xc0\x0c", 0, -1},
		{"a pointer ahead", "\xc0\x0e\x00", 0, -1},
		{"a pointer into the header", "\xc0\x00", 0, -1},
		{"half a pointer", "\xc0", 0, -1},
		{"no end", "\x03www", 0, -1},
		{"a label that is cut", "\x05www", 0, -1},
		{"a reserved kind of label", "\x40xx\x00", 0, -1},
		{"another", "\x80xx\x00", 0, -1},
		{"255 bytes", long + "\x3d" + strings.Repeat("x", 61) + "\x00", 0, 255},
		{"256 bytes", long + "\x3e" + strings.Repeat("x", 62) + "\x00", 0, -1},
		{"256 bytes by a pointer", long + "\x00\x3e" + strings.Repeat("x", 62) + "\xc0\x0c", 193, -1},
		{"as many pointers as a name can need", chain(maxPointers), 2*maxPointers - 1, 2*maxPointers + 1},
		{"one more", chain(maxPointers + 1), 2*maxPointers + 1, -1},
		{"nothing", "", 0, -1},
	} {
		end, err := skipName(append(pad, c.name...), headerSize+c.at)
		if err != nil && !errors.Is(err, errMalformed) || (err != nil) != (c.end < 0) || err == nil && end != headerSize+c.end {
			t.Errorf("%s: %d, %v, want %d", c.what, end-headerSize, err, c.end)
		}
	}
}

func TestReverse(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa":     "1.2.3.4",
		"3.2.1.in-addr.arpa":       "",
		"5.4.3.2.1.in-addr.arpa":   "",
		"x.3.2.1.in-addr.arpa":     "",
		"256.3.2.1.in-addr.arpa":   "",
		"04.3.2.1.in-addr.arpa":    "",
		".3.2.1.in-addr.arpa":      "",
		"in-addr.arpa":             "",
		"ip6.arpa":                 "",
		"4.3.2.1.in-addr.arpa.lab": "",
		"1" + strings.Repeat(".0", 23) + ".8.b.d.0.1.0.0.2.ip6.arpa":   "2001:db8::1",
		"1" + strings.Repeat(".0", 22) + ".8.b.d.0.1.0.0.2.ip6.arpa":   "",
		"g" + strings.Repeat(".0", 23) + ".8.b.d.0.1.0.0.2.ip6.arpa":   "",
		"10" + strings.Repeat(".0", 22) + "0.8.b.d.0.1.0.0.2.ip6.arpa": "",
	} {
		a, ok := reverse(name)
		if got := a.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s, want %q", name, got, want)
		}
	}
}

func TestNormal(t *testing.T) {
	for name, want := range map[string]string{
		"web": "web", "WEB.": "web", "a_b-c": "a_b-c", "ä": "ä", "www.Shop.example": "www.shop.example", "*": "*",
		"": "", ".": "", "a..b": "", ".a": "", "a b": "", "a\x00": "", "a\n": "", strings.Repeat("x", 64): "", strings.Repeat("x.", 128): "",
		strings.Repeat("x", 63): strings.Repeat("x", 63),
	} {
		got, ok := normal(name)
		if ok != (want != "") || got != want {
			t.Errorf("%q: %q, %t, want %q", name, got, ok, want)
		}
	}
}

// TestSoundMessages has names that exist and that package dnsmessage refuses.
func TestSoundMessages(t *testing.T) {
	q := query{id: 7, question: []byte("\x02ex\x00\x00\x06\x00\x01")}
	m := q.header(0, 0)
	mailbox := "\x09john.doe1\xc0\x0c"
	data := "\xc0\x0c" + mailbox + strings.Repeat("\x00", 20)
	m = append(m, 0xc0, 12, 0, typeSOA, 0, 1, 0, 0, 0, 9, 0, byte(len(data)))
	m = append(m, data...)
	m[7] = 1
	if _, err := q.accept(bytes.Clone(m)); err != nil {
		t.Error("a mailbox with a dot:", err)
	}
	for i := range m {
		if i >= headerSize+len(q.question) {
			if _, err := q.accept(bytes.Clone(m[:i])); err == nil {
				t.Errorf("cut after %d of %d bytes, it was accepted", i, len(m))
			}
		}
	}
}

// seeds are messages to start from.
func seeds() (all [][]byte) {
	for _, name := range []string{".", "web.", "www.example.com.", "4.3.2.1.in-addr.arpa."} {
		for _, kind := range []dnsmessage.Type{1, 28, 12, 255, 15} {
			m := dnsmessage.Message{
				Header:    dnsmessage.Header{ID: 99, RecursionDesired: true},
				Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: 1}},
			}
			plain, _ := m.Pack()
			var h dnsmessage.ResourceHeader
			h.SetEDNS0(1400, 0, true)
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("12345678")}}}}}
			extended, _ := m.Pack()
			m.Response = true
			n := m.Questions[0].Name
			r := dnsmessage.ResourceHeader{Name: n, Class: 1, TTL: 5}
			m.Answers = []dnsmessage.Resource{
				{Header: r, Body: &dnsmessage.AResource{A: [4]byte{1, 2, 3, 4}}},
				{Header: r, Body: &dnsmessage.CNAMEResource{CNAME: n}},
				{Header: r, Body: &dnsmessage.MXResource{Pref: 1, MX: n}},
				{Header: r, Body: &dnsmessage.SOAResource{NS: n, MBox: n}},
				{Header: r, Body: &dnsmessage.TXTResource{TXT: []string{"x"}}},
				{Header: r, Body: &dnsmessage.SRVResource{Target: n}},
				{Header: r, Body: &dnsmessage.AAAAResource{}},
			}
			answer, _ := m.Pack()
			all = append(all, plain, extended, answer)
		}
	}
	return all
}

// FuzzQuery is what a workload may send. What is answered to it is sound, and
// its size and question are bounded by what came.
func FuzzQuery(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b)
	}
	s := testServer(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		q, answer := s.answer(bytes.Clone(b), &lease{workload: "w"})
		var library dnsmessage.Parser
		h, err := library.Start(b)
		if q == nil {
			if err == nil && !h.Response && len(b) >= headerSize {
				t.Errorf("dropped %x", b)
			}
			return
		}
		if answer == nil {
			t.Fatal("there is nobody upstream, and still it is to be asked")
		}
		answer = q.fit(answer, q.size)
		if len(answer) > q.size || len(answer) < headerSize || q.size < plainUDP || q.size > ednsUDP {
			t.Fatalf("%d bytes are answered where %d fit", len(answer), q.size)
		}
		if u16(answer, 0) != u16(b, 0) || u16(answer, 2)&flagResponse == 0 {
			t.Fatalf("to %x the answer is %x", b, answer)
		}
		off := headerSize
		if q.question != nil {
			if !bytes.Equal(answer[headerSize:headerSize+len(q.question)], b[headerSize:headerSize+len(q.question)]) {
				t.Fatalf("to %x the answer is %x", b, answer)
			}
			off += len(q.question)
			// What the library reads of the question is what we read.
			if lq, err := library.Question(); err == nil && int(u16(answer, 2)&maskRCode) != rcodeFormatError {
				if want := strings.TrimSuffix(lowerASCII(lq.Name.String()), "."); want != q.name || uint16(lq.Type) != q.kind {
					t.Fatalf("we read %q, the library %q", q.name, want)
				}
			}
		}
		sound(t, answer, off)
		if m := q.message(5, q.question); q.question != nil {
			sound(t, m, off)
		}
	})
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = lower(b[i])
	}
	return string(b)
}

// sound walks through all records of a message, which ends after them.
func sound(t *testing.T, m []byte, off int) {
	t.Helper()
	for range int(u16(m, 6)) + int(u16(m, 8)) + int(u16(m, 10)) {
		r, err := parseRecord(m, off)
		if err != nil {
			t.Fatalf("%x: %v", m, err)
		}
		off = r.end
	}
	if off != len(m) {
		t.Fatalf("%x ends after %d of %d bytes", m, off, len(m))
	}
}

// FuzzAnswer is what an upstream server may send.
func FuzzAnswer(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, edns bool) {
		q := query{id: 4711, question: []byte("\x03wEb\x00\x00\x01\x00\x01"), edns: edns, size: plainUDP}
		if len(b) >= headerSize {
			if end, err := skipName(b, headerSize); err == nil && end+4 <= len(b) {
				q.question = bytes.Clone(b[headerSize : end+4])
			}
		}
		if len(b) < headerSize || same(b, q.question) == different {
			return
		}
		answer, err := q.accept(bytes.Clone(b))
		if err != nil {
			return
		}
		if len(answer) > len(b) || u16(answer, 0) != 4711 {
			t.Fatalf("%x was taken as %x", b, answer)
		}
		sound(t, answer, headerSize+len(q.question))
		for _, limit := range []int{plainUDP, ednsUDP, mostTCPAnswer} {
			fitted := q.fit(bytes.Clone(answer), limit)
			if len(fitted) > limit || len(fitted) < headerSize {
				t.Fatalf("%d bytes where %d fit", len(fitted), limit)
			}
			sound(t, fitted, headerSize+len(q.question))
		}
		_, question, err := q.shuffled()
		if err != nil {
			t.Fatal(err)
		}
		probe := append(make([]byte, headerSize), question...)
		binary.BigEndian.PutUint16(probe[4:], 1)
		if same(probe, q.question) == different {
			t.Fatalf("%x is not the question %x in other letters", question, q.question)
		}
	})
}
