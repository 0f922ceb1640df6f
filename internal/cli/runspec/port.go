package runspec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxPorts is how many ports a workload can publish: each is a socket that its
// supervisor holds and a rule that packets pass.
const maxPorts = 1024

const (
	publishFix = "write --publish [HOST-ADDRESS:][HOST-PORT[-END]:]PORT[-END][/tcp|udp], such as -p 8080:80, -p 127.0.0.1:53:53/udp or -p [2001:db8::1]:8000-8010:8000-8010"
	exposeFix  = "write --expose PORT[-END][/tcp|udp], such as --expose 80 or --expose 6000-6010/udp"
)

// portRange is one port or several, both ends included.
type portRange struct{ first, last uint16 }

func (r portRange) len() int { return int(r.last) - int(r.first) + 1 }

// parseRange reads PORT or PORT-END, each from 1 to 65535; with zero allowed
// also "0".
func parseRange(s string, zero bool) (r portRange, wrong string) {
	if zero && s == "0" {
		return portRange{}, ""
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	for _, p := range []struct {
		text string
		to   *uint16
	}{{first, &r.first}, {last, &r.last}} {
		n, err := strconv.ParseUint(p.text, 10, 16)
		if err != nil || n == 0 || p.text[0] == '+' {
			return r, fmt.Sprintf("%q is not a port from 1 to 65535", p.text)
		}
		*p.to = uint16(n)
	}
	if r.last < r.first {
		return r, fmt.Sprintf("the range %s ends before it begins", s)
	}
	return r, ""
}

// splitProtocol cuts "/udp" off; without it the protocol is tcp.
func splitProtocol(s string) (port, protocol, wrong string) {
	port, protocol, found := strings.Cut(s, "/")
	if !found {
		return port, "tcp", ""
	}
	switch protocol = strings.ToLower(protocol); protocol {
	case "tcp", "udp":
		return port, protocol, ""
	case "sctp":
		return port, protocol, "sctp cannot be published in this version"
	}
	return port, protocol, fmt.Sprintf("%q is not a protocol", protocol)
}

// ParsePublish reads Docker's -p syntax, [HOST-ADDRESS:][HOST-PORT[-END]:]PORT[-END][/PROTOCOL],
// or published=HOST-PORT,target=PORT[,protocol=PROTOCOL]. Ranges of the same
// length are laid side by side; from a range of host ports for one port, one
// that is free is taken at the start.
func ParsePublish(s string) ([]workload.Port, error) {
	const flag = "--publish"
	text := s
	if strings.Contains(s, "=") {
		var wrong string
		if text, wrong = longPublish(s); wrong != "" {
			return nil, bad(flag, s, wrong, "write --publish published=8080,target=80[,protocol=udp], or the short form HOST-PORT:PORT")
		}
	}
	text, protocol, wrong := splitProtocol(text)
	if wrong != "" {
		return nil, bad(flag, s, wrong, "give tcp or udp, such as -p 53:53/udp")
	}
	address, host, inside := splitPublish(text)
	p := workload.Port{Protocol: protocol}
	if p.HostIP, wrong = hostAddress(address); wrong != "" {
		return nil, bad(flag, s, wrong, publishFix)
	}
	ports, wrong := parseRange(inside, false)
	if wrong != "" {
		return nil, bad(flag, s, wrong, publishFix)
	}
	var hosts portRange
	if host != "" {
		if hosts, wrong = parseRange(host, true); wrong != "" {
			return nil, bad(flag, s, wrong, publishFix)
		}
	}
	return pairPorts(s, p, hosts, ports)
}

// pairPorts gives each port its host's.
func pairPorts(s string, p workload.Port, hosts, ports portRange) ([]workload.Port, error) {
	const flag = "--publish"
	switch {
	case ports.len() > maxPorts:
		return nil, bad(flag, s, fmt.Sprintf("%d ports are too many", ports.len()), fmt.Sprintf("a workload can publish %d ports; --network host serves on all of the host's", maxPorts))
	case hosts.first != 0 && ports.len() == 1:
		p.Port, p.HostPort = ports.first, hosts.first
		if hosts.len() > 1 {
			p.HostPortEnd = hosts.last
		}
		return []workload.Port{p}, nil
	case hosts.first != 0 && hosts.len() != ports.len():
		return nil, bad(flag, s, fmt.Sprintf("%d host ports do not fit %d ports inside", hosts.len(), ports.len()), "give two ranges of the same length, or one port inside")
	}
	out := make([]workload.Port, 0, ports.len())
	for n := range ports.len() {
		p.Port = ports.first + uint16(n)
		if hosts.first != 0 {
			p.HostPort = hosts.first + uint16(n)
		}
		out = append(out, p)
	}
	return out, nil
}

// splitPublish cuts at the last two colons, so that an IPv6 address need not be
// in brackets.
func splitPublish(s string) (address, host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", s
	}
	port, s = s[i+1:], s[:i]
	if i = strings.LastIndexByte(s, ':'); i < 0 {
		return "", s, port
	}
	return s[:i], s[i+1:], port
}

