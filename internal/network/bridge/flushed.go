package bridge

import (
	"context"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Rules do not stay because they were made: `nft flush ruleset` takes them all, and
// so does a restart of nftables.service, which begins with it. Workloads go on
// without them. So they are looked for whenever a workload starts and whenever a
// command runs, and are made anew.

// Flushed reports whether rules of ours are missing while the bridge of a network is
// there. Until they are back workloads send as whom they like, and reach the host,
// its 127.0.0.1 if it publishes ports there, and other networks. Error values are
// those of Obstacles.
func (s *Store) Flushed() (bool, error) {
	if complete, err := s.t.complete(); err != nil || complete {
		return false, err
	}
	return s.anyBridge()
}

// unflush makes the rules anew if somebody flushed them, and warns of what was
// possible meanwhile. The lock is held.
func (s *Store) unflush() error {
	flushed, err := s.Flushed()
	if err != nil || !flushed {
		return err
	}
	if err := s.rebuild(); err != nil {
		return fmt.Errorf("bring back the rules of networks, which were flushed: %w", err)
	}
	if s.o.Warn != nil {
		s.o.Warn("rules of networks were missing, as after nft flush ruleset, and are back now: meanwhile workloads could reach the host and other networks, and send as others")
	}
	return nil
}

// SweepRules makes the rules anew if somebody flushed them, and warns of it. As
// long as all are there it takes half a millisecond.
func (s *Store) SweepRules(ctx context.Context) error {
	if used, err := os.ReadDir(s.active()); err != nil || len(used) == 0 {
		return ignoreMissing(err)
	}
	if flushed, err := s.Flushed(); err != nil || !flushed {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.unflush() // it may have been a network's end, or somebody was first
}

// complete reports whether every chain of both tables has as many rules as we make.
func (t *tables) complete() (bool, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, fmt.Errorf("open nf_tables: %w", unsupported(err, "nf_tables"))
	}
	defer c.Close()
	for _, table := range []*nftables.Table{t.inet, t.ether} {
		there, err := countRules(c, table)
		if err != nil {
			return false, fmt.Errorf("list the rules of table %s %s: %w", familyWord(table.Family), table.Name, unsupported(err, "nf_tables"))
		}
		for _, ch := range t.chains() {
			if ch.table == table && there[ch.name] != len(ch.rules) {
				return false, nil
			}
		}
	}
	return true, nil
}

// countRules returns how many rules each chain of a table has; none if there is no
// such table. It reads no more than that, as every command asks.
func countRules(c *netlink.Conn, table *nftables.Table) (map[string]int, error) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table.Name), 0)}})
	if err != nil {
		return nil, err
	}
	rules, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, name...), // struct nfgenmsg
	})
	if err != nil {
		return nil, err
	}
	n := map[string]int{}
	for _, r := range rules {
		ad, err := netlink.NewAttributeDecoder(r.Data[min(4, len(r.Data)):])
		if err != nil {
			return nil, err
		}
		for ad.Next() {
			if ad.Type() == unix.NFTA_RULE_CHAIN {
				n[ad.String()]++
			}
		}
		if err := ad.Err(); err != nil {
			return nil, err
		}
	}
	return n, nil
}
