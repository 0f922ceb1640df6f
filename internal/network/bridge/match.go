package bridge

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A part is a piece of a rule, in the order of nft's own language; rule joins
// them. Each part either lets the packet go on to the next, or ends the rule.
type part []expr.Any

func rule(parts ...part) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// The registers that parts use. A concatenation is loaded into the 32-bit
// registers from the first on; an interface's name takes four of them, as does an
// IPv6 address, everything else one or two.
const (
	reg  = 1 // 128 bits: the 32-bit registers 8 to 11
	reg2 = 2 // the 32-bit registers 12 to 15
	word = 8 // the first 32-bit register
)

// field is something of a packet that can be loaded and compared.
type field struct {
	load  func(register uint32) expr.Any
	words uint32 // how many 32-bit registers it takes
}

func meta(key expr.MetaKey, words uint32) field {
	return field{func(r uint32) expr.Any { return &expr.Meta{Key: key, Register: r} }, words}
}

func payload(base expr.PayloadBase, offset, length uint32) field {
	return field{func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: base, Offset: offset, Len: length}
	}, (length + 3) / 4}
}

var (
	iifname  = meta(expr.MetaKeyIIFNAME, 4)
	oifname  = meta(expr.MetaKeyOIFNAME, 4)
	nfproto  = meta(expr.MetaKeyNFPROTO, 1)
	iifgroup = meta(expr.MetaKeyIIFGROUP, 1)
	l4proto  = meta(expr.MetaKeyL4PROTO, 1)
	skuid    = meta(expr.MetaKeySKUID, 1)
	ethType  = payload(expr.PayloadBaseLLHeader, 12, 2)
	ethSaddr = payload(expr.PayloadBaseLLHeader, 6, 6)
	ethGroup = payload(expr.PayloadBaseLLHeader, 0, 5) // of the receiver's address
	ipSaddr  = payload(expr.PayloadBaseNetworkHeader, 12, 4)
	ipDaddr  = payload(expr.PayloadBaseNetworkHeader, 16, 4)
	// The first bytes of addresses.
	ipSaddrTop = payload(expr.PayloadBaseNetworkHeader, 12, 1)
	ipDaddrTop = payload(expr.PayloadBaseNetworkHeader, 16, 1)
	ip6Saddr   = payload(expr.PayloadBaseNetworkHeader, 8, 16)
	ip6Daddr   = payload(expr.PayloadBaseNetworkHeader, 24, 16)
	// arpKind is hardware and protocol type and the lengths of their addresses.
	arpKind  = payload(expr.PayloadBaseNetworkHeader, 0, 6)
	arpEther = payload(expr.PayloadBaseNetworkHeader, 8, 6)
	arpIP    = payload(expr.PayloadBaseNetworkHeader, 14, 4)
	sport    = payload(expr.PayloadBaseTransportHeader, 0, 2)
	dport    = payload(expr.PayloadBaseTransportHeader, 2, 2)
	icmpType = payload(expr.PayloadBaseTransportHeader, 0, 1)
	// fragmentOf is the kind of header that a fragment of IPv6 is of.
	fragmentOf = field{func(r uint32) expr.Any {
		return &expr.Exthdr{DestRegister: r, Type: unix.IPPROTO_FRAGMENT, Offset: 0, Len: 1, Op: expr.ExthdrOpIpv6}
	}, 1}
	ndTarget = payload(expr.PayloadBaseTransportHeader, 8, 16) // RFC 4861, section 4.4
)

// is and isNot compare a field with a value in the order of the network, or a
// string with an interface's name.
func (f field) is(v []byte) part    { return f.compare(expr.CmpOpEq, v) }
func (f field) isNot(v []byte) part { return f.compare(expr.CmpOpNeq, v) }

func (f field) compare(op expr.CmpOp, v []byte) part {
	return part{f.load(reg), &expr.Cmp{Op: op, Register: reg, Data: v}}
}

// in wants the fields, taken together, in a set; notIn wants them not to be.
func in(s *nftables.Set, fields ...field) part    { return lookup(s, false, fields) }
func notIn(s *nftables.Set, fields ...field) part { return lookup(s, true, fields) }

func lookup(s *nftables.Set, invert bool, fields []field) part {
	p := load(fields)
	return append(p, &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: invert})
}

func load(fields []field) part {
	var p part
	at := uint32(word)
	for _, f := range fields {
		p = append(p, f.load(register(at)))
		at += f.words
	}
	return p
}

// register is how the kernel is told a 32-bit register: those that begin a
// 128-bit one by that one's number.
func register(word32 uint32) uint32 {
	if (word32-word)%4 == 0 {
		return (word32-word)/4 + 1
	}
	return word32
}

// dnat sends the packet where a map says, whose values are an address and a port.
func dnat(m *nftables.Set, family byte, fields ...field) part {
	port := uint32(word + 1)
	if family == unix.NFPROTO_IPV6 {
		port = word + 4
	}
	p := load(fields)
	return append(p,
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family), RegAddrMin: reg, RegProtoMin: register(port), Specified: true})
}

// Bits of enum ip_conntrack_info as nft's `ct state` has them, and of enum
// ip_conntrack_status.
const (
	ctEstablished = 2
	ctRelated     = 4
	ctNew         = 8
	statusDstNAT  = 1 << 5 // IPS_DST_NAT
)

// ctState wants one of the states, ctDNAT what destination NAT has changed (`ct status
// dnat`). A packet without a connection, as it is invalid or not tracked, has neither.
func ctState(bits uint32) part { return ctBits(expr.CtKeySTATE, bits) }
func ctDNAT() part             { return ctBits(expr.CtKeySTATUS, statusDstNAT) }

func ctBits(key expr.CtKey, bits uint32) part {
	mask := binary.NativeEndian.AppendUint32(nil, bits)
	return part{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

// toHost wants a packet for an address of this machine.
func toHost() part {
	return part{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}
}

var (
	ipv4 = nfproto.is([]byte{unix.NFPROTO_IPV4})
	ipv6 = nfproto.is([]byte{unix.NFPROTO_IPV6})
	udp  = l4proto.is([]byte{unix.IPPROTO_UDP})
	icmp = l4proto.is([]byte{unix.IPPROTO_ICMP})
	igmp = l4proto.is([]byte{unix.IPPROTO_IGMP})
	ndp  = l4proto.is([]byte{unix.IPPROTO_ICMPV6})

	// In the bridge family there is no nfproto to ask.
	etherIPv4 = ethType.is([]byte{0x08, 0x00})
	etherIPv6 = ethType.is([]byte{0x86, 0xdd})
	etherARP  = ethType.is([]byte{0x08, 0x06})

	accept     = part{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop       = part{&expr.Verdict{Kind: expr.VerdictDrop}}
	back       = part{&expr.Verdict{Kind: expr.VerdictReturn}}
	masquerade = part{&expr.Masq{}}
)

func jump(chain string) part {
	return part{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// port and name are values of fields.
func port(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// linkPrefix wants a packet to come in by an interface whose name begins so.
func linkPrefix(p string) part { return iifname.is([]byte(p)) }

// name is an interface's, as sets and rules have it: 16 bytes, filled up with 0.
func name(link string) []byte { return append([]byte(link), make([]byte, unix.IFNAMSIZ-len(link))...) }
