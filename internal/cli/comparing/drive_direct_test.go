package comparing

import (
	"errors"
	"os"
	"testing"
)

// TestRootsApart: what a runtime's container does to its files does nothing to those
// that are executed without a boundary.
func TestRootsApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	newEngine(t, "bulkhead", "runc", "crun")
	m := &made{ours: "box", dir: t.TempDir(), self: &tool{program: []string{"bulkhead"}, id: "0123"}}
	d := &direct{}
	if err := d.setUp(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.tearDown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	host, err := os.Stat(d.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range runtimes {
		r := &ociRuntime{program: program}
		if err := r.setUp(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if theirs, err := os.Stat(r.root); err != nil || os.SameFile(host, theirs) {
			t.Errorf("%s has the root directory %s, processes of this host %s: %v", program, r.root, d.root, err)
		}
	}
}

// TestTrusted: of the image's programs nothing runs without a boundary but the two that
// were added.
func TestTrusted(t *testing.T) {
	d := &direct{made: &made{}, root: t.TempDir()}
	for path, want := range map[string]error{
		meterPath: nil, proberPath: nil,
		insideDir + "/../bin/sh": errUntrusted, insideDir + "//meter": errUntrusted, "/" + meterPath: errUntrusted, meterPath[1:]: errUntrusted,
		insideDir + "/other": errUntrusted, scratchPath + "/meter": errUntrusted, meterPath + "/": errUntrusted, "meter": errUntrusted,
	} {
		if _, err := d.command(t.Context(), "", []string{path}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}
