package runspec

import (
	"encoding/csv"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// defaultNetwork is that of --network.
const defaultNetwork = workload.DefaultNetwork

// Bounds on what one workload can ask for.
const (
	maxNetworks = 16
	maxAliases  = 64 // in one network
	maxServers  = 3  // resolv.conf(5): resolvers read no more
	maxSearch   = 32
	maxHosts    = 1024
)

const networkFix = "give none, host, user, or the name of a network, alone or as name=NAME[,alias=ALIAS][,ip=ADDRESS][,ip6=ADDRESS][,mac-address=ADDRESS]"

// NetworkFlags are the flags about networks as typed.
type NetworkFlags struct {
	Networks, Aliases         []string
	IP, IP6, MAC              string
	Publish, Expose           []string
	PublishAll                bool
	DNS, DNSSearch, DNSOption []string
	AddHost                   []string
}

// AddFlags binds them.
func (f *NetworkFlags) AddFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.Networks, "network", nil, "join this `network`, repeatable: a name of `bulkhead network ls`, none for loopback only, host for the host's own, or user for one without privilege; or name=NAME[,alias=…][,ip=…][,ip6=…][,mac-address=…] (default "+defaultNetwork+")")
	fs.StringArrayVar(&f.Aliases, "network-alias", nil, "another `name` of the workload in its network")
	fs.StringVar(&f.IP, "ip", "", "IPv4 `address` in its network, such as 172.30.1.5")
	fs.StringVar(&f.IP6, "ip6", "", "IPv6 `address` in its network")
	fs.StringVar(&f.MAC, "mac-address", "", "hardware `address` of its network interface, such as 02:42:ac:11:00:02")
	fs.StringArrayVarP(&f.Publish, "publish", "p", nil, "publish a port on the host: `[HOST-ADDRESS:][HOST-PORT:]PORT[/udp]`; ranges as 8000-8010:8000-8010")
	fs.BoolVarP(&f.PublishAll, "publish-all", "P", false, "publish every port that the image or --expose names, each on a port that is free")
	fs.StringArrayVar(&f.Expose, "expose", nil, "say that the workload serves a `PORT[-END][/udp]`, for -P and listings")
	fs.StringArrayVar(&f.DNS, "dns", nil, "`address` of a name server to ask in the place of the host's, up to three")
	fs.StringArrayVar(&f.DNSSearch, "dns-search", nil, "`domain` in which short names are looked up; \".\" for none")
	fs.StringArrayVar(&f.DNSOption, "dns-option", nil, "`option` of resolv.conf(5), such as ndots:2")
	fs.StringArrayVar(&f.AddHost, "add-host", nil, "add `NAME:ADDRESS` to /etc/hosts; host-gateway stands for the host's address")
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if now, ok := olderSpellings[name]; ok {
			name = now
		}
		return pflag.NormalizedName(name)
	})
}

// olderSpellings are Docker's, which it still takes.
var olderSpellings = map[string]string{"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option"}

// host reports whether the host's network is asked for.
func (f *NetworkFlags) host() bool { return slices.Contains(f.Networks, workload.NetworkHost) }

// network checks all flags about networks.
func (o *Options) network(r *Request, _ Host) error {
	f := &o.Network
	if err := f.attachments(&r.spec); err != nil {
		return err
	}
	if err := f.first(&r.spec); err != nil {
		return err
	}
	if err := r.publish(f.Publish); err != nil {
		return err
	}
	r.publishAll = f.PublishAll
	for _, s := range f.Expose {
		words, err := parseExpose("--expose", s)
		if err != nil {
			return err
		}
		if r.exposed = append(r.exposed, words...); len(r.exposed) > maxPorts {
			return bad("--expose", s, "too many ports with those before it", fmt.Sprintf("give at most %d", maxPorts))
		}
	}
	if err := f.names(&r.spec); err != nil {
		return err
	}
	return f.sense(&r.spec)
}

