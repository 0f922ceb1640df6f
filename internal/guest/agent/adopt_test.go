package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// blank is a workload for nobody, of containers' image.
func blank(t testing.TB) protocol.Create {
	ids := boundarytest.IDs(t)
	return protocol.Create{
		Image: "image0", IDBase: ids.IDBase, IDCount: ids.IDCount, Alone: true, Streams: protocol.Streams{Out: true, Err: true},
		Files: map[string][]byte{"/etc/hosts": nil, "/etc/hostname": nil},
		Spec: workload.Spec{
			ID: protocol.Nobody, Hostname: "nobody", Network: "none", Process: workload.Process{Cwd: "/tmp"},
		},
	}
}

// outputs returns standard output and error, and what reads the first.
func outputs(t testing.TB) (boundary.Stdio, *os.File) {
	var f [2]struct{ r, w *os.File }
	for i := range f {
		var err error
		if f[i].r, f[i].w, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f[i].r.Close(); f[i].w.Close() })
	}
	return boundary.Stdio{Out: f[0].w, Err: f[1].w}, f[0].r
}

// TestAdopt: what was made for nobody becomes a workload with the program, the
// names and the files of whoever adopts it, once.
func TestAdopt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	run := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}, Paths: []string{run}, Files: true})
	a := New(containers(t, run))
	c := client.OverSession(link(t, a))
	like := blank(t)
	if err := c.Prepare(limited(t), like); err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(limited(t), like); !errors.Is(err, workload.ErrRunning) {
		t.Errorf("a second one: got %v", err)
	}
	who := protocol.Adopt{
		Of: protocol.Nobody, ID: workload.NewID(), Hostname: "somebody", Args: []string{"/bin/program", "env"}, Env: []string{"GREETING=hello"},
		Files: map[string][]byte{"/etc/hosts": []byte("192.0.2.1\tx\n"), "/etc/hostname": []byte("somebody\n")},
	}
	streams, r := outputs(t)
	in, err := c.Adopt(limited(t), like, who, streams, nil)
	streams.Out.Close()
	if err != nil {
		t.Fatal(err)
	}
	more, _ := outputs(t)
	if _, err := c.Adopt(limited(t), like, who, more, nil); err == nil || !strings.Contains(err.Error(), "nothing to adopt") {
		t.Errorf("twice: got %v", err)
	}
	for path, want := range map[string]string{"/etc/hosts": "192.0.2.1\tx\n", "/etc/hostname": "somebody\n"} {
		if b, err := os.ReadFile(a.find(who.ID).files[path]); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v", path, b, err)
		}
	}
	if err := in.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(r)
	if !strings.Contains(string(out), "GREETING=hello\n") || !strings.Contains(string(out), "HOME=") {
		t.Errorf("got %q", out)
	}
	wantExit(t, in, 0)
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
}

