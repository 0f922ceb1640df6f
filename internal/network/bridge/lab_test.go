package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	nettest.Isolate()
	if child := os.Getenv(envChild); child != "" {
		os.Exit(runChild(child))
	}
	code := m.Run()
	if dnsDir != "" {
		os.RemoveAll(dnsDir)
	}
	os.Exit(code)
}

// A lab is one host with networks and, beside it, others on its uplink. The test
// binary's own network namespace is the host; each test begins with none of ours.
type lab struct {
	t *testing.T
	*Store
	dir string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, Store: s, dir: dir}
	t.Cleanup(l.clean)
	return l
}

// withDNS gives the lab's networks name servers.
func (l *lab) withDNS() *lab {
	l.t.Helper()
	l.o.DNSProgram = build(l.t, dnsProgram)
	l.o.CgroupParent = "/bulkhead-test-bridge"
	return l
}

var dnsDir string // where they were built, to be removed

// dnsProgram builds the name server, and muteProgram one that never answers, or finds
// them where there is no compiler: in the test guest.
var (
	dnsProgram  = program("bulkhead-dns", "github.com/seed-f5e3b97b/bulkhead/cmd/bulkhead-dns")
	muteProgram = program("mute", "./testdata/mute")
)

func program(name, pkg string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if _, err := exec.LookPath("go"); err != nil {
			return exec.LookPath(name)
		}
		var err error
		if dnsDir == "" {
			if dnsDir, err = os.MkdirTemp("", "bulkhead-dns"); err != nil {
				return "", err
			}
		}
		path := filepath.Join(dnsDir, name)
		cmd := exec.Command("go", "build", "-o", path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return path, err
	})
}

func build(t *testing.T, program func() (string, error)) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// clean removes all that the test made on its host, and forgets that it forwards.
func (l *lab) clean() {
	if err := l.Sweep(context.Background(), func(workload.ID) bool { return false }); err != nil {
		l.t.Error(err)
	}
	nets, err := l.all()
	if err != nil {
		l.t.Error(err)
	}
	for _, n := range nets {
		if ports := l.ports(&n); len(ports) > 0 {
			l.t.Errorf("interfaces %v are left", ports)
		}
		if err := errors.Join(l.stopServer(context.Background(), &n), deleteLink(n.Bridge), l.freeIDs(n.Name)); err != nil {
			l.t.Error(err)
		}
	}
	if err := l.t_().drop(); err != nil {
		l.t.Error(err)
	}
	for _, f := range []string{"ipv4", "ipv6"} {
		if err := set("0", f, "conf", "all", "forwarding"); err != nil {
			l.t.Error(err)
		}
	}
}

func (l *lab) t_() *tables { return l.Store.t }

// namespace is a network namespace of a workload or of another host.
type namespace struct {
	t  *testing.T
	ns *os.File
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	var f *os.File
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &namespace{t, f}
}

// do runs f there; a socket made in f stays there.
func (n *namespace) do(f func() error) {
	n.t.Helper()
	if err := inside(n.ns, f); err != nil {
		n.t.Fatal(err)
	}
}

// command runs a program there and returns its output.
func (n *namespace) command(args ...string) string {
	n.t.Helper()
	var out string
	n.do(func() error {
		b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		out = string(b)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, b)
		}
		return nil
	})
	return out
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, b)
	}
	return string(b)
}

