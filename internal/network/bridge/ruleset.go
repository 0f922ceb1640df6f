package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The rules are the same on every machine: which networks and workloads there
// are is in sets, so that a workload comes and goes by elements. `nft list
// ruleset` shows:
//
//	table inet bulkhead
//	  chain prerouting   filter, -310  nothing from a workload goes to 127.0.0.0/8, or around its bridge
//	  chain published    nat,    -100  what arrives for a published port
//	  chain published-here nat,  -100  the same, sent by this machine
//	  chain leaving      nat,     100  masquerade what leaves a network
//	  chain forward      filter,    0  between networks and the rest
//	  chain input        filter,    0  from workloads to the machine itself
//	  chain output       filter,    0  no ICMP redirects to workloads, nothing from user networks
//	table bridge bulkhead
//	  chain from         filter, -310  who sends what he may not send as himself
//	  chain to-bridge    filter, -200  nothing for the groups of bridges
//
// Each rule has rulesMark as its comment, see Flushed.
//
// A packet must pass every base chain of every table: an accept here does not
// override a drop of the machine's own firewall, nor the other way round.

// A tables is our two tables with their sets, as a value to make messages from.
type tables struct {
	inet, ether *nftables.Table
	group       uint32 // of our interfaces, see linkGroup
	mark        []byte // of our rules, as user data

	bridges, pairs, internal *nftables.Set
	guarded4, guarded6       *nftables.Set
	addr4, any4, addr6, any6 *nftables.Set // maps of published ports
	open4, open6             *nftables.Set
	apart                    *nftables.Set
	ports, macs, ip4, ip6    *nftables.Set
}

// rulesMark tells our rules from those that another version made. It follows from
// chains and sets: TestRulesMark says what it must be. To compute it takes as long as
// to list the rules.
const rulesMark = "bulkhead 608ee7c0"

// Names of sets.
const (
	setBridges  = "bridges"  // our bridges
	setPairs    = "same"     // each bridge with itself
	setInternal = "internal" // bridges without a way out
	setGuarded4 = "guarded4" // see forwarding.go
	setGuarded6 = "guarded6"
	mapAddr4    = "published4"  // host address, protocol, port: where to
	mapAny4     = "everywhere4" // protocol, port: where to
	mapAddr6    = "published6"
	mapAny6     = "everywhere6"
	setOpen4    = "open4" // workload's address, protocol, port
	setOpen6    = "open6"
	setApart    = "apart" // users who reach no network, see apart.go
	setPorts    = "ports" // interfaces of workloads
	setMACs     = "macs"  // what each may send as
	setIP4      = "ip4"
	setIP6      = "ip6"
)

// tableName is one for each state root: see Store.tag.
func newTables(tableName string) *tables {
	t := &tables{
		inet:  &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet},
		ether: &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge},
		group: linkGroup(tableName),
		mark:  userdata.AppendString(nil, userdata.TypeComment, rulesMark),
	}
	set := func(of *nftables.Table, name string, key ...nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Table: of, Name: name, KeyType: key[0], KeyByteOrder: binaryutil.BigEndian}
		if key[0] == nftables.TypeIFName && len(key) == 1 {
			s.KeyByteOrder = binaryutil.NativeEndian // or nft shows nothing; the kernel does not care
		}
		if len(key) > 1 {
			s.KeyType, s.Concatenation = nftables.MustConcatSetType(key...), true
		}
		return s
	}
	to := func(s *nftables.Set, addr nftables.SetDatatype) *nftables.Set {
		s.IsMap, s.DataType = true, nftables.MustConcatSetType(addr, nftables.TypeInetService)
		return s
	}
	link, proto, service := nftables.TypeIFName, nftables.TypeInetProto, nftables.TypeInetService
	v4, v6, mac := nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeEtherAddr
	t.bridges = set(t.inet, setBridges, link)
	t.pairs = set(t.inet, setPairs, link, link)
	t.internal = set(t.inet, setInternal, link)
	t.guarded4, t.guarded6 = set(t.inet, setGuarded4, link), set(t.inet, setGuarded6, link)
	t.addr4 = to(set(t.inet, mapAddr4, v4, proto, service), v4)
	t.any4 = to(set(t.inet, mapAny4, proto, service), v4)
	t.addr6 = to(set(t.inet, mapAddr6, v6, proto, service), v6)
	t.any6 = to(set(t.inet, mapAny6, proto, service), v6)
	t.open4 = set(t.inet, setOpen4, v4, proto, service)
	t.open6 = set(t.inet, setOpen6, v6, proto, service)
	t.apart = set(t.inet, setApart, nftables.TypeUID)
	t.apart.KeyByteOrder = binaryutil.NativeEndian
	t.ports = set(t.ether, setPorts, link)
	t.macs = set(t.ether, setMACs, link, mac)
	t.ip4 = set(t.ether, setIP4, link, v4)
	t.ip6 = set(t.ether, setIP6, link, v6)
	return t
}