// attachments settles the kind of network and, in networks of the engine, which.
func (f *NetworkFlags) attachments(s *workload.Spec) error {
	all := f.Networks
	if len(all) == 0 {
		all = []string{defaultNetwork}
	}
	for _, text := range all {
		a, err := ParseAttachment(text)
		if err != nil {
			return err
		}
		switch a.Network {
		case workload.NetworkNone, workload.NetworkHost, workload.NetworkUser:
			if len(all) > 1 {
				return bad("--network", text, "it excludes every other network", "give it alone, or leave it out")
			}
			if a.Aliases != nil || a.IPv4.IsValid() || a.IPv6.IsValid() || a.MAC != "" {
				return bad("--network", text, "addresses and aliases have no meaning in it", "give its name alone")
			}
			s.Network = a.Network
			return nil
		}
		if slices.ContainsFunc(s.Networks, func(b workload.Attachment) bool { return b.Network == a.Network }) {
			return bad("--network", text, "the network is given twice", "give each network once")
		}
		s.Networks = append(s.Networks, a)
	}
	if len(s.Networks) > maxNetworks {
		return advice.New(fmt.Sprintf("%d networks are too many for one workload", len(s.Networks)), fmt.Sprintf("give at most %d", maxNetworks))
	}
	s.Network = workload.NetworkBridge
	return nil
}

// ParseAttachment reads one --network: a name, or Docker's long form.
func ParseAttachment(s string) (a workload.Attachment, err error) {
	if !strings.Contains(s, "=") {
		a.Network, err = networkName(s, s)
		return a, err
	}
	if strings.ContainsAny(s, "\x00\n\r") {
		return a, bad("--network", s, "a zero byte or line break is not allowed", networkFix)
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return a, bad("--network", s, "badly quoted fields", networkFix)
	}
	seen := map[string]bool{}
	for _, field := range fields {
		k, v, ok := strings.Cut(field, "=")
		if k = strings.ToLower(k); !ok || v == "" {
			return a, bad("--network", s, fmt.Sprintf("%q is not KEY=VALUE", field), networkFix)
		}
		if seen[k] && k != "alias" {
			return a, bad("--network", s, fmt.Sprintf("key %q is given twice", k), "give it once")
		}
		seen[k] = true
		if err := attachmentField(&a, s, k, v); err != nil {
			return a, err
		}
	}
	if a.Network == "" {
		return a, bad("--network", s, "the network's name is missing", networkFix)
	}
	return a, nil
}

// ParseConnection reads what `network connect` asks for. The network may be given
// by the beginning of its ID.
func ParseConnection(name string, aliases []string, ip, ip6 string) (a workload.Attachment, err error) {
	switch name {
	case workload.NetworkNone, workload.NetworkHost, workload.NetworkUser:
		return a, advice.New(fmt.Sprintf("network %q excludes every other, and cannot be joined later", name), "make the workload again with --network "+name)
	}
	if a.Network, err = networkName(name, name); err != nil {
		return a, err
	}
	for _, alias := range aliases {
		if a.Aliases, err = addAlias(a.Aliases, "--alias", alias); err != nil {
			return a, err
		}
	}
	if ip != "" {
		if a.IPv4, err = address("--ip", ip, true); err != nil {
			return a, err
		}
	}
	if ip6 != "" {
		if a.IPv6, err = address("--ip6", ip6, false); err != nil {
			return a, err
		}
	}
	return a, nil
}

func attachmentField(a *workload.Attachment, s, key, v string) (err error) {
	switch key {
	case "name":
		a.Network, err = networkName(s, v)
	case "alias":
		a.Aliases, err = addAlias(a.Aliases, "--network alias", v)
	case "ip":
		a.IPv4, err = address("--network ip", v, true)
	case "ip6":
		a.IPv6, err = address("--network ip6", v, false)
	case "mac-address":
		a.MAC, err = parseMAC("--network mac-address", v)
	case "link-local-ip", "driver-opt", "gw-priority":
		err = bad("--network", s, fmt.Sprintf("key %q is not available in this version", key), "leave it out")
	default:
		err = bad("--network", s, fmt.Sprintf("unknown key %q", key), networkFix)
	}
	return err
}

