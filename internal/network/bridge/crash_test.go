package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A child does what a command or a supervisor would have done, and is killed.
const envChild = "BULKHEAD_BRIDGE_CHILD"

type deed struct {
	Root, Run, DNS string
	Op             string
	Request        network.Request
	// Step is after how many steps it is killed, 0 for never. Steps is the file that
	// gets their names.
	Step  int
	Steps string
}

func runChild(arg string) int {
	var d deed
	err := json.Unmarshal([]byte(arg), &d)
	if err == nil {
		err = d.do()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (d deed) do() error {
	steps, err := os.OpenFile(d.Steps, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n := 0
	Step = func(name string) {
		n++
		fmt.Fprintln(steps, name)
		if n == d.Step {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s, err := Open(d.Root, d.Run, Options{DNSProgram: d.DNS, CgroupParent: "/bulkhead-test-bridge"})
	if err != nil {
		return err
	}
	ctx := context.Background()
	switch d.Op {
	case "create":
		_, err = s.Create(ctx, network.Network{Name: "n"})
	case "remove":
		_, err = s.Remove(ctx, "n")
	case "attach":
		var a *Attached
		if a, err = s.Attach(ctx, d.Request); err != nil {
			return err
		}
		var ns *os.File
		if !d.Request.Taps {
			ns, err = newNetNS()
		}
		if err == nil {
			err = a.Enter(ctx, ns)
		}
	case "join":
		d.Request.Networks, d.Request.Join = append(d.Request.Networks, workload.Attachment{Network: "m"}), true
		var a *Attached
		if a, err = s.Attach(ctx, d.Request); err != nil || d.Request.Taps {
			return err
		}
		var ns *os.File
		if ns, err = newNetNS(); err == nil {
			err = a.Enter(ctx, ns)
		}
	case "part":
		d.Request.Networks, d.Request.Part = d.Request.Networks[1:], d.Request.Networks[0].Network
		_, err = s.Part(ctx, d.Request, nil)
	case "rename":
		d.Request.Name = "renamed"
		err = s.Rename(ctx, d.Request)
	case "release":
		err = s.Release(ctx, d.Request.ID)
	case "repair":
		err = s.Repair(ctx)
	}
	return err
}

// perform runs a deed and returns how many steps it took. It may take less than
// d.Step, as some are for the first time only; then it was not killed.
func (l *lab) perform(d deed) int {
	l.t.Helper()
	d.Root, d.Run, d.DNS, d.Steps = l.root, l.Store.run, l.o.DNSProgram, filepath.Join(l.t.TempDir(), "steps")
	b, err := json.Marshal(d)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envChild+"="+string(b))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled()
	if killed && d.Step == 0 || err != nil && !killed {
		l.t.Fatalf("%s, killed after step %d: %v\n%s", d.Op, d.Step, err, out)
	}
	steps, err := os.ReadFile(d.Steps)
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Count(string(steps), "\n")
}

// wantOwned finds an owner for every address that a rule names.
func (l *lab) wantOwned(when string) {
	l.t.Helper()
	c, err := nftables.New()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range []*nftables.Set{l.t_().ip4, l.t_().ip6, l.t_().open4, l.t_().open6} {
		es, err := c.GetSetElements(s)
		if err != nil && strings.Contains(err.Error(), "no such file") {
			continue // the package does not wrap it
		}
		if err != nil {
			l.t.Fatal(err)
		}
		for _, e := range es {
			key := e.Key
			if s == l.t_().ip4 || s == l.t_().ip6 {
				if strings.HasPrefix(string(key), "bhd") {
					continue
				}
				key = key[16:]
			}
			length := 4
			if s == l.t_().ip6 || s == l.t_().open6 {
				length = 16
			}
			a, _ := netip.AddrFromSlice(key[:length])
			if a.IsLinkLocalUnicast() {
				continue
			}
			if found, err := filepath.Glob(l.address("*", a)); err != nil || len(found) == 0 {
				l.t.Errorf("%s: set %s names %s, which could be handed out: %v", when, s.Name, a, err)
			}
		}
	}
}

// wantConfined finds every port of our bridges in the set of those that have rules,
// or in the group of those that send nothing without.
func (l *lab) wantConfined(when string) {
	l.t.Helper()
	nets, err := l.all()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, n := range nets {
		for _, port := range l.ports(&n) {
			link, err := netlink.LinkByName(port)
			if isNotFound(err) {
				continue // it went meanwhile, with the namespace of whoever was killed
			}
			if err != nil {
				l.t.Fatal(err)
			}
			ruled, err := l.ruled(port)
			if err != nil {
				l.t.Fatalf("%s: %s is a port, and there are no rules: %v", when, port, err)
			}
			if !ruled && link.Attrs().Group != l.t_().group {
				l.t.Errorf("%s: %s is a port that may send anything", when, port)
			}
		}
	}
}

// ruled reports whether a port is in the set of those that have rules.
func (l *lab) ruled(port string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	es, err := c.GetSetElements(l.t_().ports)
	return slices.ContainsFunc(es, func(e nftables.SetElement) bool { return bytes.Equal(e.Key, name(port)) }), err
}

// TestCrash kills whoever changes something after each of its steps. Afterwards no
// rule names an address that is free, and no port sends without rules; and the next command makes all of it good.
func TestCrash(t *testing.T) {
	warmUp(t)
	r := func() network.Request {
		return withPorts(request("n"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}, workload.Port{HostPort: 8080, Port: 80, Protocol: "udp"})
	}
	for _, tt := range []struct {
		op   string
		taps bool
		dns  bool
		// before makes what the deed needs.
		before func(l *lab, r network.Request)
	}{
		{op: "create", before: func(*lab, network.Request) {}},
		{op: "attach", before: exists},
		{op: "attach", taps: true, before: exists},
		{op: "attach", dns: true, before: exists},
		{op: "join", before: attachedBeside},
		{op: "join", taps: true, before: attachedBeside},
		{op: "join", dns: true, before: attachedBeside},
		{op: "part", before: attachedTwice},
		{op: "part", dns: true, before: attachedTwice},
		{op: "rename", before: attached},
		{op: "release", before: attached},
		{op: "release", dns: true, before: attached},
		{op: "repair", before: func(l *lab, r network.Request) {
			attached(l, r)
			command(l.t, "nft", "flush", "ruleset")
		}},
		{op: "remove", before: func(l *lab, r network.Request) {
			attached(l, r)
			if err := l.Release(context.Background(), r.ID); err != nil {
				l.t.Fatal(err)
			}
		}},
	} {
		if testing.Short() && tt.dns {
			continue // the same steps and a few more
		}
		t.Run(fmt.Sprintf("%s,taps=%t,dns=%t", tt.op, tt.taps, tt.dns), func(t *testing.T) {
			l := newLab(t)
			if tt.dns {
				l.withDNS()
			}
			for step, steps := 0, 1; step <= steps; step++ {
				r := r()
				r.Taps = tt.taps
				tt.before(l, r)
				q := r
				if tt.op == "part" {
					q.Networks = twoNetworks
				}
				n := l.perform(deed{Op: tt.op, Request: q, Step: step})
				if step == 0 {
					steps = n // undisturbed
				}
				if n == 0 {
					t.Fatal("no step was reported")
				}
				when := fmt.Sprintf("step %d of %d", step, steps)
				l.wantOwned(when)
				l.wantConfined(when)
				l.heal(when, r, step)
			}
		})
	}
}

func exists(l *lab, _ network.Request) { l.create(network.Network{Name: "n"}) }

func attached(l *lab, r network.Request) {
	exists(l, r)
	b := l.start(r)
	b.a.Close() // its supervisor is dead
}

// attachedBeside has another network, and attachedTwice has the workload in both:
// its ports are published by the first of them.
func attachedBeside(l *lab, r network.Request) {
	if _, err := l.read("m"); err != nil {
		l.create(network.Network{Name: "m"})
	}
	r.Taps = false
	attached(l, r)
}

func attachedTwice(l *lab, r network.Request) {
	r.Networks = twoNetworks
	attachedBeside(l, r)
}

var twoNetworks = []workload.Attachment{{Network: "n"}, {Network: "m"}}

// heal is the next command, whatever that is.
func (l *lab) heal(when string, r network.Request, n int) {
	l.t.Helper()
	ctx := context.Background()
	if _, err := l.Create(ctx, network.Network{Name: "n"}); err != nil && !errors.Is(err, network.ErrExists) {
		l.t.Fatalf("%s: create: %v", when, err)
	}
	if n%3 == 1 {
		if err := l.Repair(ctx); err != nil {
			l.t.Errorf("%s: repair: %v", when, err)
		}
	}
	if n%2 == 1 { // it is started again
		if r.Taps {
			r.Taps = false
		}
		b := l.start(r)
		serve(l.t, b.namespace, ":80")
		if got := ask(l.t, nil, "tcp", "127.0.0.1:8080"); got == "" {
			l.t.Errorf("%s: the published port does not work", when)
		}
		b.a.Close()
	}
	if err := l.Release(ctx, r.ID); err != nil {
		l.t.Errorf("%s: release: %v", when, err)
	}
	made, err := l.read("n")
	if err != nil {
		l.t.Fatal(err)
	}
	if ports := l.ports(made); len(ports) > 0 {
		l.t.Errorf("%s: interfaces %v are left", when, ports)
	}
	l.wantNothing("n")
	l.wantNothing("m")
	if _, err := l.Remove(ctx, "n"); err != nil {
		l.t.Errorf("%s: remove: %v", when, err)
	}
	if _, ok := ready(made); ok {
		l.t.Errorf("%s: the bridge is left", when)
	}
}
