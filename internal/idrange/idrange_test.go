package idrange

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func etc(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func everybody(string) bool { return true }

func TestAssigned(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		bases []uint32 // the first ones; nil for ErrExhausted
		count int
	}{
		{"nothing", nil, []uint32{0x70000000, 0x70010000}, 4094},
		{"bulkhead", map[string]string{
			"subuid": "u:100000:65536\nbulkhead:200000:131072\n", "subgid": "bulkhead:200000:131072\n",
		}, []uint32{200000, 265536}, 2},
		{"containers", map[string]string{
			"subuid": "containers:2147483647:2147483648\n", "subgid": "containers:2147483647:2147483648\n",
		}, []uint32{2147483647}, 32768},
		{"bulkhead before containers", map[string]string{
			"subuid": "containers:300000:65536\nbulkhead:200000:65536\n",
			"subgid": "containers:300000:65536\nbulkhead:200000:65536\n",
		}, []uint32{200000}, 1},
		{"groups elsewhere", map[string]string{
			"subuid": "bulkhead:200000:131072\n", "subgid": "bulkhead:230000:131072\n",
		}, []uint32{230000}, 1},
		{"no groups", map[string]string{"subuid": "bulkhead:200000:65536\n"}, nil, 0},
		{"too short", map[string]string{
			"subuid": "bulkhead:200000:65535\n", "subgid": "bulkhead:200000:65535\n",
		}, nil, 0},
		{"host root", map[string]string{
			"subuid": "bulkhead:0:131072\n", "subgid": "bulkhead:0:131072\n",
		}, []uint32{65536}, 1},
		{"somebody else's", map[string]string{
			"subuid": "bulkhead:200000:131072\nu:200001:1\n", "subgid": "bulkhead:200000:131072\n",
		}, []uint32{265536}, 1},
		{"a user in the default range", map[string]string{
			"passwd": "root:x:0:0::/:/bin/sh\nu:x:1879048193:5::/:/bin/sh\n",
		}, []uint32{0x70010000}, 4093},
		{"a group in the default range", map[string]string{"group": "g:x:1879048193:\n"}, []uint32{0x70010000}, 4093},
		{"somebody has the default range", map[string]string{"subuid": "u:1879048192:300000000\n"}, nil, 0},
		{"the same twice", map[string]string{
			"subuid": "bulkhead:200000:65536\nbulkhead:200000:65536\n", "subgid": "bulkhead:200000:65536\n",
		}, []uint32{200000}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slots, err := assigned(etc(t, tt.files))
			if tt.bases == nil {
				if !errors.Is(err, ErrExhausted) {
					t.Fatalf("got error %v, want ErrExhausted", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(slots) != tt.count {
				t.Errorf("capacity: got %d, want %d", len(slots), tt.count)
			}
			for i, want := range tt.bases {
				if slots[i] != (Range{want, Size}) {
					t.Errorf("slot %d: got %v, want base %d", i, slots[i], want)
				}
			}
		})
	}
}

func TestAllocate(t *testing.T) {
	const two = "bulkhead:200000:131072\n"
	dir, e := t.TempDir(), etc(t, map[string]string{"subuid": two, "subgid": two})
	p := Open(dir, e)
	a, err := p.Allocate("a", everybody)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Allocate("b", everybody)
	if err != nil {
		t.Fatal(err)
	}
	if a.overlaps(b) {
		t.Errorf("%v and %v overlap", a, b)
	}
	if _, err := p.Allocate("c", everybody); !errors.Is(err, ErrExhausted) {
		t.Errorf("third of two: got %v, want ErrExhausted", err)
	}
	if err := p.Release(a.Base, "b"); err != nil {
		t.Error(err)
	}
	if _, err := p.Peek(); !errors.Is(err, ErrExhausted) {
		t.Errorf("after b released a's range: got %v, want ErrExhausted", err)
	}
	c, err := p.Allocate("c", func(o string) bool { return o != "a" })
	if err != nil || c != a {
		t.Errorf("after a died: got %v, %v, want a's %v", c, err, a)
	}
	// The assignment moves by half a range: what is in use stays excluded.
	const moved = "bulkhead:232768:131072\n"
	os.WriteFile(filepath.Join(e, "subuid"), []byte(moved), 0o600)
	os.WriteFile(filepath.Join(e, "subgid"), []byte(moved), 0o600)
	if r, err := p.Allocate("d", everybody); !errors.Is(err, ErrExhausted) {
		t.Errorf("both slots touch ranges in use: got %v, %v", r, err)
	}
	if err := p.ReleaseOwner("b"); err != nil {
		t.Error(err)
	}
	if err := p.ReleaseOwner("c"); err != nil {
		t.Error(err)
	}
	if _, err := p.Allocate("d", everybody); err != nil {
		t.Errorf("after all were released: %v", err)
	}
}

// TestProcesses lets eight processes take and give back ranges from a pool of
// sixteen, and finds no range with two owners; then each has a pool of its own on
// one machine.
func TestProcesses(t *testing.T) {
	if dir := os.Getenv("IDRANGE_TEST_DIR"); dir != "" {
		p := Open(dir, os.Getenv("IDRANGE_TEST_ETC"))
		held := filepath.Join(dir, "held")
		if machine := os.Getenv("IDRANGE_TEST_MACHINE"); machine != "" {
			p = Open(t.TempDir(), p.etc).Among(machine)
		}
		allocateALot(t, p, held)
		return
	}
	t.Run("one pool", func(t *testing.T) { processes(t, "") })
	t.Run("one machine", func(t *testing.T) { processes(t, filepath.Join(t.TempDir(), "machine")) })
}

func processes(t *testing.T, machine string) {
	const line = "bulkhead:200000:1048576\n"
	dir, e := t.TempDir(), etc(t, map[string]string{"subuid": line, "subgid": line})
	if err := os.Mkdir(filepath.Join(dir, "held"), 0o700); err != nil {
		t.Fatal(err)
	}
	var cmds []*exec.Cmd
	for range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProcesses$")
		cmd.Env = append(os.Environ(), "IDRANGE_TEST_DIR="+dir, "IDRANGE_TEST_ETC="+e, "IDRANGE_TEST_MACHINE="+machine)
		cmd.Stdout = &strings.Builder{}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, cmd.Stdout)
		}
	}
}

