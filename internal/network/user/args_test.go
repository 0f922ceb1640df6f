package user

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestArguments(t *testing.T) {
	both := workload.NIC{Name: "eth0", MTU: mtu, Addresses: []netip.Prefix{own4, own6}, Gateways: []netip.Addr{gateway4, gateway6}}
	four := workload.NIC{Name: "eth0", MTU: mtu, Addresses: []netip.Prefix{own4}, Gateways: []netip.Addr{gateway4}}
	ports := []workload.Port{
		{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 53, Port: 53, Protocol: "udp"},
		{HostIP: netip.MustParseAddr("::1"), HostPort: 81, Port: 81, Protocol: "tcp"}, {HostIP: netip.IPv4Unspecified(), HostPort: 82, Port: 82, Protocol: "tcp"},
	}
	const common = " --no-map-gw --mac-addr 02:42:0a:00:02:02 --mtu 65520 --no-dhcp --no-dhcpv6 --no-ra --address 10.0.2.15 --netmask 24"
	for want, got := range map[string][]string{
		"passt --foreground --fd 3" + common + " --address fd00:10:0:2::15 --gateway 10.0.2.2 --gateway fd00:10:0:2::2 --dns-forward 10.0.2.3" +
			" --tcp-ports 8080:80 --udp-ports 127.0.0.1/53:53 --tcp-ports ::1/81:81 --tcp-ports 0.0.0.0/82:82": arguments(true, ports, both, []netip.Addr{names4}),
		"pasta --foreground --userns /proc/self/fd/3 --netns /proc/self/fd/4 --no-netns-quit --ns-ifname eth0 --tcp-ns none --udp-ns none" + common +
			" --gateway 10.0.2.2 --ipv4-only --tcp-ports none --udp-ports none": arguments(false, nil, four, nil),
	} {
		if got := strings.Join(got, " "); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// TestProgram: what is done to a process before it runs.
func TestProgram(t *testing.T) {
	d := descriptors{statusRead: -1, statusWrite: -1, null: -1, said: -1, files: []int{-1, -1}, tasks: []int{-1}, dir: -1}
	for enters, want := range map[bool][]string{
		true:  {"makedev(10, 200)", "CAP_NET_BIND_SERVICE|CAP_SYS_ADMIN", "PR_SET_NO_NEW_PRIVS", "setresuid(1879113726", `execve("/usr/bin/pasta"`},
		false: {"{SIG_IGN}", "{CAP_NET_BIND_SERVICE}", "PR_SET_NO_NEW_PRIVS", "setresuid(1879113726"},
	} {
		p := process{path: "/usr/bin/pasta", args: []string{"pasta"}, id: testHelper, enters: enters}
		prog, _, err := p.plan(d, 40)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(prog.String(), w) {
				t.Errorf("enters %v: no %q in\n%s", enters, w, prog)
			}
		}
	}
}

func TestRoutes(t *testing.T) {
	const zero = "00000000000000000000000000000000"
	for line, want := range map[string]bool{
		"up0 00000000 010200C0 0003 0 0 0 00000000 0 0 0": true,
		"up0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0": false,
		"up0 00000000 010200C0 0002 0 0 0 00000000 0 0 0": false, // down
		"up0 00000000 010200C0 0201 0 0 0 00000000 0 0 0": false, // rejected
		"Iface Destination":                        false,
		"up0 00000000 x zzzz 0 0 0 00000000 0 0 0": false,
	} {
		if got, err := lineHas(strings.NewReader("Iface\n"+line+"\n"), default4); got != want || err != nil {
			t.Errorf("%s: got %v, %v", line, got, err)
		}
	}
	for line, want := range map[string]bool{
		zero + " 00 " + zero + " 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003 up0":      true,
		zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200 lo":                           false,
		"20010db8000000000000000000000000 40 " + zero + " 00 " + zero + " 00000100 00000001 00000000 00000001 up0": false,
	} {
		if got, err := lineHas(strings.NewReader(line+"\n"), default6); got != want || err != nil {
			t.Errorf("%s: got %v, %v", line, got, err)
		}
	}
	if _, err := lineHas(strings.NewReader(strings.Repeat("x", 1<<17)), default4); err == nil {
		t.Error("a line without end: no error")
	}
}

func TestExplain(t *testing.T) {
	said := "Don't run as root. Changing to nobody...\nFailed to send 1 bytes to syslog\none\ntwo\nthree\nfour\n"
	if got := explain("/usr/bin/passt", said, errors.New("it ended")).Error(); got != "/usr/bin/passt did not begin: it ended: two; three; four" {
		t.Errorf("got %s", got)
	}
	if got := explain("/usr/bin/passt", "", os.ErrDeadlineExceeded); !errors.Is(got, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", got)
	}
}

func TestChoosePorts(t *testing.T) {
	any4 := families{v4: true}
	last := []workload.Port{{HostPort: 47001, Port: 80, Protocol: "tcp"}}
	got, err := choosePorts([]workload.Port{{Port: 80, Protocol: "tcp"}, {HostPort: 47010, HostPortEnd: 47012, Port: 81, Protocol: "tcp"}, {HostPort: 47010, HostPortEnd: 47012, Port: 82, Protocol: "tcp"}}, last, any4)
	want := []workload.Port{{HostPort: 47001, Port: 80, Protocol: "tcp"}, {HostPort: 47010, Port: 81, Protocol: "tcp"}, {HostPort: 47011, Port: 82, Protocol: "tcp"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := choosePorts([]workload.Port{{HostIP: netip.MustParseAddr("::1"), HostPort: 47020, Port: 80, Protocol: "tcp"}}, nil, any4); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("an address of a family without a way out: %v", err)
	}
	if _, err := choosePorts(make([]workload.Port, maxPorts+1), nil, any4); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("too many: %v", err)
	}
}

// TestPortsAreOne: a port of the host leads to one of the workload's, at whatever
// address it is published.
func TestPortsAreOne(t *testing.T) {
	v4 := families{v4: true}
	at := func(a string, host, end, to uint16, protocol string) workload.Port {
		return workload.Port{HostIP: netip.MustParseAddr(a), HostPort: host, HostPortEnd: end, Port: to, Protocol: protocol}
	}
	_, err := choosePorts([]workload.Port{at("127.0.0.1", 47030, 0, 80, "tcp"), at("127.0.0.2", 47030, 0, 9000, "tcp")}, nil, v4)
	if !errors.Is(err, network.ErrPortTaken) || !strings.Contains(err.Error(), "47030/tcp leads to port 80") {
		t.Errorf("at two addresses: got %v", err)
	}
	got, err := choosePorts([]workload.Port{
		{Port: 1, Protocol: "tcp"}, at("127.0.0.1", 47030, 0, 80, "tcp"), at("127.0.0.2", 47030, 0, 80, "udp"), at("127.0.0.2", 47030, 47032, 81, "tcp"), at("127.0.0.3", 47030, 47032, 82, "tcp"),
	}, []workload.Port{{Port: 1, HostPort: 47031, Protocol: "tcp"}}, v4)
	if err != nil || got[1].HostPort != 47030 || got[2].HostPort != 47030 || got[3].HostPort != 47031 || got[4].HostPort != 47032 {
		t.Errorf("of ranges: got %+v, %v", got, err)
	}
	var open []workload.Port
	for n := range uint16(300) {
		p := workload.Port{Port: n + 1, Protocol: []string{"tcp", "udp"}[n%2]}
		if n%3 > 0 {
			p.HostIP = netip.AddrFrom4([4]byte{127, 0, 0, byte(n % 3)})
		}
		open = append(open, p)
	}
	for range 10 {
		got, err := choosePorts(open, nil, v4)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[hostPort]bool{}
		for _, p := range got {
			at := hostPort{p.Protocol, p.HostPort}
			if p.HostPort == 0 || seen[at] {
				t.Fatalf("port %d/%s gets port %d of the host, which another has", p.Port, p.Protocol, p.HostPort)
			}
			seen[at] = true
		}
	}
}
