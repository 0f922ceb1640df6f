package bridge

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Obstacle is a part of somebody else's firewall that concerns our packets, or that
// ours is not there.
type Obstacle struct {
	// Where names it: "table ip filter, chain FORWARD".
	Where string `json:"where"`
	// What it does, and Fix what to do about it: a sentence each.
	What string `json:"what"`
	Fix  string `json:"fix"`
	// Bypassed tells that it does not stop our packets though one could think so.
	Bypassed bool `json:"bypassed,omitempty"`
}

// Obstacles looks for rules of others that stop packets of our networks: an accept
// in our table does not override a drop in another. It finds base chains that drop
// what none of their rules accepts, and no rule that names our bridges; it does not
// find a drop of one address among other rules. Chains on the way in are listed as
// Bypassed: they do not apply to published ports. Rules of ours that somebody
// flushed, see Flushed, come first.
func (s *Store) Obstacles(ctx context.Context) ([]Obstacle, error) {
	all, err := s.obstacles(ctx)
	if err != nil {
		return nil, err
	}
	flushed, err := s.Flushed()
	if err != nil {
		return nil, err
	}
	if flushed {
		all = slices.Insert(all, 0, Obstacle{
			Where: "tables inet and bridge " + s.t.inet.Name,
			What:  "rules of networks are missing, as after nft flush ruleset: workloads reach the host and other networks, and send as others",
			Fix:   "bring them back: bulkhead network repair",
		})
	}
	return all, nil
}

// obstacles are those that others are.
func (s *Store) obstacles(ctx context.Context) ([]Obstacle, error) {
	w, err := lookAround()
	if err != nil {
		return nil, fmt.Errorf("look at the host's firewall: %w", err)
	}
	var out []Obstacle
	for _, ch := range w.base {
		if o, ok := w.judge(ch); ok {
			out = append(out, o)
		}
	}
	return append(out, legacyObstacles(ctx)...), nil
}

// warnings are those that others are as sentences for whoever starts a workload; those that are
// Bypassed only when it publishes a port to more than the host itself.
func (s *Store) warnings(ctx context.Context, open bool) ([]string, error) {
	all, err := s.obstacles(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range all {
		if !o.Bypassed || open {
			out = append(out, fmt.Sprintf("%s: %s; %s", o.Where, o.What, o.Fix))
		}
	}
	return out, nil
}

// surroundings are the chains of others.
type surroundings struct {
	c    *nftables.Conn
	base []*nftables.Chain
	all  map[string]*nftables.Chain // by chainKey
}

func chainKey(t *nftables.Table, name string) string {
	return fmt.Sprintf("%d %s %s", t.Family, t.Name, name)
}

func familyWord(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return "inet"
}

func lookAround() (*surroundings, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	w := &surroundings{c: c, all: map[string]*nftables.Chain{}}
	for _, f := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyBridge} {
		chains, err := c.ListChainsOfTableFamily(f)
		if err != nil {
			return nil, unsupported(err, "nf_tables")
		}
		for _, ch := range chains {
			ch.Table.Family = f
			if strings.HasPrefix(ch.Table.Name, "bulkhead") {
				continue
			}
			w.all[chainKey(ch.Table, ch.Name)] = ch
			if ch.Hooknum != nil && ch.Type == nftables.ChainTypeFilter {
				w.base = append(w.base, ch)
			}
		}
	}
	return w, nil
}

// judge says what a base chain means for our packets, if it means anything.
func (w *surroundings) judge(ch *nftables.Chain) (Obstacle, bool) {
	forward, input := *ch.Hooknum == *nftables.ChainHookForward, *ch.Hooknum == *nftables.ChainHookInput
	if !forward && (!input || ch.Table.Family == nftables.TableFamilyBridge) {
		return Obstacle{}, false
	}
	o := Obstacle{Where: fmt.Sprintf("table %s %s, chain %s", familyWord(ch.Table.Family), ch.Table.Name, ch.Name)}
	v := verdicts{w: w, seen: map[string]bool{}}
	v.walk(ch)
	drops := v.drops
	if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
		drops = "policy drop"
	}
	if drops == "" {
		return o, false
	}
	if input {
		o.Bypassed = true
		o.What = fmt.Sprintf("what comes in and is not accepted there is dropped (%s), but that does not apply to published ports, which are forwarded", drops)
		o.Fix = "publish on an address such as 127.0.0.1 what is not for everybody"
		return o, true
	}
	var stopped []string
	if !v.from {
		stopped = append(stopped, "packets from workloads to elsewhere")
	}
	if !v.to {
		stopped = append(stopped, "packets to published ports and answers")
	}
	if len(stopped) == 0 {
		return o, false
	}
	o.What = fmt.Sprintf("%s do not pass unless a rule there accepts them (%s), whatever our own rules say", strings.Join(stopped, ", and "), drops)
	o.Fix = w.fix(ch)
	return o, true
}