func allocateALot(t *testing.T, p *Pool, heldDir string) {
	for i := range 200 {
		owner := strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(i)
		r, err := p.Allocate(owner, everybody)
		if err != nil {
			t.Fatal(err)
		}
		// Whoever else had the range would collide here.
		held := filepath.Join(heldDir, strconv.Itoa(int(r.Base)))
		if err := os.Mkdir(held, 0o700); err != nil {
			t.Fatalf("range %v has two owners: %v", r, err)
		}
		if err := os.Remove(held); err != nil {
			t.Fatal(err)
		}
		if err := p.Release(r.Base, owner); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzSubIDs(f *testing.F) {
	f.Add("bulkhead:200000:65536\n", "bulkhead:200000:65536\n", "root:x:0:0:::\n")
	f.Add("containers:2147483647:2147483648\n", "containers:1:4294967295\nx:5\n", "\x00:::")
	f.Fuzz(func(t *testing.T, subuid, subgid, passwd string) {
		uids, gids, taken := parseSubIDs(subuid), parseSubIDs(subgid), parseIDs(passwd)
		slots, err := choose(uids, gids, taken)
		if err != nil && !errors.Is(err, ErrExhausted) {
			t.Fatal(err)
		}
		for i, s := range slots {
			if s.Count != Size || s.Base < lowest || s.end() > 1<<32-1 {
				t.Fatalf("slot %v", s)
			}
			for _, id := range taken {
				if s.overlaps(Range{id, 1}) {
					t.Fatalf("slot %v holds the host's %d", s, id)
				}
			}
			for _, o := range slots[:min(i, 64)] {
				if s.overlaps(o) {
					t.Fatalf("slots %v and %v overlap", s, o)
				}
			}
		}
	})
}

func ExamplePool() {
	dir, _ := os.MkdirTemp("", "idrange")
	defer os.RemoveAll(dir)
	p := Open(dir, "/etc")
	r, err := p.Allocate("0123abcd", func(string) bool { return true })
	if err != nil {
		return
	}
	defer p.Release(r.Base, "0123abcd")
}

// TestTransfer: a range changes hands at once, and only from its owner.
func TestTransfer(t *testing.T) {
	p := Open(t.TempDir(), etc(t, nil))
	r, err := p.Allocate("one", everybody)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Transfer(r.Base, "other", "two"); err == nil {
		t.Error("whoever asks gets it")
	}
	// What a command left that was killed is not in the way.
	if err := os.Symlink("nobody", filepath.Join(p.dir, "next")); err != nil {
		t.Fatal(err)
	}
	if err := p.Transfer(r.Base, "one", "two"); err != nil {
		t.Fatal(err)
	}
	if owner, err := os.Readlink(p.record(r.Base)); owner != "two" || err != nil {
		t.Errorf("it belongs to %q, %v", owner, err)
	}
	if err := p.Transfer(r.Base, "one", "three"); err == nil {
		t.Error("one gives it away twice")
	}
}