// TestAdoptVolumes: what was made for nobody has volumes that are served when it is
// adopted, and not before: otherwise it cannot be.
func TestAdoptVolumes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	run := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}, Paths: []string{run}, Files: true})
	cfg := containers(t, run)
	m := cfg.Guest.(*machine)
	for _, name := range []string{"served", "spare"} {
		m.sources[name] = t.TempDir()
		if err := os.WriteFile(filepath.Join(m.sources[name], "text"), []byte("there"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := New(cfg)
	c := client.OverSession(link(t, a))
	for _, name := range []string{"served", "spare"} {
		if err := c.HoldVolume(limited(t), name, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.HoldVolume(limited(t), "served", false); err == nil {
		t.Error("held twice")
	}
	if err := c.HoldVolume(limited(t), "nowhere", false); err == nil || !strings.Contains(err.Error(), "no such directory") {
		t.Errorf("one that cannot be mounted: %v", err)
	}
	if err := c.HoldVolume(limited(t), "../x", false); err == nil {
		t.Error("a name that is a path")
	}
	like := blank(t)
	like.Spec.Mounts = []workload.Mount{{Type: "bind", Target: "/vol"}}
	like.Volumes = map[int]string{0: "served"}
	who := protocol.Adopt{
		Of: protocol.Nobody, ID: workload.NewID(), Args: []string{"/bin/program", "head", "/vol/text", "5"}, Files: like.Files,
	}
	streams, r := outputs(t)
	if err := c.Prepare(limited(t), like); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Adopt(limited(t), like, who, streams, nil); err == nil || !strings.Contains(err.Error(), "nobody serves") {
		t.Errorf("before it is served: %v", err)
	}
	if err := c.Prepare(limited(t), like); err != nil {
		t.Fatal(err)
	}
	serve := func(conn io.ReadWriteCloser) {
		b := make([]byte, 5)
		io.ReadFull(conn, b)
		conn.Write(b)
		io.Copy(io.Discard, conn)
	}
	if _, err := c.AttachVolume(limited(t), "served", true, serve); err == nil {
		t.Error("served as a file, which it is not")
	}
	detach, err := c.AttachVolume(limited(t), "served", false, serve)
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Adopt(limited(t), like, who, streams, nil)
	streams.Out.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	if out, _ := io.ReadAll(r); string(out) != fmt.Sprintf("%x\n", "there") {
		t.Errorf("got %q", out)
	}
	wantExit(t, in, 0)
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	detach()
	a.discard()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		m.mu.Lock()
		attached := len(m.attached)
		m.mu.Unlock()
		if attached == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d volumes are still attached", attached)
		}
	}
}

// TestAdoptRefused: an adoption that cannot be fails as Create would, leaves
// nothing, and is not tried again with what it had.
func TestAdoptRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	run := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}, Paths: []string{run}, Files: true})
	a := New(containers(t, run))
	c := client.OverSession(link(t, a))
	streams, _ := outputs(t)
	for name, x := range map[string]struct {
		change func(*protocol.Adopt)
		want   error
	}{
		"no such program": {func(ad *protocol.Adopt) { ad.Args = []string{"nothing"} }, workload.ErrCommandNotFound},
		"not executable":  {func(ad *protocol.Adopt) { ad.Args = []string{"/etc/passwd"} }, workload.ErrNotExecutable},
		"another file":    {func(ad *protocol.Adopt) { ad.Files = map[string][]byte{"/etc/hosts": nil, "/etc/passwd": nil} }, protocol.ErrProtocol},
		"a file less":     {func(ad *protocol.Adopt) { ad.Files = map[string][]byte{"/etc/hosts": nil} }, protocol.ErrProtocol},
	} {
		like := blank(t)
		if err := c.Prepare(limited(t), like); err != nil {
			t.Fatal(err)
		}
		who := protocol.Adopt{Of: protocol.Nobody, ID: workload.NewID(), Args: []string{"/bin/program", "exit", "3"}, Files: like.Files}
		bad := who
		x.change(&bad)
		_, err := c.Adopt(limited(t), like, bad, streams, nil)
		if !errors.Is(err, x.want) && !strings.Contains(err.Error(), x.want.Error()) {
			t.Errorf("%s: got %v, want %v", name, err, x.want)
		}
		if _, err := c.Adopt(limited(t), like, who, streams, nil); err == nil {
			t.Errorf("%s: adopted by another", name)
		}
		a.mu.Lock()
		if n := len(a.workloads); n != 0 {
			t.Errorf("%s: %d workloads are left", name, n)
		}
		a.mu.Unlock()
	}
	// Streams that it was not made with never reach the agent.
	like := blank(t)
	if _, err := c.Adopt(limited(t), like, protocol.Adopt{}, boundary.Stdio{}, nil); err == nil || !strings.Contains(err.Error(), "standard streams") {
		t.Errorf("other streams: got %v", err)
	}
}

// TestPrepareRefused: what belongs to somebody cannot be for nobody, and what is
// left of it goes with the session.
func TestPrepareRefused(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	for name, change := range map[string]func(*protocol.Create){
		"an ID":       func(c *protocol.Create) { c.Spec.ID = workload.NewID() },
		"a system":    func(c *protocol.Create) { c.Spec.VM.System = true },
		"interfaces":  func(c *protocol.Create) { c.NICs = []protocol.NIC{oneNIC()} },
		"volumes":     func(c *protocol.Create) { c.Volumes = map[int]string{0: "v"} },
		"unsupported": func(*protocol.Create) {}, // by the fake
	} {
		req := spec("pause")
		req.Spec.ID = protocol.Nobody
		change(&req)
		if err := c.Prepare(limited(t), req); err == nil {
			t.Errorf("%s: prepared", name)
		}
		f.empty(t)
	}
	if os.Geteuid() != 0 {
		t.Skip("the rest needs root")
	}
	run := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}, Paths: []string{run}, Files: true})
	a := New(containers(t, run))
	ours, theirs := socketpair(t)
	served := make(chan error, 1)
	go func() { served <- a.Serve(context.Background(), theirs) }()
	s, err := protocol.Host(limited(t), ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.OverSession(s).Prepare(limited(t), blank(t)); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if len(a.workloads) != 0 || len(a.blanks) != 0 {
		t.Error("what was prepared outlives the session")
	}
}
