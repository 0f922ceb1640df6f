package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestGroupsOfBridges sends frames to the groups that are for bridges themselves
// (IEEE 802.1D), which the kernel takes on a path of their own. They must not
// reach what listens on the host as if they had come by no network of ours, nor
// make the bridge believe that a neighbour is elsewhere.
func TestGroupsOfBridges(t *testing.T) {
	l := newLab(t)
	evil, victim, third := l.start(request("bridge")), l.start(request("bridge")), l.start(request("bridge"))
	own, other, far := mac(t, evil), mac(t, victim), mac(t, third)
	a4, v4, t4, gw4 := evil.addr(true), victim.addr(true), third.addr(true), evil.a.Host[0]

	host, err := net.ListenPacket("udp", net.JoinHostPort(gw4.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	hostPort := uint16(host.LocalAddr().(*net.UDPAddr).Port)
	send, in, from := evil.packetSocket("eth0"), victim.packetSocket("eth0"), third.packetSocket("eth0")
	write := func(fd int, f frame) {
		t.Helper()
		if _, err := unix.Write(fd, f.bytes()); err != nil {
			t.Fatal(err)
		}
	}
	bridge, err := netlink.LinkByName(evil.a.bridges[0])
	if err != nil {
		t.Fatal(err)
	}
	port, err := netlink.LinkByName(evil.a.NICs[0].Link)
	if err != nil {
		t.Fatal(err)
	}
	placed := func(of net.HardwareAddr) bool { // at the evil one's port
		entries, err := netlink.NeighList(port.Attrs().Index, unix.AF_BRIDGE)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.HardwareAddr.String() == of.String() && e.MasterIndex == bridge.Attrs().Index {
				return true
			}
		}
		return false
	}
	try := func(group net.HardwareAddr) (host_, neighbour bool) {
		write(in, frame{other, far, unix.ETH_P_IP, udp4(v4, t4, 5, 6, nil)}) // where it is
		write(send, frame{own, group, unix.ETH_P_IP, udp4(a4, gw4, 5, hostPort, mark)})
		write(send, frame{other, group, unix.ETH_P_IP, udp4(a4, gw4, 5, hostPort, mark)})
		host.SetReadDeadline(time.Now().Add(impatience))
		_, _, err := host.ReadFrom(make([]byte, 100))
		return err == nil, placed(other)
	}
	for last := range byte(16) {
		group := net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, last}
		reached, moved := try(group)
		if reached {
			t.Errorf("%s: a workload reaches what listens on the host", group)
		}
		if moved {
			t.Errorf("%s: the bridge takes the sender for its neighbour", group)
		}
	}
	write(from, frame{far, other, unix.ETH_P_IP, udp4(t4, v4, 5, 6, mark)})
	if !sees(in, mark, patience) {
		t.Error("the neighbour does not get what is sent to it")
	}
}

// TestLoopbackPortFromOutside sends to 127.0.0.1 from another host on the same
// link, where a port is published on that address alone.
func TestLoopbackPortFromOutside(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	r := request("bridge")
	r.Ports = []workload.Port{
		{HostPort: 8081, Port: 80, Protocol: "udp", HostIP: netip.MustParseAddr("127.0.0.1")},
		{HostPort: 8080, Port: 80, Protocol: "udp"},
	}
	web := l.start(r)
	in, send := web.packetSocket("eth0"), out.packetSocket("eth0")
	uplink, err := net.InterfaceByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	src := net.HardwareAddr{2, 9, 9, 9, 9, 9}
	try := func(to string, port uint16, within time.Duration) bool {
		body := udp4(netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr(to), 5, port, fmt.Appendf(nil, "%s %s %d", mark, to, port))
		if _, err := unix.Write(send, frame{src, uplink.HardwareAddr, unix.ETH_P_IP, body}.bytes()); err != nil {
			t.Fatal(err)
		}
		return sees(in, mark, within)
	}
	if !try("192.0.2.1", 8080, patience) {
		t.Fatal("a published port is not reached: the test is wrong")
	}
	for _, port := range []uint16{8080, 8081} {
		if try("127.0.0.1", port, impatience) {
			t.Errorf("a neighbour of the host reaches port %d of 127.0.0.1", port)
		}
	}
	if try("192.0.2.1", 8081, impatience) {
		t.Error("a port on 127.0.0.1 is reached by another address")
	}
}

// TestPortOfTheDead asks for a port that a workload has let go of, whose rule is
// still there: its supervisor was killed, and nobody has swept.
func TestPortOfTheDead(t *testing.T) {
	l := newLab(t)
	p := workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}
	dead := l.start(withPorts(request("bridge"), p))
	dead.a.Close()
	r := withPorts(request("bridge"), p)
	if _, err := l.Attach(t.Context(), r); !errors.Is(err, network.ErrPortTaken) {
		t.Fatalf("got %v, want %v", err, network.ErrPortTaken)
	}
	if err := l.Release(t.Context(), dead.id); err != nil {
		t.Fatal(err)
	}
	web := l.start(r)
	serve(t, web.namespace, ":80")
	if got := ask(t, nil, "tcp", "127.0.0.1:8080"); got == "" {
		t.Error("the port does not lead to its new owner")
	}
}
