package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func networksOf(r *Record) string {
	var names []string
	for _, a := range r.Spec.Networks {
		names = append(names, a.Network)
	}
	return strings.Join(names, " ")
}

// TestConnect changes the networks of a workload that runs, and of one that does
// not; what was changed stays.
func TestConnect(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	s := networkSpec("web", "wait-signal", "USR1")
	s.Ports = nil
	session, err := w.Run(ctx(t), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	r := w.want("web", workload.Running)
	hosts := filepath.Join(r.Dir, "files", "hosts")
	given, err := os.ReadFile(hosts)
	if err == nil {
		err = os.WriteFile(hosts, append(given, "10.9.9.9\tmine\n"...), 0o644) // as the workload may
	}
	if err != nil {
		t.Fatal(err)
	}
	w.said = nil
	if err := w.Connect(ctx(t), "web", workload.Attachment{Network: "side", Aliases: []string{"www"}}); err != nil {
		t.Fatal(err)
	}
	if len(w.said) != 1 || w.said[0] != "a firewall is in the way" {
		t.Errorf("got warnings %q", w.said)
	}
	r = w.want("web", workload.Running)
	if networksOf(r) != "front back side" || len(r.NICs) != 3 || r.NICs[2].Network != "side" || r.Spec.Networks[2].Aliases[0] != "www" {
		t.Errorf("got networks %+v, interfaces %+v", r.Spec.Networks, r.NICs)
	}
	for _, want := range []string{"10.1.2.7\tbox web\n", "10.9.9.9\tmine\n", "127.0.0.1\tlocalhost\n", "10.1.0.1\tout\n"} {
		if b, err := os.ReadFile(hosts); err != nil || strings.Count(string(b), want) != 1 {
			t.Errorf("hosts: want %q once, got %q, %v", want, b, err)
		}
	}
	if err := w.Disconnect(ctx(t), "web", "0123", false); err != nil { // front
		t.Fatal(err)
	}
	r = w.want("web", workload.Running)
	if networksOf(r) != "back side" || len(r.NICs) != 2 || r.NICs[0].Network != "back" {
		t.Errorf("got networks %+v, interfaces %+v", r.Spec.Networks, r.NICs)
	}
	if err := w.Stop(ctx(t), "web", new(time.Duration)); err != nil {
		t.Fatal(err)
	}
	if r = w.want("web", workload.Exited); networksOf(r) != "back side" {
		t.Errorf("stopped: got networks %+v", r.Spec.Networks)
	}
	if err := w.Connect(ctx(t), "web", workload.Attachment{Network: "0123"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"back", "side"} {
		if err := w.Disconnect(ctx(t), "web", name, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Start(ctx(t), "web", nil); err != nil {
		t.Fatal(err)
	}
	if r = w.want("web", workload.Running); networksOf(r) != "front" || len(r.NICs) != 1 {
		t.Errorf("started: got networks %+v, interfaces %+v", r.Spec.Networks, r.NICs)
	}
	// Out of the last one, and back.
	if err := w.Disconnect(ctx(t), "web", "front", false); err != nil {
		t.Fatal(err)
	}
	if r = w.want("web", workload.Running); networksOf(r) != "" || len(r.NICs) != 0 {
		t.Errorf("in none: got networks %+v, interfaces %+v", r.Spec.Networks, r.NICs)
	}
	if err := w.Restart(ctx(t), "web", new(time.Duration), 0); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(b), "127.0.1.1\tbox web\n") || strings.Contains(string(b), "\tout\n") {
		t.Errorf("in none: hosts: %q, %v", b, err)
	}
	if err := w.Connect(ctx(t), "web", workload.Attachment{Network: "back"}); err != nil {
		t.Fatal(err)
	}
	if r = w.want("web", workload.Running); networksOf(r) != "back" || len(r.NICs) != 1 {
		t.Errorf("back in one: got networks %+v, interfaces %+v", r.Spec.Networks, r.NICs)
	}
	if err := w.Remove(ctx(t), "web", true); err != nil {
		t.Error(err)
	}
	w.wantNoNetwork("removed")
}

// TestDisconnectPorts takes a workload that does not run out of a network: its ports
// must be published by the first of the others that has a way out.
func TestDisconnectPorts(t *testing.T) {
	w := newWorld(t)
	for i, tt := range []struct {
		at, networks, from string
		text               string // of the error
	}{
		{"", "side six", "side", ""},
		{"192.0.2.1", "side back", "side", ""},
		{"192.0.2.1", "side six", "side", "network six has no IPv4"},
		{"192.0.2.1", "side six", "six", ""},
		{"192.0.2.1", "side six back", "side", "network six has no IPv4"},
		{"192.0.2.1", "side inner back", "side", ""},
		{"192.0.2.1", "side inner", "side", "no other network"},
		{"2001:db8::1", "six back", "six", "network back has no IPv6"},
	} {
		s := networkSpec(fmt.Sprintf("w%d", i))
		s.Networks = nil
		for _, name := range strings.Fields(tt.networks) {
			s.Networks = append(s.Networks, workload.Attachment{Network: name})
		}
		if tt.at != "" {
			s.Ports[0].HostIP, s.Ports[0].HostPort = netip.MustParseAddr(tt.at), 80
		}
		if _, err := w.Create(ctx(t), s); err != nil {
			t.Fatal(err)
		}
		err := w.Disconnect(ctx(t), s.Name, tt.from, false)
		if tt.text == "" && err != nil || tt.text != "" && (!errors.Is(err, network.ErrInvalid) || !strings.Contains(err.Error(), tt.text)) {
			t.Errorf("at %q, out of %s of %s: got %v, want %q", tt.at, tt.from, tt.networks, err, tt.text)
		}
	}
}

// TestConnectBetweenLives changes the networks of a workload that waits to be
// restarted: its next life begins with what was changed, and leaving counts at once.
func TestConnectBetweenLives(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	s := networkSpec("web", "exit", "3")
	s.Ports, s.Restart = nil, workload.Restart{Policy: workload.RestartAlways}
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	await := func(what string, is func(*Record) bool) *Record {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			r, err := w.Inspect(ctx(t), "web")
			if err != nil || time.Now().After(end) {
				t.Fatalf("%s: got %+v, %v", what, r, err)
			}
			if is(r) {
				return r
			}
		}
	}
	// By the fifth time it waits long enough to be met in between.
	waits := await("it waits", func(r *Record) bool { return r.Status == workload.Restarting && r.Restarts >= 5 })
	if err := errors.Join(w.Connect(ctx(t), "web", workload.Attachment{Network: "side"}), w.Disconnect(ctx(t), "web", "front", false)); err != nil {
		t.Fatal(err)
	}
	r := await("it lives again", func(r *Record) bool { return r.Restarts > waits.Restarts && r.Status == workload.Restarting })
	if networksOf(r) != "back side" || len(r.NICs) != 2 || r.NICs[0].Network != "back" || r.NICs[1].Network != "side" {
		t.Errorf("got networks %+v, interfaces %+v", r.Spec.Networks, r.NICs)
	}
	if err := w.Stop(ctx(t), "web", nil); err != nil {
		t.Fatal(err)
	}
	w.wantNoNetwork("stopped")
}

// TestConnectEvents: the networks that a life joins and leaves are told of, too.
func TestConnectEvents(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	s := networkSpec("web", "wait-signal", "USR1")
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	id := w.want("web", workload.Running).Spec.ID
	if err := errors.Join(w.Connect(ctx(t), "web", workload.Attachment{Network: "side"}), w.Disconnect(ctx(t), "web", "side", false), w.Stop(ctx(t), "web", new(time.Duration))); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := w.Events(ctx(t), events.Options{}, func(e events.Event) error {
		if e.Type == events.Network {
			got = append(got, e.Action+" "+e.Attributes["name"])
			if e.ID != "id-"+e.Attributes["name"] || e.Attributes["type"] != "bridge" || e.Attributes["container"] != string(id) {
				t.Errorf("got %+v", e)
			}
		}
		return nil
	})
	want := "[connect front connect back connect side disconnect side disconnect front disconnect back]"
	if fmt.Sprint(got) != want || err != nil {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

// TestConnectRefused asks for what cannot be; nothing may have changed.
func TestConnectRefused(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	run := func(name string, change func(*workload.Spec)) {
		s := networkSpec(name, "wait-signal", "USR1")
		change(&s)
		if _, err := w.Run(ctx(t), s, nil); err != nil {
			t.Fatal(err)
		}
	}
	run("web", func(*workload.Spec) {})
	run("stays", func(*workload.Spec) {})
	run("dies", func(*workload.Spec) {})
	run("none", func(s *workload.Spec) { s.Network, s.Networks, s.Ports = workload.NetworkNone, nil, nil })
	run("many", func(s *workload.Spec) {
		for i := range maxNetworks - 2 {
			s.Networks = append(s.Networks, workload.Attachment{Network: fmt.Sprintf("n%d", i)})
		}
	})
	to := func(name string) func(string) error {
		return func(ref string) error {
			return w.Connect(ctx(t), ref, workload.Attachment{Network: name, IPv4: netip.Addr{}})
		}
	}
	from := func(name string, force bool) func(string) error {
		return func(ref string) error { return w.Disconnect(ctx(t), ref, name, force) }
	}
	for _, tt := range []struct {
		what, ref string
		do        func(string) error
		err       error
		text      string
	}{
		{"nobody", "nobody", to("side"), workload.ErrNotFound, ""},
		{"nobody, by force", "nobody", from("side", true), nil, ""},
		{"nothing", "web", to("nothing"), network.ErrNotFound, ""},
		{"again", "web", to("front"), network.ErrInvalid, "in network front already"},
		{"an address of another's", "web", func(ref string) error {
			return w.Connect(ctx(t), ref, workload.Attachment{Network: "side", IPv4: netip.MustParseAddr("10.2.0.1")})
		}, network.ErrInvalid, "in no subnet"},
		{"in none", "none", to("side"), workload.ErrUnsupported, `"none"`},
		{"out of none", "none", from("side", false), workload.ErrUnsupported, `"none"`},
		{"not in it", "web", from("side", false), network.ErrInvalid, "not in network side"},
		{"not in it, by force", "web", from("side", true), nil, ""},
		{"unknown", "web", from("nothing", false), network.ErrNotFound, ""},
		{"with ports", "stays", from("back", false), network.ErrInvalid, "ports are published"},
		{"no answer", "dies", to("side"), errors.New(""), "bulkhead-network ended without an answer"},
		{"too many", "many", to("side"), network.ErrInvalid, "16 is the most"},
	} {
		err := tt.do(tt.ref)
		if (err == nil) != (tt.err == nil) || tt.err != nil && tt.err.Error() != "" && !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v, %q", tt.what, err, tt.err, tt.text)
		}
	}
	for name, want := range map[string]string{"web": "front back", "stays": "front back", "dies": "front back", "none": ""} {
		if r := w.want(name, workload.Running); networksOf(r) != want || len(r.NICs) != len(r.Spec.Networks) {
			t.Errorf("%s: got networks %+v, interfaces %+v", name, r.Spec.Networks, r.NICs)
		}
	}
	// Without its supervisor, as with it.
	if err := w.Stop(ctx(t), "web", new(time.Duration)); err != nil {
		t.Fatal(err)
	}
	if err := w.Disconnect(ctx(t), "web", "back", false); err != nil {
		t.Error(err)
	}
	if err := w.Disconnect(ctx(t), "web", "front", false); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("the last one, with ports: got %v", err)
	}
	if err := w.Connect(ctx(t), "web", workload.Attachment{Network: "inner"}); err != nil {
		t.Error(err)
	}
	if err := w.Disconnect(ctx(t), "web", "front", false); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("the last one with a way out, with ports: got %v", err)
	}
}
