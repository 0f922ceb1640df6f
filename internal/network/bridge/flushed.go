package bridge

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Rules do not stay because they were made: `nft flush ruleset` takes them all, and
// so does a restart of nftables.service, which begins with it. Workloads go on
// without them. So they are looked for whenever a workload starts and whenever a
// command runs, and are made anew. So are those that another version made, which are
// other rules: that is no news to anybody.

// Flushed reports whether rules of ours are missing while the bridge of a network is
// there. Until they are back workloads send as whom they like, and reach the host,
// its 127.0.0.1 if it publishes ports there, and other networks. Error values are
// those of Obstacles.
func (s *Store) Flushed() (bool, error) {
	found, err := s.look()
	return found == missing, err
}

// look tells how the rules are found. Where there is no bridge none are needed.
func (s *Store) look() (condition, error) {
	found, err := s.t.look()
	if err != nil || found == whole {
		return found, err
	}
	up, err := s.anyBridge()
	if !up {
		found = whole
	}
	return found, err
}

// unflush makes the rules anew if somebody flushed them, or if another version made
// them. The lock is held.
func (s *Store) unflush() error {
	found, err := s.look()
	if err != nil || found == whole {
		return err
	}
	if err := s.rebuild(); err != nil {
		return fmt.Errorf("bring back the rules of networks, which were %s: %w", found, err)
	}
	return nil
}

// untold is there from when somebody without Warn brings back rules that were missing,
// as at the restart or the end of a workload, until a command tells of it.
func (s *Store) untold() string { return filepath.Join(s.running(), "flushed") }

// tellFlushed warns of what was possible while rules were missing, if nobody was told yet.
func (s *Store) tellFlushed() {
	if s.o.Warn != nil && os.Remove(s.untold()) == nil {
		s.o.Warn("rules of networks were missing, as after nft flush ruleset, and are back now: meanwhile workloads could reach the host and other networks, and send as others")
	}
}

// SweepRules makes the rules anew if somebody flushed them, or if another version made
// them, and warns of those that were flushed, whoever brought them back. As long as all
// are there it takes half a millisecond.
func (s *Store) SweepRules(ctx context.Context) error {
	if used, err := os.ReadDir(s.active()); err != nil || len(used) == 0 {
		return ignoreMissing(err)
	}
	found, err := s.look()
	if err == nil && found != whole {
		var unlock func()
		if unlock, err = s.lock(ctx); err == nil {
			err = s.unflush() // it may have been a network's end, or somebody was first
			unlock()
		}
	}
	if err == nil {
		s.tellFlushed()
	}
	return err
}

// condition is how our rules are found.
type condition string

const (
	whole   condition = "whole"
	missing condition = "flushed" // some, or all
	foreign condition = "made by another version"
)

// look reports whether every chain of both tables has as many rules as we make, and
// there are no others, by their mark. How many another version made nobody knows; it
// made some in each table.
func (t *tables) look() (condition, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return "", fmt.Errorf("open nf_tables: %w", unsupported(err, "nf_tables"))
	}
	defer c.Close()
	found, chains := whole, t.chains()
	for _, table := range []*nftables.Table{t.inet, t.ether} {
		ours, others, err := t.countRules(c, table)
		if err != nil {
			return "", fmt.Errorf("list the rules of table %s %s: %w", familyWord(table.Family), table.Name, unsupported(err, "nf_tables"))
		}
		if others > 0 {
			found = foreign
		}
		if others > 0 && len(ours) == 0 {
			continue
		}
		for _, ch := range chains {
			if ch.table == table && ours[ch.name] < len(ch.rules) {
				return missing, nil
			}
		}
	}
	return found, nil
}

// countRules returns how many rules of ours each chain of a table has, and how many
// others are in it; none if there is no such table. It reads no more than that, as
// every command asks.
func (t *tables) countRules(c *netlink.Conn, table *nftables.Table) (ours map[string]int, others int, err error) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table.Name), 0)}})
	if err != nil {
		return nil, 0, err
	}
	rules, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, name...), // struct nfgenmsg
	})
	if err != nil {
		return nil, 0, err
	}
	ours = map[string]int{}
	for _, r := range rules {
		ad, err := netlink.NewAttributeDecoder(r.Data[min(4, len(r.Data)):])
		if err != nil {
			return nil, 0, err
		}
		var chain string
		var marked bool
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_RULE_CHAIN:
				chain = ad.String()
			case unix.NFTA_RULE_USERDATA:
				marked = bytes.Equal(ad.Bytes(), t.mark)
			}
		}
		if err := ad.Err(); err != nil {
			return nil, 0, err
		}
		if marked {
			ours[chain]++
		} else {
			others++
		}
	}
	return ours, others, nil
}