func (t *tables) sets() []*nftables.Set {
	return []*nftables.Set{
		t.bridges, t.pairs, t.internal, t.guarded4, t.guarded6, t.addr4, t.any4, t.addr6, t.any6, t.open4, t.open6,
		t.apart, t.ports, t.macs, t.ip4, t.ip6,
	}
}

// element is one entry of a set or map, by the set's name.
type element struct {
	set        string
	key, value []byte
}

// maxBatch is how long a transaction may be, in bytes: some ten thousands of
// published ports. The kernel takes it as one message.
const maxBatch = 64 << 20

// openTables opens a connection to nf_tables. done closes it: a socket by which
// something was removed is closed when the kernel has freed that, 10 ms later or
// more, so done leaves that to another thread.
func openTables() (c *nftables.Conn, done func(), err error) {
	c, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(maxBatch), c.SetReadBuffer(4<<20)) // by force, as root
	}))
	if err != nil {
		return nil, nil, fmt.Errorf("open nf_tables: %w", unsupported(err, "nf_tables"))
	}
	return c, func() { go c.CloseLasting() }, nil //nolint:errcheck // what counted was the answer
}

// rebuild replaces both tables, whatever is in them, by complete ones with these
// elements. No packet sees anything in between.
func (t *tables) rebuild(all []element) error {
	c, done, err := openTables()
	if err != nil {
		return err
	}
	defer done()
	for _, table := range []*nftables.Table{t.inet, t.ether} {
		c.AddTable(table) // so that there is one to delete
		c.DelTable(table)
		c.AddTable(table)
	}
	for _, s := range t.sets() {
		s.ID = 0
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("make set %s: %w", s.Name, err)
		}
	}
	for _, ch := range t.chains() {
		ch.add(c, t.mark)
	}
	if err := t.change(c.SetAddElements, all); err != nil {
		return err
	}
	return flush(c)
}

// add and remove change elements of tables that exist, all or none. If anything
// is missing the error wraps ENOENT.
func (t *tables) add(es []element) error    { return t.edit(es, true) }
func (t *tables) remove(es []element) error { return t.edit(es, false) }

func (t *tables) edit(es []element, add bool) error {
	if add {
		return t.swap(nil, es)
	}
	return t.swap(es, nil)
}

// swap puts elements in the place of others, in one step; where both have one, it
// is made anew.
func (t *tables) swap(from, to []element) error {
	c, done, err := openTables()
	if err != nil {
		return err
	}
	defer done()
	for _, s := range t.sets() {
		s.ID = 0 // the kernel finds it by name
	}
	if err := t.change(c.SetDeleteElements, from); err != nil {
		return err
	}
	if err := t.change(c.SetAddElements, to); err != nil {
		return err
	}
	return flush(c)
}

// perMessage bounds the elements of one netlink message, whose attributes are
// limited to 64 KiB.
const perMessage = 400

