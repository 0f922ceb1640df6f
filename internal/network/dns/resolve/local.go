package resolve

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// ttl is how many seconds a workload may keep an answer about another one: a
// workload that starts again may have another address.
const ttl = 1

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// local answers a question that is not for an upstream server; the package's
// comment says which are.
func (s *server) local(q *query, from *lease) (answer []byte, ok bool) {
	if q.class != classIN || q.kind == typeAXFR || q.kind == typeIXFR {
		return q.failure(rcodeRefused), true
	}
	if a, ok := reverse(q.name); ok {
		if answer, ok := s.pointer(q, a, from); ok {
			return answer, true
		}
	}
	if all, ok := s.table.addresses(q.name); ok {
		return q.addresses(all), true
	}
	all, found, peers := s.peers.find(from, s.opt.Network, q.name)
	if found {
		return q.addresses(all), true
	}
	if q.name == "localhost" || strings.HasSuffix(q.name, ".localhost") {
		return q.addresses([]netip.Addr{loopback4, loopback6}), true
	}
	if servers, _ := s.of(from); peers || s.inner(q) || len(servers) == 0 {
		return q.finish(q.header(flagAuthority, rcodeNameError), 0), true
	}
	return nil, false
}

// inner tells whether a name that no workload has is still no name of the world.
func (s *server) inner(q *query) bool {
	if strings.HasSuffix(q.name, "."+s.table.domain) {
		return !s.opt.Public
	}
	if q.name == "" || strings.Contains(q.name, ".") {
		return false
	}
	return !slices.Contains([]uint16{typeNS, typeSOA, typeDS, typeDNSKEY}, q.kind)
}

// pointer answers for an address of the network, or of a workload in another one
// of the networks that whoever asks is in.
func (s *server) pointer(q *query, a netip.Addr, from *lease) ([]byte, bool) {
	name, ok := s.table.pointer(a)
	if !ok {
		name, ok = s.peers.pointer(from, s.opt.Network, a)
	}
	if !ok {
		return q.finish(q.header(flagAuthority, rcodeNameError), 0), s.table.contains(a)
	}
	b := q.header(flagAuthority, rcodeSuccess)
	if wire := wireName(name); wire != nil && (q.kind == typePTR || q.kind == typeANY) {
		b = appendRecord(b, typePTR, wire)
	}
	return q.finish(b, 0), true
}

// addresses answers for a name. Each answer starts with another address, so that
// workloads which share a name share the work.
func (q *query) addresses(all []netip.Addr) []byte {
	all = slices.DeleteFunc(all, func(a netip.Addr) bool {
		switch q.kind {
		case typeANY:
			return false
		case typeA:
			return !a.Is4()
		case typeAAAA:
			return !a.Is6()
		}
		return true
	})
	b := q.header(flagAuthority, rcodeSuccess)
	if len(all) > 0 {
		first := rand.IntN(len(all))
		all = slices.Concat(all[first:], all[:first])
	}
	for _, a := range all[:min(len(all), mostAddresses)] {
		kind := uint16(typeA)
		if a.Is6() {
			kind = typeAAAA
		}
		b = appendRecord(b, kind, a.AsSlice())
	}
	return q.finish(b, 0)
}

// mostAddresses are in one answer: they fit into a message, which has 2^16-1 bytes.
const mostAddresses = 2000

// appendRecord appends a record of the name in question, and counts it.
func appendRecord(b []byte, kind uint16, data []byte) []byte {
	b = append(b, 0xc0, headerSize)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	binary.BigEndian.PutUint16(b[6:], u16(b, 6)+1)
	return append(b, data...)
}

// wireName is a name as in a message, nil if it is too long for one.
func wireName(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return nil
		}
		b = append(append(b, byte(len(label))), label...)
	}
	if b = append(b, 0); len(b) > maxName {
		return nil
	}
	return b
}
