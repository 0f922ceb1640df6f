package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// noMachine is a machine that makes nothing on disk, and where all fails that may.
type noMachine struct{ *machine }

func (noMachine) PowerOff()                    {}
func (noMachine) RemoveData(workload.ID) error { return nil }
func (noMachine) Volume(string, bool) (Volume, error) {
	return nil, os.ErrNotExist
}

// spoken is a host that says only what was written down.
type spoken struct{ *bytes.Reader }

func (s *spoken) Write(p []byte) (int, error) { return len(p), nil }
func (s *spoken) Close() error                { return nil }

// messages returns what an honest host would say on one stream.
func messages(say func(*protocol.Writer)) []byte {
	var b bytes.Buffer
	say(protocol.NewWriter(&b))
	return b.Bytes()
}

func seeds() [][]byte {
	create := spec("cat")
	create.Streams = protocol.Streams{In: true, Out: true}
	create.Files = map[string][]byte{"/etc/hosts": []byte("x")}
	create.NICs = []protocol.NIC{{Device: "02:00:00:00:00:01", NIC: workload.NIC{
		Name: "eth0", MAC: "02:42:ac:11:00:02", MTU: 1500,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}}}
	terminal := spec("terminal")
	terminal.Spec.Process.Terminal = true
	var out [][]byte
	for _, req := range []protocol.Request{
		{Op: protocol.OpCreate, Create: &create},
		{Op: protocol.OpCreate, Create: &terminal},
		{Op: protocol.OpPrepare, Create: &create},
		{Op: protocol.OpAdopt, Adopt: &protocol.Adopt{Of: protocol.Nobody, ID: create.Spec.ID, Args: []string{"x"}, Files: create.Files, NICs: create.NICs}},
		{Op: protocol.OpExec, ID: create.Spec.ID, Exec: &protocol.Exec{Process: create.Spec.Process}},
		{Op: protocol.OpStart, ID: create.Spec.ID},
		{Op: protocol.OpSignal, ID: create.Spec.ID, Signal: 9},
		{Op: protocol.OpSignal, ID: create.Spec.ID, Process: 1, Signal: 9, Group: true},
		{Op: protocol.OpUpdate, ID: create.Spec.ID, Resources: &workload.Resources{CPUs: 1.5, CpusetCPUs: "0-3"}},
		{Op: protocol.OpUpdate, ID: create.Spec.ID},
		{Op: protocol.OpMeasure, ID: create.Spec.ID},
		{Op: protocol.OpRewire, ID: create.Spec.ID, Rewire: &protocol.Rewire{
			Add: create.NICs, Remove: create.NICs, Route: create.NICs,
			Files: map[string]workload.FileEdit{"/etc/hosts": {Old: []byte("x"), New: []byte("y\n"), Lines: true}},
		}},
		{Op: protocol.OpRewire, ID: create.Spec.ID},
		{Op: protocol.OpDescribe, ID: create.Spec.ID},
		{Op: protocol.OpReadFiles, ID: create.Spec.ID, Files: &protocol.Files{Path: "/../x/.", Follow: true}},
		{Op: protocol.OpWriteFiles, ID: create.Spec.ID, Files: &protocol.Files{Path: "/tmp", Owners: true}},
		{Op: protocol.OpStatPath, ID: create.Spec.ID},
		{Op: protocol.OpChanges, ID: create.Spec.ID},
		{Op: protocol.OpDelete, ID: create.Spec.ID},
		{Op: protocol.OpVolume, Volume: "v"},
		{Op: protocol.OpHold, Volume: "v", File: true},
		{Op: protocol.OpStatus},
		{Op: protocol.OpSeed, Seed: make([]byte, 64)},
	} {
		out = append(out, messages(func(w *protocol.Writer) {
			w.JSON(protocol.TypeRequest, req)
			w.Bytes(protocol.TypeStdin, append(make([]byte, protocol.MessageHeader), "text"...))
			w.Resize(24, 80)
			w.CloseOutput(1)
			w.CloseStdin()
		}))
	}
	return out
}

// FuzzStream gives the agent any bytes on one stream, and a second honest
// request on another, which must be answered.
func FuzzStream(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := newFakeAgent(t)
		a.Guest, a.Log = noMachine{a.m}, func(l string) { t.Error(l) }
		s := link(t, a.Agent)
		hostile, err := s.Open(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		hostile.Write(b)
		honest, err := s.Open(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		protocol.NewWriter(honest).JSON(protocol.TypeRequest, protocol.Request{Op: protocol.OpStatus})
		if _, err := protocol.NewReader(honest).Reply(); err != nil {
			t.Errorf("the agent does not answer any more: %v", err)
		}
		honest.Close()
		hostile.Close()
		a.empty(t)
	})
}

// FuzzSession gives the agent any bytes as frames.
func FuzzSession(f *testing.F) {
	frame := func(kind byte, stream uint32, p []byte) []byte {
		b := append([]byte{kind, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(p)))...)
		return append(binary.BigEndian.AppendUint32(b, stream), p...)
	}
	for _, b := range seeds() {
		all := append(frame(2, 1, nil), frame(3, 1, b)...) // Open, Data
		f.Add(append(all, frame(6, 1, nil)...))            // Close
		f.Add(append(frame(2, 7, nil), append(all, frame(5, 1, nil)...)...))
	}
	hello := fmt.Appendf(nil, `{"magic":"bulkhead","version":%d}`, protocol.Version)
	f.Fuzz(func(t *testing.T, b []byte) {
		world := t.TempDir()
		m := newMachine(world, t.TempDir())
		a := New(Config{Guest: noMachine{m}, Boundary: &fake.Boundary{}, RunDir: t.TempDir(), Log: func(l string) { t.Error(l) }})
		done := make(chan error, 1)
		go func() {
			done <- a.Serve(context.Background(), &spoken{bytes.NewReader(append(frame(1, 0, hello), b...))})
		}()
		select {
		case <-done: // what was wrong is not our affair
		case <-time.After(20 * time.Second):
			t.Fatal("the agent hangs")
		}
		if len(a.workloads) != 0 || m.images != 0 {
			t.Errorf("left behind: %v, %d images", a.workloads, m.images)
		}
	})
}