// networkName checks a network's name. "default" is Docker's other word for
// bridge.
func networkName(s, name string) (string, error) {
	switch {
	case name == "default":
		return workload.DefaultNetwork, nil
	case strings.HasPrefix(name, "container:") || strings.HasPrefix(name, "ns:"):
		return "", bad("--network", s, "a workload cannot share another's network namespace", "join both to one network, in which they reach each other by name")
	case CheckNetworkName(name) != nil && !isID(name):
		return "", bad("--network", s, fmt.Sprintf("%q is not the name of a network", name), networkFix)
	}
	return name, nil
}

// CheckNetworkName reports whether name may name a network; the rules are those
// of workloads.
func CheckNetworkName(name string) error {
	if CheckName(name) != nil {
		return bad("network", name, "not a valid name", nameFix)
	}
	return nil
}

// isID reports whether s looks like the whole ID of a network.
func isID(s string) bool {
	_, err := workload.ParseID(s)
	return err == nil
}

// first applies the flags that describe one NIC to the first network, as Docker
// does.
func (f *NetworkFlags) first(s *workload.Spec) error {
	given := ""
	for _, flag := range []struct {
		name  string
		given bool
	}{{"--network-alias", f.Aliases != nil}, {"--ip", f.IP != ""}, {"--ip6", f.IP6 != ""}, {"--mac-address", f.MAC != ""}} {
		if flag.given {
			given = flag.name
		}
	}
	if given == "" {
		return nil
	}
	if len(s.Networks) == 0 {
		return advice.New(fmt.Sprintf("%s has no meaning with --network %s", given, s.Network), "name a network with --network, or leave it out")
	}
	a, err := &s.Networks[0], error(nil)
	twice := func(flag string) error {
		return advice.New(fmt.Sprintf("%s is given, and so is its part of --network %s", flag, a.Network), "give one of the two")
	}
	if f.Aliases != nil && a.Aliases != nil {
		return twice("--network-alias")
	}
	for _, alias := range f.Aliases {
		if a.Aliases, err = addAlias(a.Aliases, "--network-alias", alias); err != nil {
			return err
		}
	}
	if f.IP != "" {
		if a.IPv4.IsValid() {
			return twice("--ip")
		}
		if a.IPv4, err = address("--ip", f.IP, true); err != nil {
			return err
		}
	}
	if f.IP6 != "" {
		if a.IPv6.IsValid() {
			return twice("--ip6")
		}
		if a.IPv6, err = address("--ip6", f.IP6, false); err != nil {
			return err
		}
	}
	if f.MAC != "" {
		if a.MAC != "" {
			return twice("--mac-address")
		}
		a.MAC, err = parseMAC("--mac-address", f.MAC)
	}
	return err
}

// addAlias adds a name under which the name server shall know the workload.
func addAlias(to []string, flag, name string) ([]string, error) {
	if !isHostname(name, 253) {
		return nil, bad(flag, name, "not a name", "use letters, digits, hyphens and dots, such as db or db.internal")
	}
	if len(to) == maxAliases {
		return nil, bad(flag, name, "too many aliases", fmt.Sprintf("give at most %d", maxAliases))
	}
	return append(to, name), nil
}

// address reads an address that a NIC can have.
func address(flag, s string, v4 bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4() != v4 || a.Zone() != "" || a.Is4In6() {
		if v4 {
			return a, bad(flag, s, "not an IPv4 address", "write it as 172.30.1.5")
		}
		return a, bad(flag, s, "not an IPv6 address", "write it as fd00:30::5")
	}
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return a, bad(flag, s, "no address for a workload", "choose one inside the subnet that `bulkhead network inspect` shows")
	}
	return a, nil
}

// parseMAC reads the address of an Ethernet interface.
func parseMAC(flag, s string) (string, error) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 {
		return "", bad(flag, s, "not a hardware address", "write six pairs of hexadecimal digits, such as 02:42:ac:11:00:02")
	}
	if m[0]&1 != 0 || slices.Equal(m, make(net.HardwareAddr, 6)) {
		return "", bad(flag, s, "not the address of one interface", "make the first pair an even number that is not 00, such as 02")
	}
	return m.String(), nil
}

