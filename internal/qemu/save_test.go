package qemu

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// saved boots a machine whose guest prints "one" and then dots for ever, and
// saves it.
func saved(t *testing.T, cfg Config) (ram, state string) {
	t.Helper()
	ram, state = filepath.Join(t.TempDir(), "ram"), filepath.Join(t.TempDir(), "state")
	memory, err := os.OpenFile(ram, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if err := memory.Truncate(cfg.Memory); err != nil {
		t.Fatal(err)
	}
	cfg.RAM = &RAM{File: memory, Shared: true}
	m := start(t, cfg)
	console(t, m, "one\n"+strings.Repeat(".", 100))
	to, err := os.Create(state)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := m.Save(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	m.Close()
	return ram, state
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func digest(t *testing.T, name string) (sum [32]byte) {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, open(t, name)); err != nil {
		t.Fatal(err)
	}
	h.Sum(sum[:0])
	return sum
}

// TestClone: clones go on where the machine was saved, and none of them writes
// to what all of them began with.
func TestClone(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		t.Run(string(machine), func(t *testing.T) {
			cfg := config(t, code{}.stack().print("one\n").dots())
			cfg.Machine = machine
			cfg.Disks = []Disk{{Serial: "image0", ReadOnly: true}, {Serial: "data"}}
			cfg.NICs = []NIC{{MAC: "02:00:00:00:00:01", Kind: Slot}}
			ram, state := saved(t, cfg)
			before := digest(t, ram)
			cfg.Kernel = ""
			cfg.Disks[0].File, cfg.Disks[1].File = image(t, "an image"), image(t, "data")
			ours, theirs := sockets(t)
			defer ours.Close()
			cfg.NICs[0].Kind, cfg.NICs[0].File = Stream, theirs
			for range 2 {
				cfg.RAM, cfg.State = &RAM{File: open(t, ram)}, open(t, state)
				m := start(t, cfg)
				console(t, m, strings.Repeat(".", 100))
				if got := string(m.Console()); strings.Contains(got, "one") {
					t.Errorf("the clone booted: %q", got)
				}
				if modes := accessModes(t, m, ram); len(modes) == 0 || modes[0] != os.O_RDONLY {
					t.Errorf("QEMU has the file with the memory open in the modes %v", modes)
				}
				if got := withoutHubs(string(m.Stderr())); got != "" {
					t.Errorf("QEMU said %q", got)
				}
				m.Close()
			}
			if digest(t, ram) != before {
				t.Error("the clones wrote to the file with the memory")
			}
		})
	}
}

// asClone lets cfg go on from a state that is none, and returns the file with the
// memory.
func asClone(t *testing.T, cfg *Config) (ram string) {
	t.Helper()
	ram, state := filepath.Join(t.TempDir(), "ram"), filepath.Join(t.TempDir(), "state")
	if err := errors.Join(os.WriteFile(ram, []byte("good"), 0o600), os.Truncate(ram, cfg.Memory), os.WriteFile(state, []byte("no state"), 0o600)); err != nil {
		t.Fatal(err)
	}
	cfg.Kernel, cfg.RAM, cfg.State = "", &RAM{File: open(t, ram)}, open(t, state)
	return ram
}

// inPlaceOf builds a program of testdata that stands in QEMU's place.
func inPlaceOf(t *testing.T, name string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-o", program, "./testdata/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// wantFault starts a machine that cannot be, and checks whose fault that is.
func wantFault(t *testing.T, cfg Config, who Party, text string) {
	t.Helper()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{cfg.Dir}, Files: true})
	m, err := Start(t.Context(), cfg)
	if err == nil {
		m.Close()
		t.Fatal("it started")
	}
	var f *Fault
	if !errors.As(err, &f) || f.Who != who || !strings.Contains(f.Text, text) {
		t.Errorf("%v; want %s, %q", err, who, text)
	}
}

// TestNoState: a state that QEMU cannot go on from is told from a host that has
// not what it takes.
func TestNoState(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		t.Run(string(machine), func(t *testing.T) {
			cfg := config(t, code{}.hang())
			cfg.Machine = machine
			cfg.NICs = []NIC{{MAC: "02:00:00:00:00:01", Kind: Slot}}
			asClone(t, &cfg)
			wantFault(t, cfg, VMM, "QEMU ended with status 1: load of migration failed")
		})
	}
}

// TestNoMemory: QEMU gets no memory for its guest.
func TestNoMemory(t *testing.T) {
	cfg := config(t, code{}.hang())
	cfg.Memory = 1 << 42
	asClone(t, &cfg)
	wantFault(t, cfg, Host, "Cannot allocate memory")
}

// TestMute: whoever waits for a QEMU that says nothing more is told so.
func TestMute(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for two minutes")
	}
	cfg := config(t, code{}.hang())
	asClone(t, &cfg)
	cfg.Binary = inPlaceOf(t, "mute")
	wantFault(t, cfg, VMM, "does not answer")
}

// TestTakenOver puts another program in QEMU's place, with all that QEMU has, and
// lets it try to change the memory that other clones begin with.
func TestTakenOver(t *testing.T) {
	cfg := config(t, code{}.hang())
	ram := asClone(t, &cfg)
	before := digest(t, ram)
	cfg.Binary = inPlaceOf(t, "taker")
	m, err := Start(t.Context(), cfg)
	if err == nil {
		m.Close()
		t.Fatal("it was taken for QEMU")
	}
	var f *Fault
	if !errors.As(err, &f) {
		t.Fatal(err)
	}
	said := strings.Join(f.Stderr, "\n") + "\n"
	for _, want := range []string{
		"open\n", "read good\n", "map privately\n", "map to read\n",
		"write: bad file descriptor\n", "truncate: ", "punch: bad file descriptor\n", "map shared: permission denied\n",
		"make writable: permission denied\n", "chmod: operation not permitted\n", "openat2: operation not permitted\n", "open(2): operation not permitted\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it did not say %q", want)
		}
	}
	if strings.Contains(said, "open /") || strings.Contains(said, "truncate\n") || t.Failed() {
		t.Errorf("it said:\n%s", said)
	}
	if digest(t, ram) != before {
		t.Error("the memory of the template was changed")
	}
}

// TestDescriptorsSentAway: a machine ends with a QEMU that is taken over, wherever that
// has left its ends of what the supervisor reads.
func TestDescriptorsSentAway(t *testing.T) {
	for _, over := range []string{"control", "agent"} {
		t.Run(over, func(t *testing.T) {
			cfg := config(t, code{}.hang())
			cfg.Binary = inPlaceOf(t, "sender")
			cfg.Append = []string{"over=" + over}
			leakcheck.Check(t, leakcheck.Options{Paths: []string{cfg.Dir}, Files: true})
			m, err := Start(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			for deadline := time.Now().Add(30 * time.Second); !strings.Contains(string(m.Stderr()), "sent: "); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("it said %q", m.Stderr())
				}
			}
			go func() {
				m.Kill()
				<-m.Done()
				_, err := io.Copy(io.Discard, m.Agent()) // as who waits for the workload reads it
				m.Close()
				ended <- err
			}()
			select {
			case err = <-ended:
			case <-time.After(30 * time.Second):
				err = errors.New("the machine has not ended")
			}
			if err != nil {
				t.Errorf("%v; it said %q", err, m.Stderr())
			}
		})
	}
}
