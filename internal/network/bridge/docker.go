package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Docker sets the policy of the chain FORWARD to drop, for all that the machine
// forwards, and offers the chain DOCKER-USER for exceptions. Where it is, a chain
// of ours is called from there, which accepts what concerns our bridges. What of
// that may pass at all is decided by our own tables all the same.
//
// It is written by the iptables program, of which Docker understands the result;
// rules that are added to iptables' tables in another way confuse it.
const (
	dockerChain = "DOCKER-USER"
	passChain   = "BULKHEAD"
)

// passRules are for all bridges of all state roots. They do not let workloads into
// Docker's networks: docker0 and br-…, unless the machine's own way out is called
// so. uplinks are the interfaces of default routes.
func passRules(uplinks []string) string {
	var b strings.Builder
	b.WriteString("*filter\n:" + passChain + " - [0:0]\n")
	add := func(rule string) { b.WriteString("-A " + passChain + " " + rule + "\n") }
	add("-i bh-+ -o bh-+ -j ACCEPT")
	add("-o bh-+ -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT")
	for _, u := range uplinks {
		if plainName(u) && !strings.HasPrefix(u, "bh-") {
			add("-i bh-+ -o " + u + " -j ACCEPT")
		}
	}
	add("-i bh-+ -o docker+ -j RETURN")
	add("-i bh-+ -o br-+ -j RETURN")
	add("-i bh-+ -j ACCEPT")
	b.WriteString("COMMIT\n")
	return b.String()
}

// plainName keeps what iptables-restore would read as something else out of its
// input: an interface's name may hold any byte but a slash and white space.
func plainName(link string) bool {
	for _, c := range []byte(link) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && !strings.ContainsRune("_.-", rune(c)) {
			return false
		}
	}
	return link != "" && link[0] != '-'
}

// An iptables is one of the programs that Docker may have used.
type iptables struct {
	family  nftables.TableFamily
	program string
	// passing tells that our chain is called from Docker's.
	passing bool
}

// ofDocker finds the tables that hold Docker's chain.
func ofDocker(ctx context.Context) ([]iptables, error) {
	var out []iptables
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	for _, v := range []struct {
		family            nftables.TableFamily
		nft, legacy, proc string
	}{
		{nftables.TableFamilyIPv4, "iptables-nft", "iptables-legacy", "/proc/net/ip_tables_names"},
		{nftables.TableFamilyIPv6, "ip6tables-nft", "ip6tables-legacy", "/proc/net/ip6_tables_names"},
	} {
		chain, err := findChain(c, v.family, "filter", dockerChain)
		if err != nil {
			return nil, err
		}
		if chain != nil {
			passing, err := calls(c, chain, passChain)
			if err != nil {
				return nil, err
			}
			out = append(out, iptables{v.family, v.nft, passing})
		}
		if names, err := os.ReadFile(v.proc); err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
			continue
		}
		rules, err := runTables(ctx, v.legacy, nil, "-w", "-S", dockerChain)
		if err == nil {
			passing := bytes.Contains(rules, []byte("-j "+passChain+"\n"))
			out = append(out, iptables{v.family, v.legacy, passing})
		}
	}
	return out, nil
}

func findChain(c *nftables.Conn, family nftables.TableFamily, table, name string) (*nftables.Chain, error) {
	all, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", unsupported(err, "nf_tables"))
	}
	for _, ch := range all {
		if ch.Name == name && ch.Table.Name == table {
			ch.Table.Family = family
			return ch, nil
		}
	}
	return nil, nil
}

// calls reports whether a rule of the chain jumps to another chain.
func calls(c *nftables.Conn, ch *nftables.Chain, to string) (bool, error) {
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return false, fmt.Errorf("list the rules of chain %s: %w", ch.Name, err)
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if v, ok := e.(*expr.Verdict); ok && v.Chain == to {
				return true, nil
			}
		}
	}
	return false, nil
}

// passDocker makes sure that Docker's rules let ours decide. anew writes them
// even where they are.
func (s *Store) passDocker(ctx context.Context, anew bool) error {
	found, err := ofDocker(ctx)
	if err != nil {
		return fmt.Errorf("look for Docker's firewall rules: %w", err)
	}
	for _, t := range found {
		if t.passing && !anew {
			continue
		}
		up, err := uplinks()
		if err != nil {
			return err
		}
		restore := t.program + "-restore" // iptables-nft-restore
		if _, err := runTables(ctx, restore, []byte(passRules(up)), "--noflush", "-w"); err != nil {
			return fmt.Errorf("pass Docker's firewall: %w", err)
		}
		if t.passing {
			continue
		}
		if _, err := runTables(ctx, t.program, nil, "-w", "-I", dockerChain, "-j", passChain); err != nil {
			return fmt.Errorf("pass Docker's firewall: %w", err)
		}
		did("Docker's chain calls ours")
	}
	return nil
}

// leaveDocker takes our chain away when no network of any state root is left.
func (s *Store) leaveDocker(ctx context.Context) error {
	all, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if slices.ContainsFunc(all, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "bh-") }) {
		return nil
	}
	found, err := ofDocker(ctx)
	if err != nil {
		return fmt.Errorf("look for Docker's firewall rules: %w", err)
	}
	var errs []error
	for _, t := range found {
		if !t.passing {
			continue
		}
		for _, args := range [][]string{{"-D", dockerChain, "-j", passChain}, {"-F", passChain}, {"-X", passChain}} {
			_, err := runTables(ctx, t.program, nil, append([]string{"-w"}, args...)...)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// uplinks are the interfaces of default routes.
func uplinks() ([]string, error) {
	var out []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("look at the host's routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && prefixOf(*r.Dst).Bits() != 0 {
				continue
			}
			l, err := netlink.LinkByIndex(r.LinkIndex)
			if err == nil && !slices.Contains(out, l.Attrs().Name) {
				out = append(out, l.Attrs().Name)
			}
		}
	}
	return out, nil
}

// sbin is where the programs are, whatever PATH a supervisor has.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"}

// tablesPatience is how long one of the programs may take: usually some
// milliseconds.
const tablesPatience = 15 * time.Second

// runTables runs one of the iptables programs. "iptables-nft" is just "iptables"
// on some systems.
func runTables(ctx context.Context, program string, stdin []byte, args ...string) ([]byte, error) {
	plain := strings.NewReplacer("-nft", "", "-legacy", "").Replace(program)
	for _, name := range []string{program, plain} {
		for _, dir := range sbin {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			// They wait for each other, and for whoever holds their lock for ever.
			ctx, cancel := context.WithTimeout(ctx, tablesPatience)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, args...)
			cmd.Stdin, cmd.Env = bytes.NewReader(stdin), []string{"LC_ALL=C", "PATH=" + strings.Join(sbin, ":")}
			out, err := cmd.CombinedOutput()
			if err != nil {
				return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
			}
			return out, nil
		}
	}
	return nil, fmt.Errorf("%w: the program %s is missing, by which Docker's firewall rules are changed; install iptables", workload.ErrUnsupported, plain)
}
