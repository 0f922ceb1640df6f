package vm

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
)

var errExchange = errors.New("it does not work")

// exchanges is a VMM with whose slots of these names something is wrong.
type exchanges struct {
	broken map[string]bool
	disks  map[string]string // files by serial number
	nics   map[int]bool
	kept   []string // network devices that the guest has not back
}

func (x *exchanges) InsertDisk(_ context.Context, serial string, file *os.File) error {
	if x.disks[serial] != "" || x.broken[serial] {
		return errExchange
	}
	x.disks[serial] = file.Name()
	return nil
}

func (x *exchanges) EjectDisk(_ context.Context, serial string) error {
	if x.disks[serial] != "" && x.broken[serial] {
		return errExchange
	}
	delete(x.disks, serial)
	return nil
}

func (x *exchanges) InsertNIC(_ context.Context, n int, _ qemu.NICKind, _ *os.File) error {
	if x.nics[n] || x.broken[slotMAC(n)] {
		return errExchange
	}
	x.nics[n] = true
	return nil
}

func (x *exchanges) EjectNIC(_ context.Context, n int) error {
	if x.nics[n] && x.broken[slotMAC(n)] {
		return errExchange
	}
	delete(x.nics, n)
	return nil
}

// ofTenant is a tenant's machine with three slots of each kind. Its guest says that
// these disks are mounted, and counts how often it is asked.
func ofTenant(t *testing.T, x *exchanges, mounted func() []string) (m *machine, asked *int) {
	t.Helper()
	x.broken, x.disks, x.nics = map[string]bool{}, map[string]string{}, map[int]bool{}
	m, asked = &machine{exchange: x}, new(int)
	for n := range 3 {
		m.slots = append(m.slots, &slot{serial: slotName(n)})
		m.nics = append(m.nics, nicSlot{device: slotMAC(n)})
	}
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		guest, err := protocol.Guest(context.Background(), theirs, protocol.Hello{Kernel: "6.1"})
		if err != nil {
			return // the host's side fails, too, or the test is over
		}
		defer guest.Close()
		for {
			s, err := guest.Accept()
			if err != nil {
				return
			}
			if _, err := protocol.NewReader(s).Request(); err == nil {
				*asked++
				protocol.NewWriter(s).JSON(protocol.TypeReply, protocol.Reply{Status: &protocol.Status{Images: mounted(), Devices: x.kept}}) //nolint:errcheck // who asked sees it
			}
			s.Close()
		}
	}()
	var err error
	if m.sess, err = protocol.Host(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.sess.Close(); <-ended })
	return m, asked
}

