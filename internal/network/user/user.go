// Package user makes the network "user": the host's connections, made for one
// workload by a process without privilege. There is no bridge, no rule of a
// firewall and no change to the host's interfaces; what a workload sends becomes
// calls of sockets in the host's network namespace.
//
//	virtual machine ── stream of frames ── passt ─┐
//	                                              ├─ sockets of the host
//	container ── tap in its namespace ──── pasta ─┘
//
// Both are the programs of the package passt. Each workload has one process of
// its own, with a user ID that no other workload has. It begins with the capability to
// bind the host's low ports and, as pasta, to enter the container's namespaces;
// it gives both up before it takes a packet, and locks itself into an empty root
// and a filter of system calls.
//
// The process is in a cgroup whose name follows from the workload's: whoever
// comes after a crash finds it there. passt ends with its machine, too.
package user

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// What every workload has in its own user network, where nobody else is. The
// gateway is the process; it is not the host: its address leads nowhere.
var (
	own4     = netip.MustParsePrefix("10.0.2.15/24")
	gateway4 = netip.MustParseAddr("10.0.2.2")
	names4   = netip.MustParseAddr("10.0.2.3")
	own6     = netip.MustParsePrefix("fd00:10:0:2::15/64")
	gateway6 = netip.MustParseAddr("fd00:10:0:2::2")
	names6   = netip.MustParseAddr("fd00:10:0:2::3")
)

const (
	ownMAC     = "02:42:0a:00:02:0f"
	gatewayMAC = "02:42:0a:00:02:02"
	// mtu is the largest that both programs know: packets end at the process, which
	// sends what is in them by the host's own size.
	mtu = 65520
)

// Options say where processes are kept.
type Options struct {
	// CgroupParent is the cgroup below which they are, "/bulkhead" if empty.
	CgroupParent string
}

// Attached is a workload's place in its user network.
type Attached struct {
	network.Prepared
	// Taps holds the stream of frames for a virtual machine. Close closes it.
	Taps []*os.File

	o Options
	r network.Request
}

// Check tells whether there can be a user network now: an error that wraps
// workload.ErrUnsupported says what is missing.
func Check() error {
	for _, vm := range []bool{false, true} {
		if _, err := program(vm); err != nil {
			return err
		}
	}
	_, err := uplink()
	return err
}

func (o Options) cgroup(id workload.ID) string {
	parent := o.CgroupParent
	if parent == "" {
		parent = "/bulkhead"
	}
	return parent + "/user-" + id.Short()
}

// patience is how long a process may take to begin, and a container's interface
// to appear.
const patience = 20 * time.Second

// Attach starts passt for a virtual machine, which asks for taps, and settles
// addresses and ports; a container's process starts in Enter. What was made before
// an error is gone again.
func (o Options) Attach(ctx context.Context, r network.Request) (_ *Attached, err error) {
	if r.Helper == 0 {
		return nil, fmt.Errorf("%w: the user network of a workload without a user namespace of its own", workload.ErrUnsupported)
	}
	if _, err := program(r.Taps); err != nil {
		return nil, err
	}
	f, err := uplink()
	if err != nil {
		return nil, err
	}
	a := &Attached{o: o, r: r}
	if a.Ports, err = choosePorts(r.Ports, r.LastPorts, f); err != nil {
		return nil, err
	}
	nic := workload.NIC{Name: "eth0", Network: workload.NetworkUser, MAC: ownMAC, MTU: mtu}
	if f.v4 {
		nic.Addresses, nic.Gateways = append(nic.Addresses, own4), append(nic.Gateways, gateway4)
	}
	if f.v6 {
		nic.Addresses, nic.Gateways = append(nic.Addresses, own6), append(nic.Gateways, gateway6)
	}
	a.NICs = []workload.NIC{nic}
	a.Nameservers = nameservers(f)
	if !r.Taps {
		return a, nil
	}
	ours, theirs, err := sockets()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	a.Taps = []*os.File{ours}
	if err := a.start(ctx, []*os.File{theirs}, nil); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// Enter starts pasta in a container's network namespace and configures the
// interface that it makes there.
func (a *Attached) Enter(ctx context.Context, ns *os.File) error {
	if ns == nil {
		return nil // a machine's works since Attach
	}
	owner, err := ownerOf(ns)
	if err != nil {
		return err
	}
	defer owner.Close()
	up := func() error {
		return rtnl.In(ns, func() error { return configure(a.NICs[0]) })
	}
	return a.start(ctx, []*os.File{owner, ns}, up)
}

// Close closes what was given along. The workload stays attached.
func (a *Attached) Close() {
	for _, f := range a.Taps {
		f.Close()
	}
	a.Taps = nil
}

// start starts the process and waits until ready says that it works.
func (a *Attached) start(ctx context.Context, files []*os.File, ready func() error) (err error) {
	m, err := a.o.prepare(ctx, a.r.ID)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.o.Release(context.WithoutCancel(ctx), a.r.ID))
		}
	}()
	path, err := program(a.r.Taps)
	if err != nil {
		return err
	}
	said, err := launchProcess(ctx, process{
		path: path, args: arguments(a.r.Taps, a.Ports, a.NICs[0], a.Nameservers), id: a.r.Helper, enters: !a.r.Taps, files: files, cgroup: m,
	})
	if err != nil {
		return err
	}
	defer said.Close()
	text, err := await(ctx, said)
	if err == nil && ready != nil {
		err = ready()
	}
	if errors.Is(err, errEnded) {
		// Since a port was chosen another may have bound it, as a start at the same time.
		if perr := a.stillFree(); perr != nil {
			return perr
		}
	}
	if err != nil {
		return explain(path, text, err)
	}
	return nil
}

