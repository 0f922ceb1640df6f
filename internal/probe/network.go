package probe

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

const interfaces = "readdir(/sys/class/net), or read(/proc/net/dev)"

func networkProbes() []Probe {
	return []Probe{
		{
			ID: "network.loopback", Door: "services on the host's loopback", Expected: "what was put up on the host's loopback is not reached",
			Enables:     "using services that trust whoever is on the host",
			Consequence: report.Reads, beyond: true,
			Opens:      []string{"--network host"},
			Fix:        "join a network, or --network none",
			References: []string{"CIS Docker 5.9"},
			observe:    func(p *prober) { connectAll(p, p.targets.Loopback, p.targets.Token) },
			judge: func(v *view) outcome {
				if len(v.context.Targets.Loopback) == 0 {
					return isUnclear("nothing was put up on the host to connect to: give --context with it")
				}
				return unreached(v)
			},
		},
		{
			ID: "network.abstract-sockets", Door: "abstract sockets of the host", Expected: "the socket that was put up on the host is not reached",
			Enables:     "talking to the host's engines and desktops as one of its processes (CVE-2020-15257)",
			Consequence: report.Takeover, beyond: true,
			Opens:      []string{"--network host"},
			Fix:        "join a network, or --network none",
			References: []string{"unix(7)", "CVE-2020-15257"},
			observe: func(p *prober) {
				if p.targets.Abstract != "" {
					p.add("connect(@canary)", "", connectUnix("@"+p.targets.Abstract))
				}
			},
			judge: func(v *view) outcome {
				if v.context.Targets.Abstract == "" {
					return isUnclear("nothing was put up on the host to connect to: give --context with it")
				}
				return unreached(v)
			},
		},
		{
			ID: "network.named-targets", Door: "addresses that were named", Expected: "no connection to what --target names",
			Enables:     "reading a cloud's metadata, with its credentials, or whatever is there",
			Consequence: report.Reads, beyond: true,
			Opens:      []string{"--network host"},
			Fix:        "--network none, or a rule on the host",
			References: []string{"CIS Docker 5.29"},
			observe:    func(p *prober) { connectAll(p, p.targets.Addresses, "") },
			judge: func(v *view) outcome {
				if len(v.context.Targets.Addresses) == 0 {
					return isAbsent("no target was named: give --target")
				}
				return unreached(v)
			},
		},
		{
			ID: "network.interfaces", Door: "a network where none was asked for", Expected: "loopback and no other interface, as was asked for",
			Enables:     "sending what was read to anybody",
			Consequence: report.Reads, beyond: true,
			Fix:        "--network none",
			References: []string{"network_namespaces(7)"},
			observe: func(p *prober) {
				list, err := interfaceNames()
				var names []string
				for _, n := range list {
					// The kernel makes these by itself in every namespace, without a use.
					if n != "lo" && !strings.HasPrefix(n, "tunl0") && !strings.HasPrefix(n, "sit0") && !strings.HasPrefix(n, "ip6tnl0") &&
						!strings.HasPrefix(n, "gre") && !strings.HasPrefix(n, "erspan0") && !strings.HasPrefix(n, "ip_vti0") && !strings.HasPrefix(n, "ip6_vti0") && !strings.HasPrefix(n, "bonding_masters") {
						names = append(names, n)
					}
				}
				p.add(interfaces, strings.Join(names, " "), err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call(interfaces)
				switch {
				case v.context.Declared == nil || !v.context.Declared.NoNetwork:
					return isAbsent("a network was asked for")
				case !ok || e.Errno != "":
					return isUnclear("neither /sys/class/net nor /proc/net/dev can be read: " + e.Errno)
				case e.Value == "":
					return isShut("loopback alone")
				}
				return isOpen(e.Value)
			},
		},
	}
}

// interfaceNames are those of this network namespace. gVisor's kernel has the second
// file alone.
func interfaceNames() (names []string, err error) {
	list, err := os.ReadDir("/sys/class/net")
	for _, l := range list {
		names = append(names, l.Name())
	}
	if err == nil {
		return names, nil
	}
	text, err := beginning("/proc/net/dev")
	if err == nil {
		names = interfacesIn(text)
	}
	return names, err
}

// interfacesIn are the names in /proc/net/dev, which has two lines of headings
// (proc_pid_net(5)).
func interfacesIn(text string) (names []string) {
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// unreachedBy are the errors of socket(2) and connect(2) that show that nobody is there,
// or that nobody may be asked. Others, such as EMFILE, tell of the prober: nothing was
// tried. EAGAIN tells of a listener that takes nobody on (unix(7)).
var unreachedBy = []string{
	"EACCES", "EADDRNOTAVAIL", "EAFNOSUPPORT", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOENT", "ENOSYS", "EPERM",
	"EPROTONOSUPPORT", "EPROTOTYPE", "ESOCKTNOSUPPORT",
}

// unreached judges connections.
func unreached(v *view) outcome {
	calls := v.calls()
	if len(calls) == 0 {
		return isUnclear("nothing was tried")
	}
	out := isShut("")
	for _, e := range calls {
		if e.Errno == "" {
			return isOpen("succeeds: " + e.Call)
		}
		if out.observed == "" {
			out.observed = e.Errno
		}
		switch {
		case e.Errno == "error":
			out = isUnclear(e.Value)
		case e.Errno == "EAGAIN":
			out = isUnclear("somebody listens, and takes nobody on: " + e.Call)
		case !slices.Contains(unreachedBy, e.Errno):
			out = isUnclear("an error that does not say whether somebody is there: " + e.Call + " " + e.Errno)
		}
	}
	return out
}

// connectAll connects to each address, wants to hear token unless it is "", and
// sends nothing.
func connectAll(p *prober, addresses []string, token string) {
	for n, a := range addresses {
		if n == 8 {
			p.trouble("more than 8 addresses")
			return
		}
		p.add("connect("+a+")", "", connect(a, token))
	}
}

// waiting is how long a connection may take, in milliseconds.
const waiting = 1000

func connect(address, token string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	family := unix.AF_INET6
	if to.Addr().Is4() {
		sa, family = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS { //nolint:errorlint // a bare error number
		return err
	}
	if err := poll(fd, unix.POLLOUT); err == unix.ETIMEDOUT { //nolint:errorlint // a bare error number
		return fmt.Errorf("no answer within %d ms: dropped on the way, or late", waiting)
	} else if err != nil {
		return err
	}
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
		return err
	} else if n != 0 {
		return unix.Errno(n)
	}
	if token == "" {
		return nil
	}
	return hear(fd, token)
}

// hear wants token from a connection. Somebody else may listen at this port in the
// workload's own network; who says nothing in time may be anybody, and the error is
// none of the kernel's.
func hear(fd int, token string) error {
	b := make([]byte, len(token))
	err := poll(fd, unix.POLLIN)
	n := 0
	if err == nil {
		n, err = unix.Read(fd, b)
	}
	switch {
	case err != nil:
		return fmt.Errorf("somebody took the connection, and then: %v", err) //nolint:errorlint // it is not that of connecting
	case string(b[:n]) != token:
		return unix.ECONNREFUSED
	}
	return nil
}

func poll(fd int, events int16) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds, waiting)
		switch {
		case err == unix.EINTR: //nolint:errorlint // a bare error number
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		return nil
	}
}
