package boundarytest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/nic"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// host is a network namespace that stands for the host's. Each workload has a
// link to it of its own.
type host struct {
	r    *run
	ns   *os.File
	conn *rtnl.Conn
	last int
}

func newHost(r *run) *host {
	r.Helper()
	ns, err := rtnl.Make()
	if err != nil {
		r.Fatal(err)
	}
	h := &host{r: r, ns: ns}
	if h.conn, err = rtnl.DialIn(ns); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { h.conn.Close(); ns.Close() })
	h.in("forward nothing", func() error { // as it may be inherited from the machine
		for _, family := range []string{"ipv4", "ipv6"} {
			if err := os.WriteFile("/proc/sys/net/"+family+"/conf/all/forwarding", []byte("0"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	return h
}

// in runs f in the host's namespace.
func (h *host) in(what string, f func() error) {
	h.r.Helper()
	if err := rtnl.In(h.ns, f); err != nil {
		h.r.Fatalf("%s: %v", what, err)
	}
}

// mtu is none that anybody has by default.
const mtu = 1380

// interfaces describes the interfaces of a workload, and makes the host's end of
// their links.
func (h *host) interfaces(n int, kind boundary.NetworkKind) (nics []workload.NIC, taps []*os.File) {
	h.r.Helper()
	for i := range n {
		h.last++
		nic := workload.NIC{
			Name: "eth" + strconv.Itoa(i), Link: "link" + strconv.Itoa(h.last), MTU: mtu, MAC: fmt.Sprintf("02:42:00:00:%02x:02", h.last),
			Addresses: []netip.Prefix{
				netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/30", 4*h.last+2)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::2/64", h.last)),
			},
		}
		if i == 0 {
			nic.Gateways = []netip.Addr{h.end(nic, 0).Addr(), h.end(nic, 1).Addr()}
		}
		if kind == boundary.Tap {
			h.in("make a tap device", func() error {
				f, err := nettest.OpenTap(nic.Link)
				taps = append(taps, f)
				return err
			})
		} else {
			h.in("make a pair of interfaces", func() error { return veth(nic) })
		}
		l, err := h.conn.Find(func(l rtnl.Link) bool { return l.Name == nic.Link })
		if err == nil {
			err = h.conn.SetLink(l.Index, rtnl.Change{MTU: mtu, State: rtnl.Up})
		}
		for a := 0; err == nil && a < len(nic.Addresses); a++ {
			err = h.conn.AddAddress(l.Index, h.end(nic, a))
		}
		if err != nil {
			h.r.Fatal(err)
		}
		nics = append(nics, nic)
	}
	return nics, taps
}

// end is the host's address on an interface's link.
func (h *host) end(n workload.NIC, a int) netip.Prefix {
	p := n.Addresses[a]
	return netip.PrefixFrom(p.Addr().Prev(), p.Bits())
}

func veth(n workload.NIC) error {
	out, err := exec.Command("ip", "link", "add", n.Link, "type", "veth", "peer", "name", n.Link+"p", "address", n.MAC).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// connected is a workload with interfaces.
type connected struct {
	boundary.Instance
	nics []workload.NIC
}

// connect creates and starts a workload that serves whoever connects.
func (h *host) connect(n int) *connected {
	h.r.Helper()
	r, s := h.r, h.r.spec("serve", "80")
	kind := r.Boundary.Needs(s).Network
	c := &connected{}
	p := r.Prepare(r, s)
	c.nics, p.Taps = h.interfaces(n, kind)
	if kind == boundary.Tap {
		p.NICs = c.nics
	}
	line, w := r.lines()
	p.Stdio.Out, p.Stdio.Err = w, w
	var err error
	c.Instance, err = r.Boundary.Create(r.ctx(), s, p)
	for _, f := range p.Taps {
		f.Close()
	}
	if err != nil {
		r.Fatalf("create: %v", err)
	}
	r.Cleanup(func() {
		if err := c.Delete(context.Background()); err != nil {
			r.Errorf("delete: %v", err)
		}
	})
	if kind == boundary.Namespace {
		h.in("attach", func() error { return enter(c.Instance, c.nics) })
	}
	if err := c.Start(r.ctx()); err != nil {
		r.Fatalf("start: %v", err)
	}
	w.Close()
	if got := line(); got != "ready" {
		r.Fatalf("the server said %q", got)
	}
	return c
}

// enter does what whoever owns the host's network does.
func enter(in boundary.Instance, nics []workload.NIC) error {
	ns, err := in.(boundary.NetNS).NetNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	var all []protocol.NIC
	for _, n := range nics {
		all = append(all, protocol.NIC{NIC: n, Device: n.MAC})
	}
	return new(nic.Devices).Attach(all, ns)
}

// asks dials an address from the host and returns what is said there: the
// address that the call came from.
func (h *host) asks(a netip.Addr, port int) (string, error) {
	var said []byte
	err := rtnl.In(h.ns, func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(a.String(), strconv.Itoa(port)), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		said, err = io.ReadAll(c)
		return err
	})
	return string(said), err
}

// serves answers calls to the host as the program inside does.
func (h *host) serves() (port int) {
	h.r.Helper()
	var l net.Listener
	h.in("listen", func() (err error) {
		l, err = net.Listen("tcp", ":0")
		return err
	})
	h.r.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			io.WriteString(c, strings.TrimPrefix(a, "::ffff:"))
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// gone waits for the end of the host's end of a link.
func (h *host) gone(name string) {
	h.r.Helper()
	err := rtnl.In(h.ns, func() error {
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if _, err := h.conn.Find(func(l rtnl.Link) bool { return l.Name == name }); err != nil {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is still there", name)
			}
		}
	})
	if err != nil {
		h.r.Error(err)
	}
}

// testInterfaces looks at the network interfaces of workloads from both sides.
func testInterfaces(r *run) {
	h := newHost(r)
	port := h.serves()
	first, second := h.connect(2), h.connect(1)
	for name, c := range map[string]*connected{"first": first, "second": second} {
		var want []string
		for _, n := range c.nics {
			want = append(want, fmt.Sprintf("%s %s %d %v %v", n.Name, n.MAC, n.MTU, n.Addresses[0], n.Addresses[1]))
		}
		if _, got := r.exec(c, r.process("interfaces")); got != strings.Join(want, "\n")+"\n" {
			r.Errorf("%s: interfaces\n%swant\n%s", name, got, strings.Join(want, "\n"))
		}
		for _, n := range c.nics {
			for a, p := range n.Addresses {
				there, here := p.Addr(), h.end(n, a).Addr()
				if got, err := h.asks(there, 80); err != nil || got != here.String() {
					r.Errorf("%s, from the host to %v: called by %q, %v; want %v", name, there, got, err, here)
				}
				if exit, got := r.exec(c, r.process("dial", net.JoinHostPort(here.String(), strconv.Itoa(port)))); exit.Code != 0 || got != there.String()+"\n" {
					r.Errorf("%s, to the host's %v: called by %q, %+v; want %v", name, here, got, exit, there)
				}
			}
		}
	}
	// The host does not forward: what reaches the other workload has another way.
	for _, p := range first.nics[0].Addresses {
		if exit, got := r.exec(second, r.process("dial", net.JoinHostPort(p.Addr().String(), "80"))); exit.Code == 0 {
			r.Errorf("one workload reached another at %v: %q", p, got)
		}
	}
	for _, c := range []*connected{first, second} {
		if err := c.Delete(r.ctx()); err != nil {
			r.Errorf("delete: %v", err)
		}
		for _, n := range c.nics {
			h.gone(n.Link)
		}
	}
	// What the first had can be had again.
	again := h.connect(2)
	if got, err := h.asks(again.nics[1].Addresses[0].Addr(), 80); err != nil || got != h.end(again.nics[1], 0).Addr().String() {
		r.Errorf("another time: called by %q, %v", got, err)
	}
}
