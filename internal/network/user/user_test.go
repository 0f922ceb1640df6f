package user

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	if to := os.Getenv(envDial); to != "" {
		os.Exit(dialChild(to))
	}
	nettest.Isolate()
	// What package cgroup opens once and keeps is no leak of a test.
	if _, err := options.prepare(context.Background(), workload.ID(strings.Repeat("0", 64))); err == nil {
		options.Release(context.Background(), workload.ID(strings.Repeat("0", 64))) //nolint:errcheck // the tests will say
	}
	os.Exit(m.Run())
}

// testHelper is the user ID of processes in tests.
const testHelper = 1879113726

// The world outside: what the host's default routes lead to.
const (
	host4, outside4 = "192.0.2.10", "192.0.2.1"
	host6, outside6 = "2001:db8::10", "2001:db8::1"
)

func ip(t *testing.T, ns *os.File, args string) {
	t.Helper()
	if err := rtnl.In(ns, func() error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatalf("ip %s: %v", args, err)
	}
}

// world gives this namespace, which stands for the host's, a way out.
func world(t *testing.T) (outside *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := program(true); err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the program ip of iproute2")
	}
	outside, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	ip(t, nil, "link add up0 type veth peer name out0")
	t.Cleanup(func() { ip(t, nil, "link del up0") })
	c, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Find(func(l rtnl.Link) bool { return l.Name == "out0" })
	if err == nil {
		err = c.SetLink(l.Index, rtnl.Change{Namespace: outside})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"addr add " + outside4 + "/24 dev out0", "addr add " + outside6 + "/64 dev out0 nodad", "link set lo up", "link set out0 up"} {
		ip(t, outside, a)
	}
	for _, a := range []string{
		"addr add " + host4 + "/24 dev up0", "addr add " + host6 + "/64 dev up0 nodad", "link set up0 up",
		"route add default via " + outside4, "-6 route add default via " + outside6,
	} {
		ip(t, nil, a)
	}
	return outside
}

func request(vm bool, ports ...workload.Port) network.Request {
	return network.Request{ID: workload.NewID(), Name: "test", User: true, Taps: vm, Helper: testHelper, Ports: ports}
}

// inside is the network namespace of a workload in its user network.
type inside struct {
	*Attached
	ns *os.File
}

var options = Options{CgroupParent: fmt.Sprintf("/bulkhead-user-test-%d", os.Getpid())}

// attach gets a workload into its network.
func attach(t *testing.T, r network.Request) *inside {
	t.Helper()
	a, err := options.Attach(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		if err := options.Release(context.Background(), r.ID); err != nil {
			t.Error(err)
		}
	})
	in := &inside{Attached: a}
	if r.Taps {
		in.ns = guest(t, a)
		return in
	}
	in.ns = container(t)
	if err := a.Enter(t.Context(), in.ns); err != nil {
		t.Fatal(err)
	}
	return in
}

