// Package etc writes the files below /etc that a workload gets from the engine,
// because their contents depend on the host, its networks and the workload's
// names, and not on the image: hostname, hosts, resolv.conf. It makes text and
// touches no file but the host's own, which it reads.
package etc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Net is what a workload's files say of its networks; zero before it is in any.
type Net struct {
	NICs        []workload.NIC
	Nameservers []netip.Addr
	Forward     bool         // Nameservers ask those that the workload asks for
	Host        []netip.Addr // the host as seen from the workload
}

// Hostname is /etc/hostname.
func Hostname(s *workload.Spec) []byte {
	name := s.Hostname
	if s.Namespaces.HostUTS {
		name, _ = os.Hostname()
	}
	return []byte(name + "\n")
}

const loopback = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

// Hosts is /etc/hosts, see hosts(5): loopback, what --add-host asks for, and the
// workload's own addresses and names. With the host's network it begins with the
// host's file.
func Hosts(s *workload.Spec, n Net) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(loopback)
	host := n.Host
	if s.Network == workload.NetworkHost {
		text, err := hostFile("/etc/hosts")
		if err != nil {
			return nil, err
		}
		b.Reset()
		b.Write(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			b.WriteByte('\n')
		}
		host = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	for _, e := range s.ExtraHosts {
		addrs := []netip.Addr{e.Addr}
		if !e.Addr.IsValid() {
			addrs = host
		}
		for _, a := range addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a, e.Name)
		}
	}
	names := ownNames(s)
	switch {
	case s.Network == workload.NetworkHost || names == "":
	case len(n.NICs) == 0:
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", names)
	default:
		for _, nic := range n.NICs {
			for _, p := range nic.Addresses {
				fmt.Fprintf(&b, "%s\t%s\n", p.Addr(), names)
			}
		}
	}
	return b.Bytes(), nil
}

// ownNames are the host name, its part before the first dot, and the workload's
// name, each once.
func ownNames(s *workload.Spec) string {
	if s.Hostname == "" {
		return ""
	}
	out := []string{s.Hostname}
	if short, _, dotted := strings.Cut(s.Hostname, "."); dotted {
		out = append(out, short)
	}
	if s.Network == workload.NetworkBridge && s.Name != "" && s.Name != s.Hostname {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

// Resolv is /etc/resolv.conf, see resolv.conf(5). What the workload asks for
// replaces what the host whose network it has would say, and what its network
// would, unless that asks those servers for it.
func Resolv(s *workload.Spec, n Net) ([]byte, error) {
	if s.Network == workload.NetworkHost && len(s.DNS.Servers)+len(s.DNS.Search)+len(s.DNS.Options) == 0 {
		return hostFile("/etc/resolv.conf")
	}
	var hosts resolver
	if s.Network != workload.NetworkNone {
		text, err := hostFile("/etc/resolv.conf")
		if err != nil {
			return nil, err
		}
		hosts = parseResolver(text)
	}
	r := resolver{servers: s.DNS.Servers, search: s.DNS.Search, options: s.DNS.Options}
	ours := s.Network == workload.NetworkBridge && len(n.Nameservers) > 0 && (n.Forward || len(r.servers) == 0)
	if ours || len(r.servers) == 0 {
		r.servers = n.Nameservers
		if s.Network == workload.NetworkHost {
			r.servers = hosts.servers
		}
	}
	if len(r.search) == 0 {
		r.search = hosts.search
	}
	if len(r.options) == 0 && s.Network == workload.NetworkHost {
		r.options = hosts.options
	}
	if ours && !slices.ContainsFunc(r.options, isNdots) {
		// Names of workloads have no dot. Without this a C library would first ask for
		// them in the domains of the search list: others would hear of all of them, and
		// could answer, as they still can for those that are not there.
		r.options = append(slices.Clone(r.options), "ndots:0")
	}
	return r.text(), nil
}

func isNdots(option string) bool { return strings.HasPrefix(option, "ndots:") }

// resolver is the contents of a resolv.conf.
type resolver struct {
	servers         []netip.Addr
	search, options []string
}

func (r resolver) text() []byte {
	var b bytes.Buffer
	for n, a := range r.servers {
		if n < maxServers {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.Bytes()
}

// maxServers is how many a C library asks, maxWords how many search domains or
// options are taken over from the host.
const maxServers, maxWords = 3, 32

// parseResolver reads what the host's file says, and skips what it cannot read:
// the host's own C library does.
func parseResolver(text []byte) (r resolver) {
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil && len(r.servers) < maxServers {
				r.servers = append(r.servers, a)
			}
		case "search", "domain": // the last one counts
			r.search = words[1:min(len(words), 1+maxWords)]
		case "options":
			r.options = append(r.options, words[1:]...)
			r.options = r.options[:min(len(r.options), maxWords)]
		}
	}
	return r
}

// maxHostFile bounds what is copied of a host's file, in bytes.
const maxHostFile = 1 << 20

func hostFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxHostFile))
}
