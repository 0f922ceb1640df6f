package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/guesttest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestVolume: a directory of the host appears in a workload, both ways, and is
// gone from the guest when the host ends it.
func TestVolume(t *testing.T) {
	g := boot(t, "q35")
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "in"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := fileserver.Start(ctx, fileserver.Config{
		Program: guesttest.Build(t, "cmd/bulkhead-fileserver"), Source: source, IDBase: 1 << 20, IDCount: 1 << 16,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	detach, err := g.AttachVolume(limited(t), "v0", false, func(c io.ReadWriteCloser) { protocol.Relay(c, server.Conn()) })
	if err != nil {
		t.Fatal(err)
	}
	s := workload.Spec{
		ID: workload.NewID(), Name: "volume", Boundary: "vm", Network: "none",
		Process: process("busybox cat /vol/in && echo from the guest >/vol/out && busybox stat -c %u /vol/out"),
		Mounts:  []workload.Mount{{Type: "bind", Source: source, Target: "/vol"}},
	}
	out := newOutput(t)
	in, err := g.Create(limited(t), protocol.Create{
		Spec: s, Image: "image0", IDBase: 1 << 20, IDCount: 1 << 16, Volumes: map[int]string{0: "v0"},
	}, boundary.Stdio{Out: out.write, Err: out.write}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	exit, err := in.Wait(limited(t))
	if err != nil || exit.Code != 0 {
		t.Errorf("ended with %+v, %v", exit, err)
	}
	if got := out.String(); got != "from the host\n0\n" {
		t.Errorf("the workload printed %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(source, "out")); err != nil || string(b) != "from the guest\n" {
		t.Errorf("on the host: %q, %v", b, err)
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	detach()
	// The name is free again when the guest has unmounted it; the guest's power
	// off would complain otherwise.
	s.ID = workload.NewID()
	if _, err := g.create(limited(t), s, boundary.Stdio{}); err == nil {
		t.Error("a workload was made with a volume that was not named")
	}
	g.powerOff(t)
}