// images are files that can be put into slots.
func images(t *testing.T, names ...string) (paths []string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestBrokenSlots: a slot with which something is wrong is in no workload's way, and
// is tried again when there is no other.
func TestBrokenSlots(t *testing.T) {
	x := &exchanges{}
	m, _ := ofTenant(t, x, func() []string { return nil })
	insert := func(image, want string) (release func()) {
		t.Helper()
		serial, release, err := m.Insert(t.Context(), image)
		if err != nil && want != "" || serial != want {
			t.Fatalf("in slot %q, %v; want %q", serial, err, want)
		}
		return release
	}
	f := images(t, "a", "b", "c", "d", "e")
	x.broken["image0"] = true
	release := insert(f[0], "image1")
	insert(f[1], "image2")
	insert(f[0], "image1")
	insert(f[2], "") // there is no other
	x.broken["image0"] = false
	insert(f[2], "image0")()
	release()
	// One that does not let go of what was in it.
	x.broken["image0"] = true
	insert(f[3], "")
	if _, _, err := m.Insert(t.Context(), f[3]); !errors.Is(err, errExchange) {
		t.Errorf("got %v", err)
	}
	x.broken["image0"] = false
	insert(f[3], "image0")
	if _, _, err := m.Insert(t.Context(), f[4]); !errors.Is(err, errSlots) {
		t.Errorf("all are in use: got %v", err)
	}
}

// TestBrokenDevices: so with network devices.
func TestBrokenDevices(t *testing.T) {
	x := &exchanges{}
	m, _ := ofTenant(t, x, func() []string { return nil })
	plug := func(want string) (release func()) {
		t.Helper()
		device, release, err := m.Plug(t.Context(), nil, false)
		if err != nil && want != "" || device != want {
			t.Fatalf("device %q, %v; want %q", device, err, want)
		}
		return release
	}
	x.broken[slotMAC(0)] = true
	plug(slotMAC(1))
	release := plug(slotMAC(2))
	plug("")
	release()
	plug(slotMAC(2))
	x.broken[slotMAC(0)] = false
	release = plug(slotMAC(0))
	if _, _, err := m.Plug(t.Context(), nil, false); !errors.Is(err, errNICs) {
		t.Errorf("all are in use: got %v", err)
	}
	// One that was not let go of is, when it is wanted again.
	x.broken[slotMAC(0)] = true
	release()
	if _, _, err := m.Plug(t.Context(), nil, false); !errors.Is(err, errExchange) {
		t.Errorf("one is not let go of: got %v", err)
	}
	x.broken[slotMAC(0)] = false
	plug(slotMAC(0))
}

// TestKeptDevices: a network device that a workload in the guest has still, as the
// guest was silent when it should have ended, is nobody else's.
func TestKeptDevices(t *testing.T) {
	x := &exchanges{}
	m, asked := ofTenant(t, x, func() []string { return nil })
	plug := func(want string) (release func()) {
		t.Helper()
		device, release, err := m.Plug(t.Context(), nil, false)
		if err != nil || device != want {
			t.Fatalf("device %q, %v; want %q", device, err, want)
		}
		return release
	}
	release := plug(slotMAC(0))
	plug(slotMAC(1))
	if *asked != 0 {
		t.Errorf("the guest was asked %d times for devices that were new", *asked)
	}
	release()
	x.kept = []string{slotMAC(0), slotMAC(1)}
	plug(slotMAC(2))
	if _, _, err := m.Plug(t.Context(), nil, false); !errors.Is(err, errNICs) || x.nics[0] {
		t.Errorf("one is kept: got %v, connected: %v", err, x.nics)
	}
	x.kept = nil
	plug(slotMAC(0))()
	m.sess.Close()
	if _, _, err := m.Plug(t.Context(), nil, false); err == nil || x.nics[0] {
		t.Errorf("the guest does not answer: got %v, connected: %v", err, x.nics)
	}
}

// TestMountedSlots: the guest is asked once for all slots that nobody uses.
func TestMountedSlots(t *testing.T) {
	x := &exchanges{}
	m, asked := ofTenant(t, x, func() []string { return []string{"image0", "image1"} })
	for _, image := range images(t, "a", "b", "c") {
		_, release, err := m.Insert(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	serial, _, err := m.Insert(t.Context(), images(t, "d")[0])
	if err != nil || serial != "image2" || *asked != 1 {
		t.Errorf("in slot %q, %v; the guest was asked %d times", serial, err, *asked)
	}
}

// TestTenantStopped: a machine was stopped when its guest has taken that up, or ended
// in order after it was asked; not when it was asked in vain, and died of something
// else.
func TestTenantStopped(t *testing.T) {
	for name, c := range map[string]struct {
		signal         syscall.Signal
		lost           bool
		died, poweroff bool // whether it was stopped, by how it ended
	}{
		"not asked":     {},
		"taken up":      {signal: syscall.SIGTERM, died: true, poweroff: true},
		"asked in vain": {signal: syscall.SIGTERM, lost: true, poweroff: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := ofTenant(t, &exchanges{}, func() []string { return nil })
			if c.lost {
				m.sess.Close()
			}
			in := &tenant{remains: &remains{machine: m}}
			if c.signal != 0 {
				if err := in.Signal(t.Context(), c.signal); (err != nil) != c.lost {
					t.Fatalf("signal: %v", err)
				}
			}
			if died, off := in.asWished(qemu.NotEnded), in.asWished(qemu.PoweredOff); died != c.died || off != c.poweroff {
				t.Errorf("stopped: %v when it died, %v when it powered off; want %v and %v", died, off, c.died, c.poweroff)
			}
		})
	}
}
