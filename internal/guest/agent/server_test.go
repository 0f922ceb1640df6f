package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// fakeAgent is an agent of fake workloads and the directories that show what it
// leaves behind.
type fakeAgent struct {
	*Agent
	m          *machine
	world, run string
}

func newFakeAgent(t testing.TB) *fakeAgent {
	f := &fakeAgent{m: newMachine(t.TempDir(), t.TempDir()), world: t.TempDir(), run: t.TempDir()}
	f.Agent = New(Config{Guest: f.m, Boundary: &fake.Boundary{World: f.world}, RunDir: f.run, Log: func(l string) { t.Error("log:", l) }})
	return f
}

// empty waits until nothing of any workload is left.
func (f *fakeAgent) empty(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		a, _ := os.ReadDir(f.world)
		b, _ := os.ReadDir(f.run)
		f.mu.Lock()
		n := len(f.workloads)
		f.mu.Unlock()
		f.m.mu.Lock()
		images, nics := f.m.images, len(f.m.nics)
		f.m.mu.Unlock()
		if len(a)+len(b)+n+images+nics == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v, %v, %d workloads, %d images, %d network devices", a, b, n, images, nics)
		}
	}
}

func spec(args ...string) protocol.Create {
	return protocol.Create{Image: "image0", Spec: workload.Spec{
		ID: workload.NewID(), Process: workload.Process{Args: append([]string{fake.Program}, args...), Cwd: "/"},
	}}
}

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func start(t testing.TB, c *client.Client, req protocol.Create, stdio boundary.Stdio) *client.Instance {
	t.Helper()
	in, err := c.Create(limited(t), req, stdio, nil)
	if err == nil {
		err = in.Start(limited(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func wantExit(t testing.TB, p boundary.Process, code int) {
	t.Helper()
	if exit, err := p.Wait(limited(t)); err != nil || exit.Code != code {
		t.Errorf("got %+v, %v, want status %d", exit, err, code)
	}
}

// TestTwoClients has two sessions with one agent, and cuts one off.
func TestTwoClients(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	f := newFakeAgent(t)
	ours, theirs := socketpair(t)
	served := make(chan error, 1)
	go func() { served <- f.Serve(context.Background(), theirs) }()
	first, err := protocol.Host(limited(t), ours)
	if err != nil {
		t.Fatal(err)
	}
	second := link(t, f.Agent)
	one, two := client.OverSession(first), client.OverSession(second)
	req := spec("pause")
	kept := start(t, two, req, boundary.Stdio{})
	if _, err := one.Create(limited(t), req, boundary.Stdio{}, nil); !errors.Is(err, workload.ErrRunning) {
		t.Errorf("an ID that is in use: %v", err)
	}
	var lost []*client.Instance
	for range 5 {
		lost = append(lost, start(t, one, spec("pause"), boundary.Stdio{}))
	}
	proc, err := lost[0].Exec(limited(t), spec("pause").Spec.Process, boundary.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := two.Status(limited(t)); err != nil || len(s.Workloads) != 6 || s.MemoryTotal < 1<<20 || s.MemoryAvailable < 1<<20 {
		t.Errorf("status: %+v, %v", s, err)
	}
	ours.Close() // as when the host process is killed
	if err := <-served; err != nil {
		t.Errorf("session that was cut off: %v", err)
	}
	for _, p := range []boundary.Process{lost[0], lost[4], proc} {
		if _, err := p.Wait(limited(t)); !errors.Is(err, client.ErrGuestLost) {
			t.Errorf("wait for what was lost: %v", err)
		}
	}
	if err := lost[1].Signal(limited(t), syscall.SIGKILL); !errors.Is(err, client.ErrGuestLost) {
		t.Errorf("signal to what was lost: %v", err)
	}
	for _, in := range lost {
		in.Abandon()
	}
	s, err := two.Status(limited(t))
	if err != nil || len(s.Workloads) != 1 || s.Workloads[0] != (protocol.Workload{ID: req.Spec.ID, Status: workload.Running}) {
		t.Errorf("status: %+v, %v", s, err)
	}
	if err := kept.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	f.empty(t)
	first.Close()
}

// TestCutOffWithFullInput closes a relayed connection while the process does
// not read: the agent notices, and removes one workload of two.
func TestCutOffWithFullInput(t *testing.T) {
	f := newFakeAgent(t)
	c := client.New(dialer(relay(t, link(t, f.Agent))))
	other := start(t, c, spec("pause"), boundary.Stdio{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in := start(t, c, spec("pause"), boundary.Stdio{In: r})
	r.Close()
	w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := w.Write(make([]byte, 10<<20)); err == nil || n < protocol.StdinWindow {
		t.Errorf("%d bytes, %v", n, err)
	}
	w.Close()
	in.Abandon()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := c.Status(limited(t))
		if err == nil && len(s.Workloads) == 1 {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("status: %+v, %v", s, err)
		}
	}
	if err := other.Signal(limited(t), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	wantExit(t, other, 137)
	if err := other.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	f.empty(t)
}

// TestFlood has workloads that write as fast as they can, one of them to
// somebody who does not read.
func TestFlood(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	const size = 100 << 20
	stuckR, stuckW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stuckR.Close()
	stuck := start(t, c, spec("bytes", fmt.Sprint(size)), boundary.Stdio{Out: stuckW})
	stuckW.Close()
	var before, during runtime.MemStats
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		in := start(t, c, spec("bytes", fmt.Sprint(size)), boundary.Stdio{Out: w})
		w.Close()
		all.Go(func() {
			defer r.Close()
			if n, err := io.Copy(io.Discard, r); err != nil || n != size {
				t.Errorf("%d bytes, %v", n, err)
			}
			wantExit(t, in, 0)
			if err := in.Delete(limited(t)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 20 {
		if _, err := c.Status(limited(t)); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&during)
		if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
			t.Errorf("the heap grew by %d bytes", grown)
		}
	}
	all.Wait()
	if err := stuck.Delete(limited(t)); err != nil {
		t.Errorf("delete what nobody reads: %v", err)
	}
	f.empty(t)
}

// TestManyWorkloads runs 200 at a time.
func TestManyWorkloads(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			r, w, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			in, err := c.Create(limited(t), spec("echo", fmt.Sprint("I am ", i)), boundary.Stdio{Out: w}, nil)
			w.Close()
			if err == nil {
				err = in.Start(limited(t))
			}
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := io.ReadAll(r); err != nil || string(b) != fmt.Sprintf("I am %d\n", i) {
				t.Errorf("got %q, %v", b, err)
			}
			wantExit(t, in, 0)
			if err := in.Delete(limited(t)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f.empty(t)
}

// TestInputAndOutput carries a lot through a process, whole.
func TestInputAndOutput(t *testing.T) {
	c := client.OverSession(link(t, newFakeAgent(t).Agent))
	inR, inW, _ := os.Pipe()
	outR, outW, _ := os.Pipe()
	in := start(t, c, spec("cat"), boundary.Stdio{In: inR, Out: outW})
	inR.Close()
	outW.Close()
	text := bytes.Repeat([]byte("0123456789abcde\n"), 300_000)
	go func() {
		inW.Write(text)
		inW.Close()
	}()
	if got, err := io.ReadAll(outR); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
	}
	wantExit(t, in, 0)
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
}

// TestNobodyListens closes the reading end of a process's output and the
// process notices, and the writing end's owner notices a process's end.
func TestNobodyListens(t *testing.T) {
	c := client.OverSession(link(t, newFakeAgent(t).Agent))
	outR, outW, _ := os.Pipe()
	outR.Close()
	in := start(t, c, spec("bytes", "100000000"), boundary.Stdio{Out: outW})
	outW.Close()
	wantExit(t, in, 1)
	in.Delete(limited(t))

	inR, inW, _ := os.Pipe()
	in = start(t, c, spec("exit", "3"), boundary.Stdio{In: inR})
	inR.Close()
	wantExit(t, in, 3)
	if _, err := inW.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to the input of an ended process: %v", err)
	}
	in.Delete(limited(t))
}

// TestGivenUp has calls whose context ends while the agent is busy.
func TestGivenUp(t *testing.T) {
	f := newFakeAgent(t)
	f.m.hang = make(chan struct{})
	c := client.OverSession(link(t, f.Agent))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	req := spec("pause")
	if _, err := c.Create(ctx, req, boundary.Stdio{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create: %v", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Delete(short, req.Spec.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("delete of what is being made: %v", err)
	}
	close(f.m.hang)
	f.empty(t)
}

func TestMachine(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	now := time.Now().Round(0)
	if err := c.SetClock(limited(t), now); err != nil || !f.m.clock.Equal(now) {
		t.Errorf("clock: %v, %v", f.m.clock, err)
	}
	if err := c.ShiftClock(limited(t), -time.Second); err != nil || !f.m.clock.Equal(now.Add(-time.Second)) {
		t.Errorf("clock moved: %v, %v", f.m.clock, err)
	}
	if got, err := c.Clock(limited(t)); err != nil || time.Since(got).Abs() > time.Minute || !f.m.clock.Equal(now.Add(-time.Second)) {
		t.Errorf("clock read: %v, %v, and is %v", got, err, f.m.clock)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := c.Clock(gone); err == nil {
		t.Errorf("a clock that could not be read says %v", got)
	}
	seed := bytes.Repeat([]byte{7}, 64)
	if err := c.Reseed(limited(t), seed); err != nil || !bytes.Equal(f.m.seed, seed) {
		t.Errorf("seed: %v, %v", f.m.seed, err)
	}
	if err := c.Reseed(limited(t), seed[:5]); !errors.Is(err, protocol.ErrProtocol) {
		t.Errorf("a short seed: %v", err)
	}
	req := spec("pause")
	in := start(t, c, req, boundary.Stdio{})
	if err := c.RemoveData(limited(t), req.Spec.ID); !errors.Is(err, workload.ErrRunning) {
		t.Errorf("remove the data of what runs: %v", err)
	}
	data := filepath.Join(f.m.data, string(req.Spec.ID))
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("delete took the data along: %v", err)
	}
	if err := c.RemoveData(limited(t), req.Spec.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data is left: %v", err)
	}
	if err := c.PowerOff(limited(t)); err != nil {
		t.Error(err)
	}
	<-f.m.off
}

func TestVolumes(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	f.m.sources["data"] = t.TempDir()
	got := make(chan string, 1)
	detach, err := c.AttachVolume(limited(t), "data", false, func(conn io.ReadWriteCloser) {
		b := make([]byte, 5)
		io.ReadFull(conn, b)
		got <- string(b)
		conn.Write(b)
		io.Copy(io.Discard, conn)
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "hello" { // nothing of the reply is in it
		t.Errorf("got %q", s)
	}
	req := spec("exit", "0")
	req.Spec.Mounts = []workload.Mount{{Type: "tmpfs", Target: "/t"}, {Type: "bind", Source: "/on/the/host", Target: "/v"}}
	if _, err := c.Create(limited(t), req, boundary.Stdio{}, nil); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("a mount without a volume: %v", err)
	}
	req.Volumes = map[int]string{1: "other"}
	if _, err := c.Create(limited(t), req, boundary.Stdio{}, nil); err == nil {
		t.Error("a volume that is not attached: no error")
	}
	mounts, shifted, err := f.mounts(&protocol.Create{Spec: req.Spec, Volumes: map[int]string{1: "data"}})
	if err != nil || len(mounts) != 2 || mounts[1].Source != f.m.sources["data"] || len(shifted) != 1 || shifted[0] != f.m.sources["data"] {
		t.Errorf("got %+v, %v, %v", mounts, shifted, err)
	}
	failed, err := c.AttachVolume(limited(t), "none", false, func(c io.ReadWriteCloser) { io.Copy(io.Discard, c) })
	if err != nil {
		t.Fatal(err)
	}
	req.Volumes = map[int]string{1: "none"}
	if _, err := c.Create(limited(t), req, boundary.Stdio{}, nil); err == nil || !strings.Contains(err.Error(), "no such directory") {
		t.Errorf("a volume that cannot be mounted: %v", err)
	}
	failed()
	detach()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.m.mu.Lock()
		attached := len(f.m.attached)
		f.m.mu.Unlock()
		if attached == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the volume is still attached")
		}
	}
	f.empty(t)
}

// TestFiles looks at what the boundary would be given.
func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	files, err := writeFiles(dir, map[string][]byte{"/etc/hosts": []byte("h"), "/etc/hostname": []byte("n")}, os.Getuid())
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for target, want := range map[string]string{"/etc/hosts": "h", "/etc/hostname": "n"} {
		if b, err := os.ReadFile(files[target]); err != nil || string(b) != want || filepath.Dir(files[target]) != dir {
			t.Errorf("%s in %s: %q, %v", target, files[target], b, err)
		}
	}
}

// TestBadRequests wants each refused, with nothing made.
func TestBadRequests(t *testing.T) {
	f := newFakeAgent(t)
	s := link(t, f.Agent)
	c := client.OverSession(s)
	for name, change := range map[string]func(*protocol.Create){
		"no ID":              func(c *protocol.Create) { c.Spec.ID = "" },
		"path as ID":         func(c *protocol.Create) { c.Spec.ID = "../../etc" },
		"long path as ID":    func(c *protocol.Create) { c.Spec.ID = workload.ID(strings.Repeat("../", 21) + ".") },
		"no image":           func(c *protocol.Create) { c.Image = "" },
		"path as image":      func(c *protocol.Create) { c.Image = "../vda" },
		"IDs overflow":       func(c *protocol.Create) { c.IDBase, c.IDCount = 1<<32-1, 2 },
		"relative file":      func(c *protocol.Create) { c.Files = map[string][]byte{"etc/hosts": nil} },
		"file outside":       func(c *protocol.Create) { c.Files = map[string][]byte{"/../etc/hosts": nil} },
		"volume of no mount": func(c *protocol.Create) { c.Volumes = map[int]string{0: "v"} },
		"volume number":      func(c *protocol.Create) { c.Volumes = map[int]string{-1: "v"} },
		"many files":         func(c *protocol.Create) { c.Files = manyFiles(maxFiles + 1) },
		"many mounts":        func(c *protocol.Create) { c.Spec.Mounts = make([]workload.Mount, maxMounts+1) },
		"path as volume name": func(c *protocol.Create) {
			c.Spec.Mounts = []workload.Mount{{Type: "bind"}}
			c.Volumes = map[int]string{0: "a/b"}
		},
	} {
		req := spec("exit", "0")
		change(&req)
		if _, err := c.Create(limited(t), req, boundary.Stdio{}, nil); !errors.Is(err, protocol.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, req := range map[string]protocol.Request{
		"nothing":            {},
		"create nothing":     {Op: protocol.OpCreate},
		"exec nothing":       {Op: protocol.OpExec, ID: workload.NewID()},
		"unknown":            {Op: "format-disk", ID: workload.NewID()},
		"start without ID":   {Op: protocol.OpStart},
		"delete of a path":   {Op: protocol.OpDelete, ID: ".."},
		"volume of no name":  {Op: protocol.OpVolume},
		"data of everything": {Op: protocol.OpRemoveData, ID: "/"},
	} {
		st, err := s.Open(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		protocol.NewWriter(st).JSON(protocol.TypeRequest, req)
		r, err := protocol.NewReader(st).Reply()
		if err != nil || r.Error == nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		st.Close()
	}
	in := c.Open(workload.NewID())
	if err := in.Start(limited(t)); !errors.Is(err, workload.ErrNotFound) {
		t.Errorf("start of nothing: %v", err)
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	in = start(t, c, spec("pause"), boundary.Stdio{})
	if err := in.Start(limited(t)); !errors.Is(err, workload.ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	if err := in.Signal(limited(t), 0); !errors.Is(err, protocol.ErrProtocol) {
		t.Errorf("signal 0: %v", err)
	}
	in.Delete(limited(t))
	f.empty(t)
}

func manyFiles(n int) map[string][]byte {
	files := map[string][]byte{}
	for i := range n {
		files[fmt.Sprintf("/f%d", i)] = nil
	}
	return files
}

// broken is a boundary that panics, or cannot delete at first.
type broken struct {
	fake.Boundary
	refusals int
}

func (b *broken) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	if s.Hostname == "panic" {
		panic("as asked")
	}
	in, err := b.Boundary.Create(ctx, s, p)
	return &brokenInstance{in, b}, err
}

type brokenInstance struct {
	boundary.Instance
	b *broken
}

func (i *brokenInstance) Delete(ctx context.Context) error {
	if i.b.refusals > 0 {
		i.b.refusals--
		return errors.New("device or resource busy")
	}
	return i.Instance.Delete(ctx)
}

// TestFaults has a boundary that fails: the agent stays.
func TestFaults(t *testing.T) {
	f := newFakeAgent(t)
	b := &broken{Boundary: fake.Boundary{World: f.world}}
	var log []string
	f.Boundary, f.Log = b, func(l string) { log = append(log, l) }
	c := client.OverSession(link(t, f.Agent))
	req := spec("exit", "0")
	req.Spec.Hostname = "panic"
	if _, err := c.Create(limited(t), req, boundary.Stdio{}, nil); !errors.Is(err, client.ErrGuestLost) {
		t.Errorf("panic: %v", err)
	}
	f.empty(t)
	if len(log) != 1 || !strings.Contains(log[0], "as asked") {
		t.Errorf("log: %q", log)
	}
	in := start(t, c, spec("pause"), boundary.Stdio{})
	b.refusals = 1
	if err := in.Delete(limited(t)); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("delete that fails: %v", err)
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Errorf("delete again: %v", err)
	}
	f.empty(t)
}

// TestOneFileForBoth keeps the order of what is written to two streams that are
// one file.
func TestOneFileForBoth(t *testing.T) {
	c := client.OverSession(link(t, newFakeAgent(t).Agent))
	for range 50 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		in := start(t, c, spec("both"), boundary.Stdio{Out: w, Err: w})
		w.Close()
		if b, err := io.ReadAll(r); err != nil || string(b) != "to stdout\nto stderr\n" {
			t.Errorf("got %q, %v", b, err)
		}
		r.Close()
		if err := in.Delete(limited(t)); err != nil {
			t.Error(err)
		}
	}
}

// chatty is a boundary that has notices, too early and too many.
type chatty struct{ fake.Boundary }

func (b *chatty) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	for i := range 100 * maxNotices {
		p.Notice(fmt.Sprint("notice ", i))
	}
	return b.Boundary.Create(ctx, s, p)
}

func TestNotices(t *testing.T) {
	f := newFakeAgent(t)
	f.Boundary = &chatty{fake.Boundary{World: f.world}}
	c := client.OverSession(link(t, f.Agent))
	var lines []string // of one goroutine, until the end
	in, err := c.Create(limited(t), spec("exit", "4"), boundary.Stdio{}, func(l string) { lines = append(lines, l) })
	if err == nil {
		err = in.Start(limited(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	wantExit(t, in, 4)
	if len(lines) != maxNotices || lines[0] != "notice 0" {
		t.Errorf("got %d lines: %.200q", len(lines), lines)
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
}