// outside makes another host on a link of its own with ours, whose addresses on it
// are 192.0.2.1 and 2001:db8::1; the other's end in 2.
func outside(t *testing.T) *namespace {
	t.Helper()
	n := newNamespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(n.ns.Fd()))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink("uplink") })
	noProbation(t, nil, "uplink")
	noProbation(t, n, "eth0")
	for _, args := range [][]string{
		{"ip", "addr", "add", "192.0.2.1/24", "dev", "uplink"},
		{"ip", "addr", "add", "2001:db8::1/64", "dev", "uplink", "nodad"},
		{"ip", "link", "set", "uplink", "up"},
	} {
		command(t, args...)
	}
	n.command("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
	n.command("ip", "addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
	n.command("ip", "link", "set", "eth0", "up")
	n.command("ip", "link", "set", "lo", "up")
	return n
}

// noProbation makes an interface's link-local address good at once: until it is,
// nobody's packets are forwarded by the interface.
func noProbation(t *testing.T, n *namespace, link string) {
	t.Helper()
	f := func() error { return set("0", "ipv6", "conf", link, "accept_dad") }
	if n != nil {
		n.do(f)
	} else if err := f(); err != nil {
		t.Fatal(err)
	}
}

// A box is a workload in networks.
type box struct {
	*namespace
	id workload.ID
	a  *Attached
}

func (b *box) addr(four bool) netip.Addr {
	for _, nic := range b.a.NICs {
		for _, p := range nic.Addresses {
			if p.Addr().Is4() == four {
				return p.Addr()
			}
		}
	}
	b.t.Fatal("no such address")
	return netip.Addr{}
}

func request(networks ...string) network.Request {
	r := network.Request{ID: workload.NewID()}
	r.Name = "w-" + r.ID.Short()
	for _, n := range networks {
		r.Networks = append(r.Networks, workload.Attachment{Network: n})
	}
	return r
}

func (l *lab) start(r network.Request) *box {
	l.t.Helper()
	b := &box{namespace: newNamespace(l.t), id: r.ID}
	var err error
	if b.a, err = l.Attach(context.Background(), r); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { b.a.Close() })
	if err := b.a.Enter(context.Background(), b.ns); err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *lab) create(n network.Network) *network.Network {
	l.t.Helper()
	made, err := l.Create(context.Background(), n)
	if err != nil {
		l.t.Fatal(err)
	}
	return made
}

// serve answers each connection and each datagram to a port with the client's
// address. ns nil is the host.
func serve(t *testing.T, n *namespace, at string) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	listen := func() (err error) {
		if l, err = net.Listen("tcp", at); err == nil {
			p, err = net.ListenPacket("udp", at)
		}
		return err
	}
	if n == nil {
		if err := listen(); err != nil {
			t.Fatal(err)
		}
	} else {
		n.do(listen)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
		}
	}()
}

// patience is how long an answer may take. Where none is expected, and the packet
// is dropped, all of it passes: impatience is for that.
const patience, impatience = 5 * time.Second, 150 * time.Millisecond

// ask connects from a namespace (nil: the host) and returns the answer, "" if there
// is none.
func ask(t *testing.T, n *namespace, protocol, at string) string {
	t.Helper()
	return askFor(t, n, protocol, at, patience)
}

func askFor(t *testing.T, n *namespace, protocol, at string, patience time.Duration) string {
	t.Helper()
	var answer string
	try := func() error {
		d := net.Dialer{Timeout: patience}
		c, err := d.Dial(protocol, at)
		if err != nil {
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if strings.HasPrefix(protocol, "udp") {
			c.Write([]byte("?"))
		}
		b := make([]byte, 64)
		k, _ := c.Read(b)
		answer = string(b[:k])
		return nil
	}
	if n == nil {
		try()
	} else {
		n.do(try)
	}
	return answer
}

func hostPort(a netip.Addr, p uint16) string { return netip.AddrPortFrom(a, p).String() }

// ports are the interfaces of workloads that are on a network's bridge.
func (l *lab) ports(n *network.Network) (out []string) {
	l.t.Helper()
	br, ok := ready(n)
	if !ok {
		return nil
	}
	all, _, err := dump(netlink.LinkList)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, link := range all {
		if a := link.Attrs(); a.MasterIndex == br.Attrs().Index && a.Name != serverLink(n.ID) {
			out = append(out, a.Name)
		}
	}
	return out
}

// elements are all that the tables hold for workloads, as "set: n".
func (l *lab) elements() (out []string) {
	l.t.Helper()
	c, err := nftables.New()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range l.t_().sets() {
		switch s.Name {
		case setBridges, setPairs, setInternal, setGuarded4, setGuarded6:
			continue
		}
		es, err := c.GetSetElements(s)
		if err != nil && strings.Contains(err.Error(), "no such file") {
			continue // the package does not wrap it
		}
		if err != nil {
			l.t.Fatal(err)
		}
		n := 0
		for _, e := range es {
			if !strings.HasPrefix(string(e.Key), "bhd") { // name servers
				n++
			}
		}
		if n > 0 {
			out = append(out, fmt.Sprintf("%s: %d", s.Name, n))
		}
	}
	return out
}