// fix is what to do about a chain that drops, in the words of whose it is.
func (w *surroundings) fix(ch *nftables.Chain) string {
	has := func(name string) bool { return w.all[chainKey(ch.Table, name)] != nil }
	switch {
	case ch.Table.Name == "firewalld":
		return "put the bridges into a zone that accepts: firewall-cmd --zone=trusted --add-interface=BRIDGE, for each bridge of bulkhead network inspect"
	case has("ufw-before-forward") || has("ufw6-before-forward"):
		return "allow it for each bridge of bulkhead network inspect: ufw route allow in on BRIDGE, and ufw route allow out on BRIDGE"
	case has(dockerChain):
		return "have the exception for it written anew: bulkhead network repair"
	}
	family, table := familyWord(ch.Table.Family), ch.Table.Name
	return fmt.Sprintf("accept it there: nft insert rule %s %s %s iifname \"bh-*\" accept; nft insert rule %s %s %s oifname \"bh-*\" accept",
		family, table, ch.Name, family, table, ch.Name)
}

// verdicts is what is known of the rules of a base chain and those that it calls.
type verdicts struct {
	w    *surroundings
	seen map[string]bool
	// from and to tell that a rule that names our bridges accepts packets from, to
	// them.
	from, to bool
	// drops is "" or describes a rule that drops everything that comes to it.
	drops string
}

func (v *verdicts) walk(ch *nftables.Chain) {
	key := chainKey(ch.Table, ch.Name)
	if v.seen[key] {
		return
	}
	v.seen[key] = true
	rules, err := v.w.c.GetRules(ch.Table, ch)
	if err != nil {
		return // gone meanwhile
	}
	for _, r := range rules {
		m := read(r.Exprs)
		switch {
		case m.accept && m.iif:
			v.from = true
			v.to = v.to || m.oif
		case m.accept && m.oif:
			v.to = true
		case m.accept && m.always && v.drops == "":
			v.from, v.to = true, true
		case m.drop && m.always && v.drops == "":
			v.drops = "a rule that drops the rest"
		}
		if next := v.w.all[chainKey(ch.Table, m.to)]; m.to != "" && next != nil && (m.always || m.iif || m.oif) {
			v.walk(next)
		}
	}
}

// meaning is what a rule does, as far as it matters.
type meaning struct {
	always       bool // there is no condition
	iif, oif     bool // it names our bridges
	accept, drop bool
	to           string // the chain that it jumps or goes to
}

func read(exprs []expr.Any) meaning {
	m := meaning{always: true}
	var key expr.MetaKey
	var loaded bool
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			key, loaded, m.always = e.Key, true, false
		case *expr.Cmp:
			m.always = false
			ours := loaded && e.Op == expr.CmpOpEq && strings.HasPrefix(strings.TrimRight(string(e.Data), "\x00"), "bh-")
			m.iif = m.iif || ours && key == expr.MetaKeyIIFNAME
			m.oif = m.oif || ours && key == expr.MetaKeyOIFNAME
			loaded = false
		case *expr.Counter, *expr.Log:
		case *expr.Verdict:
			switch e.Kind {
			case expr.VerdictAccept:
				m.accept = true
			case expr.VerdictDrop:
				m.drop = true
			case expr.VerdictJump, expr.VerdictGoto:
				m.to = e.Chain
			}
		case *expr.Reject:
			m.drop = true
		case *expr.Target:
			m.drop = m.drop || e.Name == "REJECT"
			m.always = m.always && e.Name == "REJECT"
		default:
			m.always, loaded = false, false
		}
	}
	return m
}

// legacyObstacles are those in the tables of iptables-legacy, which nf_tables does
// not show.
func legacyObstacles(ctx context.Context) (out []Obstacle) {
	for _, v := range []struct{ program, proc, family string }{
		{"iptables-legacy", "/proc/net/ip_tables_names", "IPv4"},
		{"ip6tables-legacy", "/proc/net/ip6_tables_names", "IPv6"},
	} {
		if names, err := os.ReadFile(v.proc); err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
			continue
		}
		rules, err := runTables(ctx, v.program, nil, "-w", "-S")
		if err != nil {
			continue
		}
		text := string(rules)
		if strings.Contains(text, "-P FORWARD DROP") && !strings.Contains(text, "bh-") {
			out = append(out, Obstacle{
				Where: v.program + ", chain FORWARD", What: "packets from workloads to elsewhere, and to published ports, do not pass unless a rule there accepts them (policy drop), whatever our own rules say",
				Fix: fmt.Sprintf("accept it there: %s -I FORWARD -i bh-+ -j ACCEPT; %s -I FORWARD -o bh-+ -j ACCEPT", v.program, v.program),
			})
		}
	}
	return out
}
