package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestPruneWaits has a workload begin to be made while a prune waits for somebody who
// changes networks: its network stays, and another goes.
func TestPruneWaits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to change networks")
	}
	ctx := context.Background()
	var out bytes.Buffer
	a := newApp()
	a.root, a.out, a.err = filepath.Join(t.TempDir(), "root"), &out, &out
	root, run, err := engine.RootsBelow(a.root)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(ctx, engine.Config{Root: root, RunRoot: run})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s, err := bridge.Open(root, run, bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"back", "left"} {
		if _, err := s.Create(ctx, network.Network{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Open(filepath.Join(run, "networks", "lock"))
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	var removed []string
	done := make(chan error, 1)
	go func() {
		var err error
		removed, err = a.pruneNetworks(ctx, e, s, nil)
		done <- err
	}()
	time.Sleep(100 * time.Millisecond) // for it to be waiting
	l := state.Layout{Root: root, Run: run}
	spec := workload.Spec{ID: workload.NewID(), Name: "web", Network: workload.NetworkBridge, Networks: []workload.Attachment{{Network: "back"}}}
	if err := os.Mkdir(l.Dir(spec.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteSpec(&spec); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if err := <-done; err != nil || len(removed) != 1 || removed[0] != "left" {
		t.Errorf("got %v removed, %v; want left", removed, err)
	}
}