// container is the network namespace of a process in a user namespace.
func container(t *testing.T) *os.File {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: testHelper - 65534, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: maps, GidMappings: maps, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// guest is a namespace whose tap device carries frames to and from the stream, as
// QEMU does for a guest.
func guest(t *testing.T, a *Attached) *os.File {
	t.Helper()
	ns, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	var tap *os.File
	err = rtnl.In(ns, func() (err error) {
		if tap, err = nettest.OpenTap(a.NICs[0].Name); err == nil {
			err = configure(a.NICs[0])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stream := a.Taps[0]
	out, back := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(out)
		b := make([]byte, 1<<16)
		for {
			n, err := tap.Read(b)
			if err != nil || n == 0 {
				return
			}
			packet := append(binary.BigEndian.AppendUint32(nil, uint32(n)), b[:n]...)
			if _, err := stream.Write(packet); err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(back)
		for {
			b := make([]byte, 4)
			if _, err := io.ReadFull(stream, b); err != nil {
				return
			}
			frame := make([]byte, binary.BigEndian.Uint32(b))
			if _, err := io.ReadFull(stream, frame); err != nil {
				return
			}
			tap.Write(frame)
		}
	}()
	t.Cleanup(func() {
		syscall.Shutdown(int(stream.Fd()), syscall.SHUT_RDWR)
		<-back
		// The read of a tap device is not interrupted by its end: send a frame.
		ip(t, ns, "link set "+a.NICs[0].Name+" down")
		ip(t, ns, "link del "+a.NICs[0].Name)
		<-out
		tap.Close()
	})
	return ns
}

// serve answers the first byte of every connection with where it came from.
// Debian's passt, of March 2023, tells the server of a connection when the client
// has said something: one in which the server begins waits for ever.
func serve(t *testing.T, ns *os.File, address string) netip.AddrPort {
	t.Helper()
	var l net.Listener
	if err := rtnl.In(ns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a := netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil {
				io.WriteString(c, a.String())
			}
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// call dials and returns what is said.
func call(ns *os.File, address string, port uint16) (string, error) {
	return callWithin(5*time.Second, ns, address, port)
}

func callWithin(limit time.Duration, ns *os.File, address string, port uint16) (string, error) {
	var said []byte
	err := rtnl.In(ns, func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(address, fmt.Sprint(port)), limit)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(limit))
		if _, err = c.Write([]byte("?")); err == nil {
			said, err = io.ReadAll(c)
		}
		if err == nil && len(said) == 0 {
			err = errors.New("nothing is said")
		}
		return err
	})
	return string(said), err
}

// ask sends one UDP packet and returns the answer.
func ask(ns *os.File, address string, port uint16, text string) (string, error) {
	b := make([]byte, 512)
	err := rtnl.In(ns, func() error {
		c, err := net.Dial("udp", net.JoinHostPort(address, fmt.Sprint(port)))
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err = io.WriteString(c, text); err == nil {
			var n int
			n, err = c.Read(b)
			b = b[:n]
		}
		return err
	})
	return string(b), err
}

// echo answers every UDP packet with itself and where it came from.
func echo(t *testing.T, ns *os.File, address string) {
	t.Helper()
	var c net.PacketConn
	if err := rtnl.In(ns, func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			a := netip.MustParseAddrPort(from.String()).Addr().Unmap()
			c.WriteTo([]byte(string(b[:n])+" from "+a.String()), from)
		}
	}()
}

func kinds(t *testing.T, f func(t *testing.T, vm bool)) {
	for name, vm := range map[string]bool{"container": false, "machine": true} {
		t.Run(name, func(t *testing.T) { f(t, vm) })
	}
}

// TestReach: out into the world, and in by published ports.
func TestReach(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{options.CgroupParent}})
	outside := world(t)
	there := serve(t, outside, ":7001")
	kinds(t, func(t *testing.T, vm bool) {
		in := attach(t, request(vm,
			workload.Port{HostPort: 80, Port: 8080, Protocol: "tcp"}, workload.Port{Port: 8081, Protocol: "tcp"},
			workload.Port{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 7002, Port: 8080, Protocol: "tcp"},
			workload.Port{HostPort: 53, Port: 5353, Protocol: "udp"}))
		if in.Ports[1].HostPort == 0 {
			t.Errorf("no host port for %+v", in.Ports[1])
		}
		for address, want := range map[string]string{outside4: host4, outside6: host6} {
			if got, err := call(in.ns, address, there.Port()); err != nil || got != want {
				t.Errorf("out to %s: seen from there as %q, %v; want %s", address, got, err, want)
			}
		}
		serve(t, in.ns, ":8080")
		serve(t, in.ns, ":8081")
		echo(t, in.ns, ":5353")
		for _, c := range []struct {
			from    *os.File
			address string
			port    uint16
			want    string
		}{
			{outside, host4, 80, outside4}, {outside, host6, 80, outside6},
			{outside, host4, in.Ports[1].HostPort, outside4},
			// pasta takes a shorter way: from loopback to loopback.
			{nil, "127.0.0.1", 7002, map[bool]string{false: "127.0.0.1", true: gateway4.String()}[vm]},
		} {
			if got, err := call(c.from, c.address, c.port); err != nil || got != c.want {
				t.Errorf("in by %s port %d: seen inside as %q, %v; want %s", c.address, c.port, got, err, c.want)
			}
		}
		if got, err := call(outside, host4, 7002); err == nil {
			t.Errorf("a port of the host's loopback is open to the world: %q", got)
		}
		if got, err := ask(outside, host4, 53, "hello"); err != nil || got != "hello from "+outside4 {
			t.Errorf("UDP: got %q, %v", got, err)
		}
	})
}