// names checks what goes into /etc/resolv.conf and /etc/hosts.
func (f *NetworkFlags) names(s *workload.Spec) error {
	for _, text := range f.DNS {
		a, err := netip.ParseAddr(text)
		// A zone may be any text, and a line break in it would begin a line of its own.
		odd := strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' || c == ';' })
		if err != nil || odd || a.IsUnspecified() || a.IsMulticast() {
			return bad("--dns", text, "not the address of a name server", "give an IPv4 or IPv6 address, such as 9.9.9.9")
		}
		s.DNS.Servers = append(s.DNS.Servers, a)
	}
	if len(f.DNS) > maxServers {
		return advice.New(fmt.Sprintf("%d name servers are too many", len(f.DNS)), fmt.Sprintf("give at most %d: programs ask no more", maxServers))
	}
	for _, domain := range f.DNSSearch {
		if domain != "." && !isHostname(strings.TrimSuffix(domain, "."), 253) {
			return bad("--dns-search", domain, "not a domain", "write it as example.org, or . for none")
		}
		s.DNS.Search = append(s.DNS.Search, domain)
	}
	if len(s.DNS.Search) > 1 && slices.Contains(s.DNS.Search, ".") {
		return advice.New(`--dns-search "." means none, and there are others`, "leave out one of the two")
	}
	if len(s.DNS.Search) > maxSearch {
		return advice.New(fmt.Sprintf("%d search domains are too many", len(s.DNS.Search)), fmt.Sprintf("give at most %d", maxSearch))
	}
	for _, option := range f.DNSOption {
		if option == "" || len(option) > 64 || strings.ContainsFunc(option, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' || c == ';' }) {
			return bad("--dns-option", option, "not an option of resolv.conf(5)", "write it as ndots:2 or rotate")
		}
		s.DNS.Options = append(s.DNS.Options, option)
	}
	if len(f.DNSOption) > maxSearch {
		return advice.New(fmt.Sprintf("%d options are too many", len(f.DNSOption)), fmt.Sprintf("give at most %d", maxSearch))
	}
	for _, text := range f.AddHost {
		e, err := parseHost(text)
		if err != nil {
			return err
		}
		s.ExtraHosts = append(s.ExtraHosts, e)
	}
	if len(f.AddHost) > maxHosts {
		return advice.New(fmt.Sprintf("%d --add-host are too many", len(f.AddHost)), fmt.Sprintf("give at most %d, or mount a file over /etc/hosts", maxHosts))
	}
	return nil
}

// hostGateway is --add-host's word for the host as seen from the workload.
const hostGateway = "host-gateway"

// parseHost reads NAME:ADDRESS, or NAME=ADDRESS; brackets around IPv6 are
// allowed.
func parseHost(s string) (e workload.HostEntry, err error) {
	const flag, fix = "--add-host", "write NAME:ADDRESS, such as db:172.30.1.5, or NAME:host-gateway"
	i := strings.IndexAny(s, ":=")
	if i < 0 {
		return e, bad(flag, s, "the address is missing", fix)
	}
	name, text := s[:i], s[i+1:]
	if !isHostname(name, 253) {
		return e, bad(flag, s, fmt.Sprintf("%q is not a name", name), fix)
	}
	e.Name = name
	if text == hostGateway {
		return e, nil
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	if e.Addr, err = netip.ParseAddr(text); err != nil || e.Addr.Zone() != "" {
		return e, bad(flag, s, fmt.Sprintf("%q is not an address", text), fix)
	}
	return e, nil
}

// sense refuses what would silently be without effect.
func (f *NetworkFlags) sense(s *workload.Spec) error {
	toHost := slices.ContainsFunc(s.ExtraHosts, func(e workload.HostEntry) bool { return !e.Addr.IsValid() })
	const join = "join a network with --network NAME, or leave it out"
	switch s.Network {
	case workload.NetworkHost:
		if len(f.Publish) > 0 || f.PublishAll {
			return advice.New("with --network host there is nothing to publish: the workload's ports are the host's own", "leave out the ports, or join a network with --network NAME")
		}
	case workload.NetworkNone:
		switch {
		case len(f.Publish) > 0 || f.PublishAll:
			return advice.New("ports of a workload with --network none cannot be published: nothing leads to it", join)
		case toHost:
			return advice.New("with --network none the host has no address for the workload", join)
		}
	}
	return nil
}
