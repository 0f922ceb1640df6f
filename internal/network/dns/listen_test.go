package dns

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

// TestQueueBySource sends from several addresses and ports, and looks into the
// sockets.
func TestQueueBySource(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to listen on port 53")
	}
	s, err := listen([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, "lo")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if len(s.tcp) != 2 || len(s.udp) != 2*resolve.Queues {
		t.Fatalf("%d sockets for TCP, %d for UDP", len(s.tcp), len(s.udp))
	}
	send := func(from net.IP, to string) {
		t.Helper()
		for range 5 { // by another port each time
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: from}, &net.UDPAddr{IP: net.ParseIP(to), Port: Port})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	waiting := func(fd int) (n int) {
		for b := make([]byte, 16); ; n++ {
			if _, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); err != nil {
				return n
			}
		}
	}
	for last := range byte(8) {
		send(net.IPv4(127, 0, 9, last+1), "127.0.0.1")
		for i, fd := range s.udp[:resolve.Queues] {
			want := 0
			if i == (int(last)+1)%resolve.Queues {
				want = 5
			}
			if got := waiting(fd); got != want {
				t.Errorf("from 127.0.9.%d, %d datagrams came to socket %d, want %d", last+1, got, i, want)
			}
		}
	}
	send(net.IPv6loopback, "::1")
	if got := waiting(s.udp[resolve.Queues+1]); got != 5 {
		t.Errorf("from ::1, %d datagrams came to socket 1", got)
	}
}