// TestLoopback: the host's loopback is not reached by any address.
func TestLoopback(t *testing.T) {
	world(t)
	p := serve(t, nil, "127.0.0.1:0")
	kinds(t, func(t *testing.T, vm bool) {
		in := attach(t, request(vm))
		for _, a := range []netip.Addr{gateway4, gateway6, names4, netip.MustParseAddr("127.0.0.1")} {
			if got, err := callWithin(time.Second, in.ns, a.String(), p.Port()); err == nil {
				t.Errorf("%v leads to the host's loopback: %q", a, got)
			}
		}
	})
}

// TestOwnAddresses: what is the process itself, in the user network, is no host that
// has the same address where the host's routes lead. A question for a name that
// comes by TCP would go there, as the programs of Debian 12 forward those by UDP only.
func TestOwnAddresses(t *testing.T) {
	outside := world(t)
	all := []netip.Addr{gateway4, names4, gateway6, names6}
	for _, a := range all {
		ip(t, outside, "addr add "+a.String()+" dev lo nodad")
		serve(t, outside, netip.AddrPortFrom(a, 53).String())
	}
	kinds(t, func(t *testing.T, vm bool) {
		in := attach(t, request(vm))
		for _, a := range all {
			if got, err := callWithin(300*time.Millisecond, in.ns, a.String(), 53); err == nil {
				t.Errorf("%v leads to a stranger: %q", a, got)
			}
		}
	})
}

// TestNames: the host's own name server is asked.
func TestNames(t *testing.T) {
	outside := world(t)
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip(err)
	}
	server := ""
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" && server == "" {
			server = f[1]
		}
	}
	if a, err := netip.ParseAddr(server); err != nil || !a.Is4() || a.IsLoopback() {
		t.Skipf("the host's first name server is %q: an IPv4 address that is elsewhere is needed", server)
	}
	ip(t, outside, "addr add "+server+"/32 dev lo")
	echo(t, outside, server+":53")
	kinds(t, func(t *testing.T, vm bool) {
		in := attach(t, request(vm))
		if len(in.Nameservers) == 0 || in.Nameservers[0] != names4 {
			t.Fatalf("name servers %v", in.Nameservers)
		}
		if got, err := ask(in.ns, names4.String(), 53, "a question"); err != nil || !strings.HasPrefix(got, "a question from "+host4) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestConfined looks at the process.
func TestConfined(t *testing.T) {
	world(t)
	kinds(t, func(t *testing.T, vm bool) {
		r := request(vm, workload.Port{HostPort: 81, Port: 80, Protocol: "tcp"})
		attach(t, r)
		var pids []string
		var status []byte
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it announces its work before it locks itself in
			pids = processes(t, r.ID)
			if len(pids) == 1 {
				var err error
				if status, err = os.ReadFile("/proc/" + pids[0] + "/status"); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(status), "Seccomp:\t2") {
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("processes %v: %s", pids, status)
			}
		}
		id := fmt.Sprint(testHelper)
		for _, want := range []string{"Uid:\t" + id + "\t" + id + "\t" + id, "Gid:\t" + id, "Groups:\t \n", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("no %q in\n%s", want, status)
			}
		}
		ours, err1 := os.Readlink("/proc/self/ns/user")
		theirs, err2 := os.Readlink("/proc/" + pids[0] + "/ns/user")
		if ours == theirs || err1 != nil || err2 != nil {
			t.Errorf("its user namespace is %s, and ours %s (%v, %v): its capabilities are the host's", theirs, ours, err1, err2)
		}
		if entries, err := os.ReadDir("/proc/" + pids[0] + "/root"); err != nil || len(entries) > 0 {
			t.Errorf("it sees %v, %v", entries, err)
		}
	})
}