// stillFree returns an error that wraps network.ErrPortTaken if a port of the host that
// was chosen is somebody else's by now.
func (a *Attached) stillFree() error {
	c := choice{taken: map[hostPort]uint16{}}
	defer c.letGo()
	for _, p := range a.Ports {
		if err := c.take(&p, p.HostPort); errors.Is(err, network.ErrPortTaken) {
			return err
		}
	}
	return nil
}

// errEnded tells of a process that ended before it had begun.
var errEnded = errors.New("it ended")

// What a process may use, where the machine has the controllers: bytes, with what
// the kernel holds for its sockets, and tasks. It is 12 MB at rest, and one task
// or, while pasta enters a namespace, two.
const (
	maxMemory = 256 << 20
	maxTasks  = 16
)

// prepare makes the cgroup of a process, in the place of one that was left.
func (o Options) prepare(ctx context.Context, id workload.ID) (*cgroup.Manager, error) {
	if err := o.Release(ctx, id); err != nil {
		return nil, err
	}
	f, err := cgroup.Probe(cgroup.Options{})
	if err != nil {
		return nil, err
	}
	m, err := cgroup.New(o.cgroup(id), f.Helper(maxMemory, maxTasks), cgroup.Options{})
	if err == nil {
		err = m.Create()
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup of the user network: %w", err)
	}
	if err := keepFromLoopback(m); err != nil {
		return nil, errors.Join(err, o.Release(context.WithoutCancel(ctx), id))
	}
	return m, nil
}

// Release ends a workload's process. It may be called again, and after any crash.
func (o Options) Release(ctx context.Context, id workload.ID) error {
	m, err := cgroup.Load(o.cgroup(id), cgroup.Options{})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = m.Kill(ctx)
	}
	if err == nil {
		err = m.Destroy(ctx)
	}
	if err != nil {
		return fmt.Errorf("end the process of the user network: %w", err)
	}
	m.RemoveEmptyParents(strings.TrimSuffix(o.cgroup(id), "/user-"+id.Short()))
	return nil
}

// configure makes the interface work that pasta has made in this namespace.
func configure(n workload.NIC) error {
	l, err := rtnl.Await(patience, func(l rtnl.Link) bool { return l.Name == n.Name })
	if err != nil {
		return fmt.Errorf("interface %s: %w", n.Name, err)
	}
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	mac, err := rtnl.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	if err := c.LoopbackUp(); err != nil {
		return err
	}
	if err := c.SetLink(l.Index, rtnl.Change{MAC: mac, MTU: n.MTU}); err != nil {
		return err
	}
	return c.Configure(l, n.Addresses, n.Gateways)
}

// sockets are two ends of a stream.
func sockets() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "frames"), os.NewFile(uintptr(fds[1]), "frames"), nil
}

// ownerOf opens the user namespace that a network namespace belongs to
// (ioctl_ns(2)).
func ownerOf(ns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, fmt.Errorf("user namespace of the workload's network: %w", os.NewSyscallError("ioctl(NS_GET_USERNS)", err))
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// program finds passt, or pasta.
func program(vm bool) (string, error) {
	name := "pasta"
	if vm {
		name = "passt"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: the user network needs the program %s: install the package passt", workload.ErrUnsupported, name)
	}
	return path, nil
}

// maxSaid bounds what is kept of a process's words, in bytes.
const maxSaid = 16 << 10

// await reads what a process says until it says what it will do, which is after
// it has bound its ports, or ends.
func await(ctx context.Context, said *os.File) (string, error) {
	stop := context.AfterFunc(ctx, func() { said.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	said.SetReadDeadline(time.Now().Add(patience))
	defer said.SetReadDeadline(time.Time{})
	var text strings.Builder
	b := make([]byte, 1024)
	for text.Len() < maxSaid {
		n, err := said.Read(b)
		text.Write(b[:n])
		switch {
		case strings.Contains(text.String(), announced):
			return text.String(), nil
		case errors.Is(err, io.EOF):
			return text.String(), errEnded
		case ctx.Err() != nil:
			return text.String(), ctx.Err()
		case err != nil:
			return text.String(), err
		}
	}
	return text.String(), errors.New("it says too much")
}

// announced is what both programs print of their configuration.
const announced = "MAC:"
