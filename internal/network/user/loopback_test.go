package user

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
)

// TestLoopbackByFrame sends what no kernel sends: frames for loopback addresses by
// the interface, as root of a guest can.
func TestLoopbackByFrame(t *testing.T) {
	world(t)
	kinds(t, func(t *testing.T, vm bool) {
		in := attach(t, request(vm))
		for _, tt := range []struct {
			to      netip.Addr
			listen  string
			reached bool
		}{
			{netip.MustParseAddr(host4), host4, true}, // the host's services are those of its other addresses
			{netip.MustParseAddr("127.0.0.1"), "127.0.0.1", false},
			{netip.MustParseAddr("127.1.2.3"), "0.0.0.0", false},
			{netip.IPv4Unspecified(), "127.0.0.1", false},
			{netip.IPv6Loopback(), "::1", false},
			{netip.MustParseAddr("::ffff:127.0.0.1"), "127.0.0.1", false},
		} {
			p, err := net.ListenPacket("udp", net.JoinHostPort(tt.listen, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			port := uint16(p.LocalAddr().(*net.UDPAddr).Port)
			within := 150 * time.Millisecond
			if tt.reached {
				within = 5 * time.Second
			}
			sendFrame(t, in, tt.to, port)
			p.SetReadDeadline(time.Now().Add(within))
			_, _, err = p.ReadFrom(make([]byte, 64))
			if (err == nil) != tt.reached {
				t.Errorf("a frame for %s reaches what listens on %s: %t", tt.to, tt.listen, err == nil)
			}
		}
	})
}

// sendFrame sends a datagram for any address to the gateway.
func sendFrame(t *testing.T, in *inside, to netip.Addr, port uint16) {
	t.Helper()
	err := rtnl.In(in.ns, func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		gateway, _ := net.ParseMAC(gatewayMAC) //nolint:errcheck // a constant
		frame := append(append([]byte{}, gateway...), i.HardwareAddr...)
		udp := binary.BigEndian.AppendUint16([]byte{0x10, 0x00}, port)
		udp = append(udp, 0, 12, 0, 0, 'b', 'u', 'l', 'k')
		if to.Is4() {
			ip := append([]byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, own4.Addr().AsSlice()...)
			ip = append(ip, to.AsSlice()...)
			binary.BigEndian.PutUint16(ip[10:], sum16(ip))
			frame = append(append(append(frame, 0x08, 0), ip...), udp...)
		} else {
			ip := append([]byte{0x60, 0, 0, 0, 0, 12, unix.IPPROTO_UDP, 64}, own6.Addr().AsSlice()...)
			ip = append(ip, to.AsSlice()...)
			sum := sum16(append(append(ip[8:40:40], 0, 0, 0, 12, 0, 0, 0, unix.IPPROTO_UDP), udp...))
			binary.BigEndian.PutUint16(udp[6:], sum)
			frame = append(append(append(frame, 0x86, 0xdd), ip...), udp...)
		}
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: 0x0008, Halen: 6})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sum16(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
