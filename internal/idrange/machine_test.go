package idrange

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// roots returns n pools that share a machine and hand out the IDs of line.
func roots(t *testing.T, n int, line string) (pools []*Pool, machine, etcDir string) {
	t.Helper()
	machine = filepath.Join(t.TempDir(), "run", "idrange")
	etcDir = etc(t, map[string]string{"subuid": line, "subgid": line})
	for range n {
		dir := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		pools = append(pools, Open(dir, etcDir).Among(machine))
	}
	return pools, machine, etcDir
}

func TestRootsShareTheMachine(t *testing.T) {
	p, machine, _ := roots(t, 2, "bulkhead:200000:131072\n")
	a, err := p[0].Allocate("a", everybody)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p[1].Allocate("b", everybody)
	if err != nil || b.overlaps(a) {
		t.Fatalf("got %v, %v, want what %v leaves", b, err, a)
	}
	fi, err := os.Stat(machine)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the machine's directory: got %v, %v, want mode 0700", fi, err)
	}
	full := func(when string) {
		t.Helper()
		if r, err := p[0].Allocate("c", everybody); !errors.Is(err, ErrExhausted) {
			t.Fatalf("%s: got %v, %v, want ErrExhausted", when, r, err)
		}
	}
	full("both in use")
	// What the other root says of an owner is no business of ours.
	if r, err := p[0].Allocate("c", func(o string) bool { return o == "a" }); !errors.Is(err, ErrExhausted) {
		t.Fatalf("the other root's owner: got %v, %v", r, err)
	}
	if err := p[1].Release(b.Base, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(p[1].link(b.Base)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the release: got %v, want no announcement", err)
	}
	if c, err := p[0].Allocate("c", everybody); err != nil || c != b {
		t.Fatalf("after the release: got %v, %v, want %v", c, err, b)
	}
	if err := p[0].ReleaseOwner("c"); err != nil {
		t.Fatal(err)
	}
	if b, err = p[1].Allocate("b", everybody); err != nil {
		t.Fatal(err)
	}
	full("both in use again")

	// The other root is deleted, with all that it had.
	if err := os.RemoveAll(p[1].dir); err != nil {
		t.Fatal(err)
	}
	c, err := p[0].Allocate("c", everybody)
	if err != nil || c != b {
		t.Fatalf("after the other root was deleted: got %v, %v, want %v", c, err, b)
	}
	// A command is killed between its two links: the first alone means nothing.
	if err := os.Remove(p[0].record(c.Base)); err != nil {
		t.Fatal(err)
	}
	if again, err := p[0].Allocate("d", everybody); err != nil || again != c {
		t.Fatalf("after a crash: got %v, %v, want %v", again, err, c)
	}
}

// TestRootsAfterReboot clears the machine's directory while a root has a range.
func TestRootsAfterReboot(t *testing.T) {
	p, machine, e := roots(t, 2, "bulkhead:200000:65536\n")
	a, err := p[0].Allocate("a", everybody)
	if err != nil {
		t.Fatal(err)
	}
	reboot := func() {
		t.Helper()
		if err := os.RemoveAll(machine); err != nil {
			t.Fatal(err)
		}
	}
	reboot()
	if err := p[0].Claim(a.Base); err != nil {
		t.Fatalf("the first to come: %v", err)
	}
	if err := p[0].Claim(a.Base); err != nil {
		t.Fatalf("again: %v", err)
	}
	if _, err := p[1].Allocate("b", everybody); !errors.Is(err, ErrExhausted) {
		t.Errorf("claimed by the other: got %v, want ErrExhausted", err)
	}
	// The same root by another path.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(p[0].dir, link); err != nil {
		t.Fatal(err)
	}
	if err := Open(link, e).Among(machine).Claim(a.Base); err != nil {
		t.Errorf("by another path: %v", err)
	}

	// The other root comes first, with slots that have moved by half a range.
	reboot()
	for _, name := range []string{"subuid", "subgid"} {
		if err := os.WriteFile(filepath.Join(e, name), []byte("bulkhead:232768:65536\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := p[1].Allocate("b", everybody)
	if err != nil || !b.overlaps(a) {
		t.Fatalf("got %v, %v", b, err)
	}
	if err := p[0].Claim(a.Base); !errors.Is(err, ErrTaken) {
		t.Errorf("taken by the other: got %v, want ErrTaken", err)
	}
	if err := p[1].Release(b.Base, "b"); err != nil {
		t.Fatal(err)
	}
	if err := p[0].Claim(a.Base); err != nil {
		t.Errorf("given back by the other: %v", err)
	}
	if _, err := p[1].Allocate("b", everybody); !errors.Is(err, ErrExhausted) {
		t.Errorf("it would touch the claimed range: got %v, want ErrExhausted", err)
	}
}