// processes are those in a workload's cgroup.
func processes(t *testing.T, id workload.ID) []string {
	t.Helper()
	seen := map[string]bool{}
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		files, _ := filepath.Glob(pattern + options.cgroup(id) + "/cgroup.procs")
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range strings.Fields(string(b)) {
				if !seen[pid] {
					seen[pid] = true
					out = append(out, pid)
				}
			}
		}
	}
	return out
}

// TestRelease: nothing of it is left, whoever ends it and how often.
func TestRelease(t *testing.T) {
	world(t)
	kinds(t, func(t *testing.T, vm bool) {
		r := request(vm, workload.Port{HostPort: 82, Port: 80, Protocol: "tcp"})
		attach(t, r)
		for range 2 {
			if err := options.Release(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
		}
		if pids := processes(t, r.ID); len(pids) > 0 {
			t.Errorf("processes %v are left", pids)
		}
		l, err := net.Listen("tcp", ":82")
		if err != nil {
			t.Fatalf("its port is not free: %v", err)
		}
		l.Close()
	})
}

func TestRefused(t *testing.T) {
	world(t)
	l, err := net.Listen("tcp", ":83")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kinds(t, func(t *testing.T, vm bool) {
		for name, c := range map[string]struct {
			r    network.Request
			want error
		}{
			"a port that is taken": {request(vm, workload.Port{HostPort: 83, Port: 80, Protocol: "tcp"}), network.ErrPortTaken},
			"no user":              {network.Request{ID: workload.NewID(), User: true, Taps: vm}, workload.ErrUnsupported},
		} {
			a, err := options.Attach(t.Context(), c.r)
			if !errors.Is(err, c.want) {
				t.Errorf("%s: got %v", name, err)
			}
			if err == nil {
				a.Close()
			}
			if pids := processes(t, c.r.ID); len(pids) > 0 {
				t.Errorf("%s: processes %v are left", name, pids)
			}
		}
	})
	// What was taken after it was looked at keeps the program from beginning.
	a := &Attached{o: options, r: request(true)}
	a.Ports = []workload.Port{{HostPort: 83, Port: 80, Protocol: "tcp"}}
	a.NICs = []workload.NIC{{Name: "eth0", MTU: mtu, Addresses: []netip.Prefix{own4}, Gateways: []netip.Addr{gateway4}}}
	ours, theirs, err := sockets()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if err := a.start(t.Context(), []*os.File{theirs}, nil); !errors.Is(err, network.ErrPortTaken) {
		t.Errorf("got %v, want %v", err, network.ErrPortTaken)
	}
	a.Close()
}

// TestPortTakenMeanwhile has another program bind the port of the host that was free
// when it was chosen.
func TestPortTakenMeanwhile(t *testing.T) {
	world(t)
	for _, protocol := range []string{"tcp", "udp"} {
		r := request(false, workload.Port{HostPort: 8080, Port: 80, Protocol: protocol})
		a, err := options.Attach(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := bind(a.Ports[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Enter(t.Context(), container(t)); !errors.Is(err, network.ErrPortTaken) || !strings.Contains(err.Error(), "8080/"+protocol) {
			t.Errorf("%s: got %v, want %v", protocol, err, network.ErrPortTaken)
		}
		other.Close()
	}
}

func TestWithoutUplink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := program(false); err != nil {
		t.Skip(err)
	}
	if _, err := options.Attach(t.Context(), request(false)); !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "default route") {
		t.Errorf("got %v", err)
	}
}
