package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForcedDeleteOfDamaged: a container whose configuration cannot be read is
// ended by a forced delete all the same; one of which nothing can be read keeps
// its state, which is all that leads to its processes.
func TestForcedDeleteOfDamaged(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-damaged"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	_, pid := h.status(id)
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	file := func(name string) string { return filepath.Join(h.root, id, name) }
	damage := func(name string) (text []byte) {
		text, err := os.ReadFile(file(name))
		if err == nil {
			err = os.WriteFile(file(name), []byte("{"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	damage("config.json")
	for _, name := range []string{"state.json", "container.json"} {
		text := damage(name)
		if code, _, errs := h.call("delete", "--force", id); code == 0 || !strings.Contains(errs, name) {
			t.Errorf("%s is damaged: %d, %q", name, code, errs)
		}
		if _, err := os.Stat(file(name)); err != nil {
			t.Fatalf("the state of a container that runs was removed: %v", err)
		}
		if err := os.WriteFile(file(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, errs := h.call("delete", id); code == 0 || !strings.Contains(errs, "config.json") {
		t.Errorf("delete without --force: %d, %q", code, errs)
	}
	h.must("delete", "--force", id)
	if err := unix.Kill(pid, 0); err == nil && statusField(t, pid, "State") != "Z (zombie)" {
		t.Errorf("process %d goes on after the container was deleted", pid)
	}
}
