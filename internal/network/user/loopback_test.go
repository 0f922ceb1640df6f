package user

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
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

// envDial has the test binary call an address, in the place of running tests.
const envDial = "BULKHEAD_TEST_DIAL"

// dialChild tells by its exit code whether the kernel lets it.
func dialChild(to string) int {
	protocol, address, _ := strings.Cut(to, " ")
	c, err := net.DialTimeout(protocol, address, time.Second)
	if errors.Is(err, syscall.EPERM) {
		return 2
	}
	if err == nil {
		c.Close()
	}
	return 0 // nobody may listen there
}

// TestLoopbackProgram calls addresses from a process in a cgroup with the program.
func TestLoopbackProgram(t *testing.T) {
	world(t)
	ip(t, nil, "link set lo up")
	defer func(was string) { resolvConf = was }(resolvConf)
	resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver 127.0.0.53\nnameserver ::1\nnameserver 255.1.2.250\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := workload.NewID()
	m, err := options.prepare(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := options.Release(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	other, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ip(t, other, "link set lo up")
	for _, tt := range []struct {
		ns      *os.File
		to      string
		refused bool
	}{
		{nil, "udp 127.0.0.53:53", false},
		{nil, "tcp 127.0.0.53:53", false},
		{nil, "udp [::1]:53", false},
		{nil, "udp 127.0.0.53:54", true},
		{nil, "udp 127.0.0.1:53", true},
		{nil, "tcp 127.0.0.1:80", true},
		{nil, "tcp [::1]:80", true},
		{nil, "udp [::1]:54", true},
		{nil, "tcp 0.0.0.0:80", true},
		{nil, "udp [::]:80", true},
		{nil, "udp " + outside4 + ":9", false},
		{nil, "udp [" + outside6 + "]:9", false},
		{nil, "udp " + host4 + ":9", false},
		{nil, "udp 10.0.2.1:9", false},
		{nil, "udp 10.0.2.2:9", true},
		{nil, "tcp 10.0.2.3:53", true},
		{nil, "udp 10.0.2.3:53", true},
		{nil, "udp [fd00:10:0:2::2]:53", true},
		{nil, "udp [fd00:10:0:2::3]:54", true},
		{nil, "udp [fd00:10:0:3::3]:9", false},
		{other, "udp 127.0.0.1:9", false},
		{other, "udp [::1]:9", false},
	} {
		var code int
		err := m.Inside(func(fd int) error {
			return rtnl.In(tt.ns, func() error {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), envDial+"="+tt.to)
				cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: fd >= 0, CgroupFD: fd}
				err := cmd.Run()
				code = cmd.ProcessState.ExitCode()
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					return nil
				}
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 2}[tt.refused]; code != want {
			t.Errorf("%s, in another namespace %t: exit code %d, want %d", tt.to, tt.ns != nil, code, want)
		}
	}
}
