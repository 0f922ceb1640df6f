package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
)

// wires makes tap devices in a network namespace of the test's own.
type wires struct {
	t    *testing.T
	ns   *os.File
	conn *rtnl.Conn
}

func newWires(t *testing.T) *wires {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	w := &wires{t: t, ns: ns}
	if w.conn, err = rtnl.DialIn(ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close(); ns.Close() })
	return w
}

func (w *wires) tap(name string) *os.File {
	w.t.Helper()
	var f *os.File
	err := rtnl.In(w.ns, func() (err error) {
		f, err = nettest.OpenTap(name)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// gone waits for the end of a device, which is that of its last descriptor.
func (w *wires) gone(name string) {
	w.t.Helper()
	is := func(l rtnl.Link) bool { return l.Name == name }
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := w.conn.Find(is); errors.Is(err, rtnl.ErrNoLink) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("somebody still has the tap device %s open", name)
		}
	}
}

func sockets(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// taps counts the tap devices that a QEMU has open.
func taps(t *testing.T, m *Machine) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", m.Pid())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, _ := os.Readlink(filepath.Join(dir, e.Name())); strings.HasSuffix(to, "/net/tun") {
			n++
		}
	}
	return n
}

// TestNICs starts confined machines with network devices of every kind.
func TestNICs(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		t.Run(string(machine), func(t *testing.T) {
			w := newWires(t)
			tap := w.tap("given0")
			_, stream := sockets(t)
			cfg := config(t, code{}.stack().print("up").hang())
			cfg.Machine = machine
			cfg.NICs = []NIC{{MAC: "02:42:ac:11:00:02", File: tap}, {MAC: "02:42:ac:11:00:03", Kind: Stream, File: stream}}
			m := start(t, cfg)
			console(t, m, "up")
			if n := taps(t, m); n != 1 {
				t.Errorf("QEMU has %d tap devices open, want 1", n)
			}
			if got := m.Stderr(); len(got) > 0 {
				t.Errorf("QEMU said %q", got)
			}
			tap.Close()
			m.Close()
			w.gone("given0")
		})
	}
}

// TestNICWithoutDescriptor: what cannot work is refused before QEMU runs.
func TestNICWithoutDescriptor(t *testing.T) {
	cfg := config(t, code{}.hang())
	cfg.NICs = []NIC{{MAC: "02:42:ac:11:00:02"}}
	if m, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no descriptor") {
		if err == nil {
			m.Close()
		}
		t.Errorf("got %v", err)
	}
}

// TestNICSlots fills and empties slots of a machine that runs.
func TestNICSlots(t *testing.T) {
	w := newWires(t)
	cfg := config(t, code{}.stack().print("up").hang())
	cfg.Machine = Q35
	for n := range MaxNICs {
		cfg.NICs = append(cfg.NICs, NIC{MAC: fmt.Sprintf("02:00:00:00:00:%02x", n+1), Kind: Slot})
	}
	for n := range MaxDisks(Q35) { // there is room for all
		cfg.Disks = append(cfg.Disks, Disk{Serial: fmt.Sprintf("image%d", n), ReadOnly: true})
	}
	m := start(t, cfg)
	console(t, m, "up")
	for round := range 3 {
		for _, n := range []int{0, MaxNICs - 1} {
			name := fmt.Sprintf("slot%d", n)
			tap := w.tap(name)
			if err := m.InsertNIC(t.Context(), n, Tap, tap); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if err := m.InsertNIC(t.Context(), n, Tap, tap); err == nil {
				t.Error("twice into one slot: no error")
			}
			tap.Close()
		}
		if n := taps(t, m); n != 2 {
			t.Errorf("QEMU has %d tap devices open, want 2", n)
		}
		for _, n := range []int{0, MaxNICs - 1} {
			for range 2 { // the second time it is empty
				if err := m.EjectNIC(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
			w.gone(fmt.Sprintf("slot%d", n))
		}
	}
	t.Run("stream", func(t *testing.T) {
		ours, theirs := sockets(t)
		if err := m.InsertNIC(t.Context(), 3, Stream, theirs); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		ours.Close() // it goes away by itself
		if err := m.EjectNIC(t.Context(), 3); err != nil {
			t.Error(err)
		}
	})
	t.Run("no device", func(t *testing.T) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		if err := m.InsertNIC(t.Context(), 1, Tap, null); err == nil {
			t.Error("a file that is no tap device: no error")
		}
		tap := w.tap("again")
		defer tap.Close()
		if err := m.InsertNIC(t.Context(), 1, Tap, tap); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
	for _, n := range []int{-1, MaxNICs} {
		if m.InsertNIC(t.Context(), n, Tap, w.ns) == nil || m.EjectNIC(t.Context(), n) == nil {
			t.Errorf("slot %d: no error", n)
		}
	}
	if lines := Diagnose(m).Stderr; slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "hub") }) {
		t.Errorf("what QEMU says of hubs is shown: %q", lines)
	}
}

