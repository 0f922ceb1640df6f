package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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

// passRules are for all bridges of all state roots. They let workloads out by the
// interfaces that exits returns and by no other: a network that Docker makes later,
// or calls as it likes, is Docker's to protect. Answers go out by any, as who asks for
// a published port may be behind a bridge that is no way out.
func passRules(exits []string) string {
	var b strings.Builder
	b.WriteString("*filter\n:" + passChain + " - [0:0]\n")
	add := func(rule string) { b.WriteString("-A " + passChain + " " + rule + "\n") }
	add("-i bh-+ -o bh-+ -j ACCEPT")
	add("-o bh-+ -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT")
	add("-i bh-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	for _, out := range exits {
		if plainName(out) {
			add("-i bh-+ -o " + out + " -j ACCEPT")
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// passed is what there is of passRules: how many rules, and the interfaces that one
// of them names for what leaves, as sorted names.
type passed struct {
	rules int
	exits []string
}

// current reports whether these are the rules that passRules makes.
func (p passed) current(exits []string) bool {
	exits = slices.DeleteFunc(slices.Clone(exits), func(out string) bool { return !plainName(out) })
	return p.rules == 3+len(exits) && slices.Equal(p.exits, exits)
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
	// passing tells that our chain is called from Docker's, passed what is in it.
	passing bool
	passed  passed
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
			t := iptables{family: v.family, program: v.nft, passing: passing}
			if passing {
				if t.passed, err = passedIn(c, chain.Table); err != nil {
					return nil, err
				}
			}
			out = append(out, t)
		}
		if names, err := os.ReadFile(v.proc); err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
			continue
		}
		rules, err := runTables(ctx, v.legacy, nil, "-w", "-S", dockerChain)
		if err == nil {
			t := iptables{family: v.family, program: v.legacy, passing: bytes.Contains(rules, []byte("-j "+passChain+"\n"))}
			if t.passing {
				if rules, err = runTables(ctx, v.legacy, nil, "-w", "-S", passChain); err != nil {
					return nil, err
				}
				t.passed = passedOf(string(rules))
			}
			out = append(out, t)
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

// passedIn reads our chain in a table of nf_tables, passedOf what `iptables -S` says of
// it.
func passedIn(c *nftables.Conn, table *nftables.Table) (p passed, err error) {
	rules, err := c.GetRules(table, &nftables.Chain{Name: passChain})
	if err != nil {
		return p, fmt.Errorf("list the rules of chain %s: %w", passChain, err)
	}
	for _, r := range rules {
		p.rules++
		var key expr.MetaKey
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Meta:
				key = e.Key
			case *expr.Cmp:
				// A whole name ends with a 0, the beginning of one does not.
				if out, whole := bytes.CutSuffix(e.Data, []byte{0}); whole && key == expr.MetaKeyOIFNAME {
					p.exits = append(p.exits, string(bytes.TrimRight(out, "\x00")))
				}
			}
		}
	}
	slices.Sort(p.exits)
	return p, nil
}

func passedOf(rules string) (p passed) {
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "-A" {
			continue
		}
		p.rules++
		if i := slices.Index(words, "-o"); i >= 0 && i+1 < len(words) && !strings.HasSuffix(words[i+1], "+") {
			p.exits = append(p.exits, words[i+1])
		}
	}
	slices.Sort(p.exits)
	return p
}

// passDocker makes sure that Docker's rules let ours decide, as the host's interfaces
// are now. anew writes them even where they are.
func (s *Store) passDocker(ctx context.Context, anew bool) error {
	found, err := ofDocker(ctx)
	if err != nil {
		return fmt.Errorf("look for Docker's firewall rules: %w", err)
	}
	if len(found) == 0 {
		return nil
	}
	out, err := exits()
	if err != nil {
		return err
	}
	for _, t := range found {
		if t.passing && !anew && t.passed.current(out) {
			continue
		}
		restore := t.program + "-restore" // iptables-nft-restore
		if _, err := runTables(ctx, restore, []byte(passRules(out)), "--noflush", "-w"); err != nil {
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
	all, _, err := dump(netlink.LinkList)
	if err != nil {
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

// exits are the interfaces by which workloads leave the host, sorted by name: those
// that are up and neither a bridge nor in one, and those of default routes, which may
// be bridges.
func exits() ([]string, error) {
	all, _, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names, bridges := map[int]string{}, map[int]bool{}
	for _, l := range all {
		names[l.Attrs().Index], bridges[l.Attrs().Index] = l.Attrs().Name, l.Type() == "bridge"
	}
	var out []string
	for _, l := range all {
		a := l.Attrs()
		if a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && !bridges[a.Index] && !bridges[a.MasterIndex] {
			out = append(out, a.Name)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, _, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_DST)
		})
		if err != nil {
			return nil, fmt.Errorf("look at the host's routes: %w", err)
		}
		for _, r := range routes {
			if name := names[r.LinkIndex]; name != "" && !strings.HasPrefix(name, "bh-") {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
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
