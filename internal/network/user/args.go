package user

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Descriptors of the process, after its standard streams.
const (
	fdFrames = 3 // passt's end of the stream
	fdUserNS = 3 // pasta's way into the container
	fdNetNS  = 4
)

// arguments are those of passt, or of pasta where there is a namespace to enter.
// They look at nothing but what is given.
func arguments(vm bool, ports []workload.Port, n workload.NIC, names []netip.Addr) []string {
	var args []string
	if vm {
		args = []string{"passt", "--foreground", "--fd", strconv.Itoa(fdFrames)}
	} else {
		args = []string{
			"pasta", "--foreground", "--userns", "/proc/self/fd/" + strconv.Itoa(fdUserNS), "--netns", "/proc/self/fd/" + strconv.Itoa(fdNetNS),
			// It is ended by its cgroup.
			"--no-netns-quit", "--ns-ifname", n.Name,
			// Nothing of the host's loopback appears in the container's.
			"--tcp-ns", "none", "--udp-ns", "none",
		}
	}
	// The gateway's address would lead to the host's loopback.
	args = append(args, "--no-map-gw", "--mac-addr", gatewayMAC, "--mtu", strconv.Itoa(n.MTU),
		// Addresses are given otherwise.
		"--no-dhcp", "--no-dhcpv6", "--no-ra")
	v4, v6 := false, false
	for _, p := range n.Addresses {
		args = append(args, "--address", p.Addr().String())
		if p.Addr().Is4() {
			v4 = true
			args = append(args, "--netmask", strconv.Itoa(p.Bits()))
		} else {
			v6 = true
		}
	}
	for _, g := range n.Gateways {
		args = append(args, "--gateway", g.String())
	}
	switch {
	case !v6:
		args = append(args, "--ipv4-only")
	case !v4:
		args = append(args, "--ipv6-only")
	}
	for _, a := range names {
		if a == names4 || a == names6 {
			args = append(args, "--dns-forward", a.String())
		}
	}
	return append(args, portArguments(ports)...)
}

// portArguments publish ports. A specification is [ADDRESS/]PORT:PORT.
func portArguments(ports []workload.Port) []string {
	var args []string
	seen := map[string]bool{}
	for _, p := range ports {
		flag := "--tcp-ports"
		if p.Protocol == "udp" {
			flag = "--udp-ports"
		}
		text := fmt.Sprintf("%d:%d", p.HostPort, p.Port)
		if p.HostIP.IsValid() {
			text = p.HostIP.String() + "/" + text
		}
		seen[flag] = true
		args = append(args, flag, text)
	}
	for _, flag := range []string{"--tcp-ports", "--udp-ports"} {
		if !seen[flag] {
			args = append(args, flag, "none")
		}
	}
	return args
}

// explain says why a process did not begin, in its own words.
func explain(path, said string, err error) error {
	var last []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "Don't run as root") && !strings.Contains(line, "to syslog") {
			last = append(last, line)
		}
	}
	if len(last) > 3 {
		last = last[len(last)-3:]
	}
	if len(last) == 0 {
		return fmt.Errorf("%s did not begin: %w", path, err)
	}
	return fmt.Errorf("%s did not begin: %w: %s", path, err, strings.Join(last, "; "))
}