// TestFramesPass sends a frame into a slot by a stream, and by a tap device, and
// takes it out at another port of the slot's hub, so that no guest is needed.
func TestFramesPass(t *testing.T) {
	w := newWires(t)
	cfg := config(t, code{}.stack().print("up").hang())
	cfg.Machine, cfg.NICs = Q35, []NIC{{MAC: "02:00:00:00:00:01", Kind: Slot}}
	m := start(t, cfg)
	console(t, m, "up")
	out, theirs := sockets(t)
	for _, c := range []struct {
		command string
		args    map[string]any
		file    *os.File
	}{
		{"getfd", map[string]any{"fdname": "out"}, theirs},
		{"netdev_add", map[string]any{"type": "socket", "id": "out", "fd": "out"}, nil},
		{"netdev_add", map[string]any{"type": "hubport", "id": "outport", "hubid": 0, "netdev": "out"}, nil},
	} {
		files := []*os.File{c.file}
		if c.file == nil {
			files = nil
		}
		if _, err := m.qmp.do(t.Context(), c.command, c.args, files...); err != nil {
			t.Fatal(err)
		}
	}
	taken := func(frame []byte) {
		t.Helper()
		syscall.SetNonblock(int(out.Fd()), false)
		tv := unix.Timeval{Sec: 10}
		if err := unix.SetsockoptTimeval(int(out.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			t.Fatal(err)
		}
		for { // a tap device that goes up sends frames of its own
			b := make([]byte, 4)
			if _, err := io.ReadFull(out, b); err != nil {
				t.Fatalf("no frame comes out: %v", err)
			}
			got := make([]byte, binary.BigEndian.Uint32(b))
			if _, err := io.ReadFull(out, got); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(got, frame) {
				return
			}
		}
	}
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x42\x00\x00\x00\x01\x88\xb5"), bytes.Repeat([]byte("x"), 60)...)
	ours, stream := sockets(t)
	if err := m.InsertNIC(t.Context(), 0, Stream, stream); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
		t.Fatal(err)
	}
	taken(frame)
	if err := m.EjectNIC(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	tap := w.tap("frames0")
	defer tap.Close()
	if err := m.InsertNIC(t.Context(), 0, Tap, tap); err != nil {
		t.Fatal(err)
	}
	if err := rtnl.In(w.ns, func() error { return sendFrame("frames0", w.conn, frame) }); err != nil {
		t.Fatal(err)
	}
	taken(frame)
}

// sendFrame sends a frame by an interface of this network namespace.
func sendFrame(name string, c *rtnl.Conn, frame []byte) error {
	l, err := c.Find(func(l rtnl.Link) bool { return l.Name == name })
	if err != nil {
		return err
	}
	if err := c.SetLink(l.Index, rtnl.Change{State: rtnl.Up}); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Index})
}
