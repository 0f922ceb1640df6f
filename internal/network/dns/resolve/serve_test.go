package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
)

func TestMain(m *testing.M) {
	nettest.Isolate()
	os.Exit(m.Run())
}

// bound makes a socket of a server, and its address.
func bound(t *testing.T, kind int) (int, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 16); err != nil {
			t.Fatal(err)
		}
	}
	a, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(a.(*unix.SockaddrInet4).Port))
}

// echo is an upstream server that answers with the question.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			b[2] |= 0x80
			u.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() {
		u.Close()
		<-done
	})
	return u.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestServe asks a server in this very process from all sides, while leases and
// other networks come and go: the race detector looks on.
func TestServe(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	root := t.TempDir()
	dir := filepath.Join(root, "lab", "leases")
	other := filepath.Join(root, "back", "leases")
	for _, d := range []string{dir, other} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "127.0.0.1", `{"workload":"w","network":"lab","names":["web"],"networks":["lab","back"]}`)
	write(t, other, "10.0.0.1", `{"workload":"w","network":"back","names":["web"]}`)
	write(t, other, "10.0.0.2", `{"workload":"x","network":"back","names":["db"]}`)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var helpers, clients sync.WaitGroup
	upstream := echo(t)
	helpers.Go(func() {
		defer unix.Close(pair[1])
		if err := dial.Serve(pair[1], []netip.AddrPort{upstream}, ""); err != nil {
			t.Error("dialer:", err)
		}
	})
	dialer, err := dial.NewClient(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := dialer.Ping(); err != nil {
		t.Fatal(err)
	}
	if _, err := dialer.Dial(netip.Addr{}, 1, false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an upstream server that there is not: %v", err)
	}
	udp, udpAt := bound(t, unix.SOCK_DGRAM)
	tcp, tcpAt := bound(t, unix.SOCK_STREAM)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Serve(Options{
			Leases: dir, Peers: root, Network: "lab", Subnets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			UDP: []int{udp}, TCP: []int{tcp}, Dialer: dialer, Upstream: 1,
		}, func() { close(ready) })
	}()
	<-ready
	names := []string{"\x03web", "\x02db", "\x03web\x04back", "\x06nobody", "\x02ex\x07example"}
	for w := range 6 {
		clients.Go(func() {
			network, at := "udp", udpAt
			if w%3 == 0 {
				network, at = "tcp", tcpAt
			}
			c, err := net.Dial(network, at.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range 100 {
				q := append([]byte{byte(w), byte(i), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, names[(i+w)%len(names)]...)
				q = append(q, 0, 0, 1, 0, 1)
				if network == "tcp" {
					q = append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := c.Write(q); err != nil {
					t.Error(err)
					return
				}
				b := make([]byte, 1500)
				if n, err := c.Read(b); err != nil || n < headerSize {
					t.Errorf("%s: %d bytes, %v", network, n, err)
					return
				}
			}
		})
	}
	clients.Go(func() {
		for i := range 100 {
			at := fmt.Sprintf("127.0.1.%d", i)
			write(t, dir, at, `{"workload":"y","network":"lab","names":["y"]}`)
			write(t, other, "10.0.0.3", `{"workload":"z","network":"back","names":["db"]}`)
			if i%2 == 0 {
				os.Remove(filepath.Join(dir, at))
				os.Remove(filepath.Join(other, "10.0.0.3"))
			}
		}
	})
	clients.Wait()
	// Its sockets cannot be taken away but by their end: of the one for UDP.
	if err := unix.Shutdown(tcp, unix.SHUT_RDWR); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended without a reason")
		}
	case <-time.After(20 * time.Second):
		t.Error("it still serves")
	}
	dialer.Close()
	helpers.Wait()
}