func (t *tables) change(what func(*nftables.Set, []nftables.SetElement) error, es []element) error {
	for _, s := range t.sets() {
		var values []nftables.SetElement
		seen := map[string]bool{}
		for _, e := range es {
			if e.set == s.Name && !seen[string(e.key)] {
				seen[string(e.key)] = true
				values = append(values, nftables.SetElement{Key: e.key, Val: e.value})
			}
		}
		for chunk := range slices.Chunk(values, perMessage) {
			if err := what(s, chunk); err != nil {
				return fmt.Errorf("change set %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// drop removes both tables.
func (t *tables) drop() error {
	c, done, err := openTables()
	if err != nil {
		return err
	}
	defer done()
	for _, table := range []*nftables.Table{t.inet, t.ether} {
		c.AddTable(table)
		c.DelTable(table)
	}
	return flush(c)
}

func flush(c *nftables.Conn) error {
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change the rules of nf_tables: %w", unsupported(err, "nf_tables"))
	}
	return nil
}

// A chain of one of our tables is a base chain if hook is not nil.
type chain struct {
	table    *nftables.Table
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    [][]expr.Any
}

func (ch chain) add(c *nftables.Conn, mark []byte) {
	made := &nftables.Chain{Name: ch.name, Table: ch.table}
	if ch.hook != nil {
		accept := nftables.ChainPolicyAccept
		made.Type, made.Hooknum, made.Priority, made.Policy = ch.kind, ch.hook, &ch.priority, &accept
	}
	c.AddChain(made)
	for _, r := range ch.rules {
		c.AddRule(&nftables.Rule{Table: ch.table, Chain: made, Exprs: r, UserData: mark})
	}
}

// chains are all of both tables, each before those that jump to it.
func (t *tables) chains() []chain { return append(t.inetChains(), t.etherChains()...) }

// early is before connection tracking and everybody's rules for the same hook.
const early nftables.ChainPriority = -310

func (t *tables) inetChains() (all []chain) {
	add := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) {
		all = append(all, chain{t.inet, name, kind, hook, priority, rules})
	}
	fromUs, toUs := in(t.bridges, iifname), in(t.bridges, oifname)
	notFromUs, notToUs := notIn(t.bridges, iifname), notIn(t.bridges, oifname)
	fromLoopback := rule(ipv4, ipSaddrTop.is([]byte{127}))
	toLoopback := rule(ipv4, ipDaddrTop.is([]byte{127}))
	filter, nat := nftables.ChainTypeFilter, nftables.ChainTypeNAT

	add("prerouting", filter, nftables.ChainHookPrerouting, early,
		// route_localnet lets the machine itself use published ports by 127.0.0.1; a
		// workload would reach what listens there.
		rule(fromUs, toLoopback, drop),
		// Frames for bridges themselves are the port's own packets to the kernel, which
		// would ask no rule for our bridges: see bridgeGroups.
		rule(linkPrefix(workloadLinks), drop),
		rule(linkPrefix(serverLinks), drop))

	byAddress := [][]expr.Any{
		rule(toHost(), ipv4, dnat(t.addr4, unix.NFPROTO_IPV4, ipDaddr, l4proto, dport)),
		rule(toHost(), ipv6, dnat(t.addr6, unix.NFPROTO_IPV6, ip6Daddr, l4proto, dport)),
		rule(toHost(), ipv4, dnat(t.any4, unix.NFPROTO_IPV4, l4proto, dport)),
		rule(toHost(), ipv6, dnat(t.any6, unix.NFPROTO_IPV6, l4proto, dport)),
	}
	add("published", nat, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest,
		append([][]expr.Any{
			rule(in(t.internal, iifname), back),
			// The kernel drops what comes in for 127.0.0.1, but only after this: a
			// neighbour of the machine would use ports that are published for it alone.
			rule(ipv4, toLoopback, back),
		}, byAddress...)...)
	add("published-here", nat, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest,
		// The kernel sends nothing from ::1 by another interface than lo, and takes
		// no answer for it: there is no route_localnet for IPv6. What is not
		// translated is refused at once, and clients go on to 127.0.0.1.
		append([][]expr.Any{rule(ipv6, ip6Daddr.is(loopback6), back)}, byAddress...)...)
	add("leaving", nat, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource,
		// A workload that asks for a port of a neighbour by the machine's address gets
		// its answer from that address.
		rule(in(t.pairs, iifname, oifname), ctDNAT(), masquerade),
		rule(fromUs, notToUs, masquerade),
		rule(toUs, fromLoopback, masquerade))

	// ctDNAT keeps out who reaches the machine and knows the way to its workloads:
	// a port is published on the addresses that were asked for only.
	add("into", "", nil, 0,
		rule(ctState(ctEstablished|ctRelated), accept),
		rule(in(t.internal, iifname), drop),
		rule(in(t.internal, oifname), drop),
		rule(ctDNAT(), ipv4, in(t.open4, ipDaddr, l4proto, dport), accept),
		rule(ctDNAT(), ipv6, in(t.open6, ip6Daddr, l4proto, dport), accept),
		rule(drop))

	// Here, too, what may pass is named: of a packet without a connection, as it is
	// invalid or not tracked, there is no status to ask for.
	forward := [][]expr.Any{
		rule(in(t.pairs, iifname, oifname), accept),
		rule(toUs, jump("into")),
		rule(in(t.internal, iifname), drop),
		// What connection tracking does not know would leave untranslated.
		rule(fromUs, ctState(ctNew|ctEstablished|ctRelated), accept),
		rule(fromUs, drop),
	}
	for _, guarded := range []part{rule(ipv4, in(t.guarded4, iifname)), rule(ipv6, in(t.guarded6, iifname))} {
		forward = append(forward,
			rule(guarded, ctState(ctEstablished|ctRelated), accept),
			rule(guarded, ctDNAT(), accept),
			rule(guarded, drop))
	}
	add("forward", filter, nftables.ChainHookForward, *nftables.ChainPriorityFilter, forward...)

	input := [][]expr.Any{
		rule(notFromUs, accept),
		rule(ctState(ctEstablished|ctRelated), accept),
		rule(icmp, icmpType.is([]byte{8}), accept), // echo request
	}
	for _, t := range []byte{128, 130, 131, 132, 135, 136, 143} { // echo, multicast listeners, neighbours
		input = append(input, rule(ndp, icmpType.is([]byte{t}), accept))
	}
	add("input", filter, nftables.ChainHookInput, *nftables.ChainPriorityFilter,
		append(input, rule(drop))...)
	// A redirect would send a workload past the published port, to whom it must not
	// talk directly.
	add("output", filter, nftables.ChainHookOutput, *nftables.ChainPriorityFilter,
		rule(toUs, icmp, icmpType.is([]byte{5}), drop),
		rule(toUs, ndp, icmpType.is([]byte{137}), drop),
		rule(toUs, in(t.apart, skuid), ctDNAT(), accept),
		rule(toUs, in(t.apart, skuid), drop))
	return all
}

func (t *tables) etherChains() (all []chain) {
	add := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) {
		all = append(all, chain{t.ether, name, kind, hook, priority, rules})
	}
	icmp6 := func(kind byte) part { return rule(ndp, icmpType.is([]byte{kind})) }
	unspecified := make([]byte, 16)
	// A rule whose field lies behind the end of the packet does not match: so what may
	// pass is named, and not what may not.
	add("arp", "", nil, 0,
		rule(arpKind.is([]byte{0, 1, 8, 0, 6, 4}), // Ethernet and IPv4
			in(t.macs, iifname, arpEther), in(t.ip4, iifname, arpIP), accept),
		rule(drop))
	add("ipv4", "", nil, 0,
		rule(udp, sport.is(port(67)), drop),         // DHCP server
		rule(igmp, icmpType.is([]byte{0x11}), drop), // query
		rule(in(t.ip4, iifname, ipSaddr), accept),
		rule(drop))
	six := [][]expr.Any{
		rule(icmp6(134), drop), // router advertisement
		rule(icmp6(137), drop), // redirect
		// A bridge that has heard a query drops what is for groups of which nobody says
		// again that he is in them: neighbours would not find each other any more.
		rule(icmp6(130), drop),
	}
	// Where the first fragment ends before the message begins, nothing above has
	// seen what it is (RFC 7112).
	for _, next := range []byte{0, 43, 44, 51, 60} {
		six = append(six, rule(fragmentOf.is([]byte{next}), drop))
	}
	add("ipv6", "", nil, 0, append(six,
		// Who has no address yet asks whether somebody has the one it wants, and says
		// what it listens to (RFC 4862, RFC 3590).
		rule(ip6Saddr.is(unspecified), icmp6(135), accept),
		rule(ip6Saddr.is(unspecified), icmp6(143), accept),
		rule(in(t.ip6, iifname, ip6Saddr), icmp6(136), in(t.ip6, iifname, ndTarget), accept), // neighbour advertisement
		rule(icmp6(136), drop),
		rule(udp, sport.is(port(547)), drop), // DHCPv6 server
		rule(in(t.ip6, iifname, ip6Saddr), accept),
		rule(drop))...)
	group := binary.NativeEndian.AppendUint32(nil, t.group)
	add("from", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, early,
		// One of ours that is in no set is about to go, or was left by somebody who was
		// killed: it sends nothing.
		rule(notIn(t.ports, iifname), iifgroup.isNot(group), accept),
		rule(notIn(t.macs, iifname, ethSaddr), drop),
		rule(ethGroup.is(bridgeGroups), drop),
		rule(etherARP, jump("arp")),
		rule(etherIPv4, jump("ipv4")),
		rule(etherIPv6, jump("ipv6")),
		rule(drop)) // VLAN tags, spanning tree, everything that is not IP
	add("to-bridge", nftables.ChainTypeFilter, nftables.ChainHookInput, -200,
		rule(in(t.ports, iifname), ethGroup.is(bridgeGroups), drop),
		rule(iifgroup.is(group), ethGroup.is(bridgeGroups), drop))
	return all
}

// bridgeGroups begins the addresses 01:80:c2:00:00:00 to 0f, which are for bridges
// (IEEE 802.1D). What is sent to them passes by the hook of chain from unless the
// bridge forwards it, see groupForward. Otherwise the kernel learns where the
// sender is, whoever that says to be, and takes an IP packet in it for one that
// came in by the port, which is in none of our sets.
var bridgeGroups = []byte{0x01, 0x80, 0xc2, 0, 0}

// groupForward has a bridge forward all those groups that can be set, so that they
// meet chain from. Of the others, 00 is forwarded where there is no spanning tree, 01
// is dropped by the kernel, and 02 meets chain to-bridge.
const groupForward uint16 = 0xfff8

var loopback6 = append(make([]byte, 15), 1)
