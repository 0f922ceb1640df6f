package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// machine is a Guest whose disks and volumes are directories.
type machine struct {
	image, data string

	mu       sync.Mutex
	images   int               // mounted
	sources  map[string]string // of volumes, by name
	attached map[string]bool
	clock    time.Time
	seed     []byte
	off      chan struct{}
	hang     chan struct{} // if set, Image waits for it

	nics       []protocol.NIC // that were attached
	routes     []protocol.NIC // that Route was asked for
	namespaces []bool         // whether there was one, for each Attach
	noNICs     error          // what Attach says
	stuck      string         // the device that does not come back
}

func newMachine(image, data string) *machine {
	return &machine{image: image, data: data, sources: map[string]string{}, attached: map[string]bool{}, off: make(chan struct{})}
}

func (m *machine) Image(serial string) (string, func() error, error) {
	if serial != "image0" {
		return "", nil, fmt.Errorf("no disk %s", serial)
	}
	if m.hang != nil {
		<-m.hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.images++
	return m.image, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.images--
		return nil
	}, nil
}

func (m *machine) Data(id workload.ID, _ string, base, _ uint32) (upper, work string, err error) {
	dir := filepath.Join(m.data, string(id))
	upper, work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", "", err
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(d, int(base), int(base)); err != nil {
				return "", "", err
			}
		}
	}
	return upper, work, nil
}

func (m *machine) RemoveData(id workload.ID) error {
	return os.RemoveAll(filepath.Join(m.data, string(id)))
}

func (m *machine) KeepData(keep func(workload.ID) bool) error {
	entries, err := os.ReadDir(m.data)
	for _, e := range entries {
		if !keep(workload.ID(e.Name())) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(m.data, e.Name())))
		}
	}
	return err
}

func (m *machine) Images() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.images == 0 {
		return nil
	}
	return []string{"image0"}
}

func (m *machine) Volume(name string, _ bool) (Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sources[name] == "" {
		return nil, errors.New("no such directory")
	}
	m.attached[name] = true
	return &mountedSource{m: m, name: name, path: m.sources[name]}, nil
}

// mountedSource is a volume that is a directory of this machine.
type mountedSource struct {
	m          *machine
	name, path string
	conn       io.ReadWriteCloser
}

func (s *mountedSource) Path() string { return s.path }

// Serve asks once what is there, as the relay does with the kernel's first request,
// and needs the answer.
func (s *mountedSource) Serve(conn io.ReadWriteCloser) error {
	s.conn = conn
	conn.Write([]byte("hello"))
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err
}

func (s *mountedSource) Unmount() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	delete(s.m.attached, s.name)
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// Attach keeps what it was asked for, with the namespace's number.
func (m *machine) Attach(nics []protocol.NIC, ns *os.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noNICs != nil {
		return m.noNICs
	}
	m.nics = append(m.nics, nics...)
	m.namespaces = append(m.namespaces, ns != nil)
	return nil
}

// Detach forgets interfaces, and Route keeps what it was asked for.
func (m *machine) Detach(nics []protocol.NIC) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range nics {
		if n.Device == m.stuck {
			return errors.New("the driver hangs")
		}
		m.nics = slices.DeleteFunc(m.nics, func(had protocol.NIC) bool { return had.Device == n.Device })
	}
	return nil
}

func (m *machine) Devices() (devices []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nics {
		devices = append(devices, n.Device)
	}
	return devices
}

func (m *machine) Route(nics []protocol.NIC, _ *os.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes = append(m.routes, nics...)
	return nil
}

func (m *machine) SetClock(t time.Time) error       { m.clock = t; return nil }
func (m *machine) ShiftClock(d time.Duration) error { m.clock = m.clock.Add(d); return nil }
func (m *machine) Reseed(seed []byte) error         { m.seed = seed; return nil }
func (m *machine) PowerOff()                        { close(m.off) }

// link connects an agent with a host, over a socket pair, until t ends.
func link(t testing.TB, a *Agent) *protocol.Session {
	t.Helper()
	ours, theirs := socketpair(t)
	served := make(chan error, 1)
	go func() { served <- a.Serve(context.Background(), theirs) }()
	s, err := protocol.Host(context.Background(), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("agent: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the agent does not end with its session")
		}
	})
	return s
}

func socketpair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return conn(fds[0]), conn(fds[1])
}

// relay lets other processes reach s by a socket, as a tenant's supervisor does.
func relay(t testing.TB, s *protocol.Session) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				st, err := s.Open(context.Background())
				if err != nil {
					c.Close()
					return
				}
				protocol.Relay(c, st)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.Close()
		all.Wait()
	})
	return path
}

func dialer(path string) client.Dial {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// remote is the boundary that a client makes of an agent. A workload's engine
// attaches the volumes.
type remote struct {
	c *client.Client
	m *machine // nil in the creator that dies
	boundary.Boundary
}

func (r *remote) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	req := protocol.Create{Spec: s, Image: "image0", IDBase: p.IDBase, IDCount: p.IDCount, Volumes: map[int]string{}}
	in := &remoteInstance{}
	for i, m := range s.Mounts {
		if m.Type != "bind" {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return nil, err
		}
		name := fmt.Sprintf("v%s-%d", s.ID.Short(), i)
		r.m.mu.Lock()
		r.m.sources[name] = m.Source
		r.m.mu.Unlock()
		detach, err := r.c.AttachVolume(ctx, name, false, func(c io.ReadWriteCloser) { io.Copy(c, c) })
		if err != nil {
			return nil, err
		}
		in.detach = append(in.detach, detach)
		req.Volumes[i] = name
	}
	var err error
	if in.Instance, err = r.c.Create(ctx, req, p.Stdio, p.Notice); err != nil {
		in.done()
		return nil, err
	}
	return in, nil
}

func (r *remote) Open(_ context.Context, id workload.ID, _ string) (boundary.Instance, error) {
	return r.c.Open(id), nil
}

type remoteInstance struct {
	*client.Instance
	detach []func()
}

func (in *remoteInstance) Delete(ctx context.Context) error {
	err := in.Instance.Delete(ctx)
	if err == nil {
		in.done()
	}
	return err
}

func (in *remoteInstance) done() {
	for _, f := range in.detach {
		f()
	}
	in.detach = nil
}
