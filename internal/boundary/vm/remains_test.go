package vm

import (
	"context"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// scripted is a tenant's machine whose agent is a function of the request; what
// it was asked is kept.
type scripted struct {
	answer func(*protocol.Request, net.Conn)
	mu     sync.Mutex
	asked  []protocol.Op
	create *protocol.Create // what was asked for last
	rewire *protocol.Rewire

	devices, plugged int // network devices
}

func (h *scripted) Dial(context.Context) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		req, err := protocol.NewReader(theirs).Request()
		if err != nil {
			return
		}
		h.mu.Lock()
		h.asked = append(h.asked, req.Op)
		if req.Create != nil {
			h.create = req.Create
		}
		if req.Rewire != nil {
			h.rewire = req.Rewire
		}
		h.mu.Unlock()
		h.answer(req, theirs)
	}()
	return ours, nil
}

func (h *scripted) Insert(context.Context, string) (string, func(), error) {
	return "image0", func() {}, nil
}

func (h *scripted) Plug(context.Context, *os.File, bool) (string, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.plugged == h.devices {
		return "", nil, errNICs
	}
	h.plugged++
	return slotMAC(h.plugged), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.plugged--
	}, nil
}

func (h *scripted) was(op protocol.Op) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.asked, op)
}

// reply answers a request with nothing but an error, or none.
func reply(conn net.Conn, err error) {
	protocol.NewWriter(conn).JSON(protocol.TypeReply, protocol.Reply{Error: protocol.NewError(err)})
}

// inTenant is a workload of a tenant whose machine is h.
func inTenant(t *testing.T, h boundary.Host) (Boundary, workload.Spec, boundary.Prepared) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes cgroups, which needs root")
	}
	s := workload.Spec{ID: workload.NewID(), Boundary: "vm", VM: workload.VM{Tenant: "test"}}
	p := boundary.Prepared{
		Dir: t.TempDir(), Cgroup: testCgroup + "/" + string(s.ID), IDBase: 100000, IDCount: 65536,
		Machine: &boundary.Machine{Socket: "tenant", Image: "/image"},
	}
	boundarytest.RemoveCgroup(t, testCgroup)
	return Boundary{Reach: func(string) boundary.Host { return h }}, s, p
}

// TestFailedStartKeepsData has a workload that cannot be made again: what its
// earlier runs wrote is not thrown away for that.
func TestFailedStartKeepsData(t *testing.T) {
	h := &scripted{answer: func(req *protocol.Request, conn net.Conn) {
		if req.Op == protocol.OpCreate {
			reply(conn, workload.ErrNotFound)
			return
		}
		reply(conn, nil)
	}}
	b, s, p := inTenant(t, h)
	if _, err := b.Create(t.Context(), s, p); err == nil {
		t.Fatal("created although the agent refused")
	}
	if !h.was(protocol.OpDelete) || h.was(protocol.OpRemoveData) {
		t.Errorf("the agent was asked for %q, want delete and no %s", h.asked, protocol.OpRemoveData)
	}
}

// TestOpenKeepsData cleans up after a supervisor that was killed, with and
// without --rm.
func TestOpenKeepsData(t *testing.T) {
	for _, autoRemove := range []bool{false, true} {
		h := &scripted{answer: func(_ *protocol.Request, conn net.Conn) { reply(conn, nil) }}
		b, s, p := inTenant(t, h)
		s.AutoRemove = autoRemove
		if _, err := b.Create(t.Context(), s, p); err != nil {
			t.Fatal(err)
		}
		// Now the supervisor is killed.
		i, err := b.Open(t.Context(), s.ID, p.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := h.was(protocol.OpRemoveData); got != autoRemove {
			t.Errorf("removed at its end %v: what it wrote was removed: %v", autoRemove, got)
		}
	}
}

// TestHostUser gives no range of IDs to a workload that shares its guest's user
// namespace: its root is the guest's, and its files have to be that root's.
func TestHostUser(t *testing.T) {
	for _, shared := range []bool{false, true} {
		h := &scripted{answer: func(_ *protocol.Request, conn net.Conn) { reply(conn, nil) }}
		b, s, p := inTenant(t, h)
		s.Namespaces.HostUser = shared
		i, err := b.Create(t.Context(), s, p)
		if err != nil {
			t.Fatal(err)
		}
		wantBase, wantCount := p.IDBase, p.IDCount
		if shared {
			wantBase, wantCount = 0, 0
		}
		if h.create.IDBase != wantBase || h.create.IDCount != wantCount {
			t.Errorf("shared %v: got %d IDs from %d, want %d from %d", shared, h.create.IDCount, h.create.IDBase, wantCount, wantBase)
		}
		if err := i.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestVolumesOfLives has a tenant's workload made again, with a volume. Each life's has a
// name of its own: the guest may not be done with the last one's yet, or never.
func TestVolumesOfLives(t *testing.T) {
	var mu sync.Mutex
	names := map[string]bool{}
	h := &scripted{answer: func(req *protocol.Request, conn net.Conn) {
		if req.Op == protocol.OpVolume {
			mu.Lock()
			names[req.Volume] = true
			mu.Unlock()
		}
		reply(conn, nil)
		if req.Op == protocol.OpVolume || req.Op == protocol.OpCreate {
			io.Copy(io.Discard, conn) //nolint:errcheck // until its end
		}
	}}
	b, s, p := inTenant(t, h)
	p.Machine.FileServer = vmtest.Machine(t).FileServer
	s.Mounts = []workload.Mount{{Type: "bind", Source: t.TempDir(), Target: "/volume"}}
	for range 2 {
		in, err := b.Create(t.Context(), s, p)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if name := h.create.Volumes[0]; !names[name] {
			t.Errorf("the workload has the volume %q, of %v", name, names)
		}
		mu.Unlock()
		if err := in.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(names) != 2 {
		t.Errorf("two lives had the volumes %v", names)
	}
}