// hostAddress reads the address of a published port; "" is none.
func hostAddress(s string) (a netip.Addr, wrong string) {
	if s == "" {
		return a, ""
	}
	plain := s
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if plain, ok = strings.CutSuffix(inner, "]"); !ok {
			return a, "a bracket is not closed"
		}
	}
	a, err := netip.ParseAddr(plain)
	switch {
	case err != nil:
		return a, fmt.Sprintf("%q is not an address of the host", s)
	case a.Zone() != "" || a.IsMulticast():
		return a, fmt.Sprintf("nothing can be published on %s", a)
	}
	return a.Unmap(), ""
}

// longPublish turns Docker's long form into the short one.
func longPublish(s string) (short, wrong string) {
	values := map[string]string{"protocol": "tcp"}
	seen := map[string]bool{}
	for field := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(field, "=")
		switch {
		case k != "published" && k != "target" && k != "protocol" && k != "mode":
			return "", fmt.Sprintf("unknown key %q", k)
		case seen[k]:
			return "", fmt.Sprintf("key %q is given twice", k)
		case v == "" || strings.ContainsAny(v, ":/"):
			return "", fmt.Sprintf("key %q has no plain value", k)
		case k == "mode" && v != "host" && v != "ingress":
			return "", fmt.Sprintf("unknown mode %q", v)
		}
		seen[k], values[k] = true, v
	}
	if values["target"] == "" {
		return "", "the target, which is the port inside, is missing"
	}
	return values["published"] + ":" + values["target"] + "/" + values["protocol"], ""
}

// parseExpose reads PORT[-END][/PROTOCOL] into words such as "80/tcp".
func parseExpose(flag, s string) ([]string, error) {
	port, protocol, wrong := splitProtocol(s)
	if wrong != "" && protocol != "sctp" { // nothing is done with it
		return nil, bad(flag, s, wrong, exposeFix)
	}
	r, wrong := parseRange(port, false)
	if wrong != "" {
		return nil, bad(flag, s, wrong, exposeFix)
	}
	if r.len() > maxPorts {
		return nil, bad(flag, s, fmt.Sprintf("%d ports are too many", r.len()), fmt.Sprintf("give at most %d", maxPorts))
	}
	out := make([]string, 0, r.len())
	for n := range r.len() {
		out = append(out, fmt.Sprintf("%d/%s", int(r.first)+n, protocol))
	}
	return out, nil
}

// publish checks all -p together.
func (r *Request) publish(all []string) error {
	for _, s := range all {
		ports, err := ParsePublish(s)
		if err != nil {
			return err
		}
		if len(r.spec.Ports)+len(ports) > maxPorts {
			return bad("--publish", s, "too many ports with those before it", fmt.Sprintf("a workload can publish %d ports", maxPorts))
		}
		for _, p := range ports {
			if i := slices.IndexFunc(r.spec.Ports, func(q workload.Port) bool { return sameHostPort(p, q) }); i >= 0 {
				return bad("--publish", s, fmt.Sprintf("port %d/%s of the host leads to port %d already", p.HostPort, p.Protocol, r.spec.Ports[i].Port), "give each port of the host once")
			}
			r.spec.Ports = append(r.spec.Ports, p)
		}
	}
	return nil
}

// sameHostPort reports whether two ports cannot both be published.
func sameHostPort(p, q workload.Port) bool {
	if p.HostPort == 0 || p.HostPort != q.HostPort || p.Protocol != q.Protocol || p.HostPortEnd != 0 || q.HostPortEnd != 0 {
		return false
	}
	every := func(a, other netip.Addr) bool {
		return !a.IsValid() || a.IsUnspecified() && (!other.IsValid() || a.Is4() == other.Is4())
	}
	return p.HostIP == q.HostIP || every(p.HostIP, q.HostIP) || every(q.HostIP, p.HostIP)
}

// fillPorts adds the ports that the image exposes, and publishes them with -P.
func (r *Request) fillPorts(s *workload.Spec, _ Host, c ImageConfig) error {
	s.Ports = slices.Clone(s.Ports)
	exposed := slices.Clone(r.exposed)
	for _, e := range c.ExposedPorts {
		words, err := parseExpose("the image's port", e)
		if err != nil {
			return badImage(s, err.Error())
		}
		if exposed = append(exposed, words...); len(exposed) > maxPorts {
			return badImage(s, fmt.Sprintf("it exposes more than %d ports", maxPorts))
		}
	}
	slices.SortFunc(exposed, comparePorts)
	s.Exposed = slices.Compact(exposed)
	if !r.publishAll {
		return nil
	}
	for _, word := range s.Exposed {
		number, protocol, wrong := splitProtocol(word)
		if wrong != "" {
			return bad("--publish-all", word, wrong, "publish the other ports one by one with -p")
		}
		n, _ := strconv.ParseUint(number, 10, 16) // parseExpose made it
		p := workload.Port{Port: uint16(n), Protocol: protocol}
		if !slices.ContainsFunc(s.Ports, func(q workload.Port) bool { return q.Port == p.Port && q.Protocol == p.Protocol }) {
			s.Ports = append(s.Ports, p)
		}
	}
	if len(s.Ports) > maxPorts {
		return bad("--publish-all", "", "too many ports", fmt.Sprintf("a workload can publish %d ports; publish those that are needed with -p", maxPorts))
	}
	return nil
}

// comparePorts orders words such as "80/tcp" by number, then protocol.
func comparePorts(a, b string) int {
	number := func(s string) int {
		n, _ := strconv.Atoi(s[:strings.IndexByte(s, '/')])
		return n
	}
	return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(a, b))
}
