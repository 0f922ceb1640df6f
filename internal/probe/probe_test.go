package probe

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestCatalogue wants every probe to be complete.
func TestCatalogue(t *testing.T) {
	ids := map[string]bool{}
	for _, p := range Probes() {
		if err := report.CheckID(p.ID); err != nil || ids[p.ID] || p.Group() == p.ID {
			t.Errorf("%q: %v, twice %v", p.ID, err, ids[p.ID])
		}
		ids[p.ID] = true
		for what, text := range map[string]string{"door": p.Door, "expected": p.Expected, "enables": p.Enables, "fix": p.Fix} {
			if text == "" || strings.HasSuffix(text, ".") || report.CheckText(text, 300) != nil {
				t.Errorf("%s: %s is %q", p.ID, what, text)
			}
		}
		if !slices.Contains(report.Consequences, p.Consequence) || len(p.References) == 0 || p.judge == nil {
			t.Errorf("%s: consequence, references or judge are missing", p.ID)
		}
	}
	if len(ids) < 40 {
		t.Errorf("%d probes", len(ids))
	}
}

// observe looks from inside this test, once.
func observe(t testing.TB) *Observations {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, which sees most")
	}
	o := Observe(Targets{Nonce: "n"})
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(b)
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return again
}

// TestInitialNamespaces finds the numbers of the kernel's first namespaces where
// this test is in them.
func TestInitialNamespaces(t *testing.T) {
	comm, err := os.ReadFile("/proc/2/comm")
	if err != nil || string(comm) != "kthreadd\n" {
		t.Skip("needs the host's pid namespace")
	}
	h, err := LocalHost()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pid", "user", "uts", "ipc"} {
		if n := h.Namespaces[name]; !slices.Contains(initialNamespaces[name], n) {
			t.Errorf("%s: got %d, want one of %v", name, n, initialNamespaces[name])
		}
	}
	if h.Memory == 0 || h.Booted == 0 || len(h.BootID) != 36 {
		t.Errorf("got %+v", h)
	}
}

// TestUnknownIsNoPass takes every observation away, one after the other: what was
// held by it is unknown then, never held.
func TestUnknownIsNoPass(t *testing.T) {
	o := observe(t)
	c := NewContext(&Host{BootID: "another", Release: "1.0"}, &Declared{Boundary: "vm", OwnKernel: true, Passes: "0-470"})
	for n := range o.Tried {
		for what, change := range map[string]func(*Observation){
			"troubled": func(o *Observation) { o.Trouble = "a reason" },
			"empty":    func(o *Observation) { o.Calls = nil },
			"strange errors": func(o *Observation) {
				calls := slices.Clone(o.Calls)
				for n := range calls {
					calls[n].Errno, calls[n].Value = "EIO", ""
				}
				o.Calls = calls
			},
		} {
			one := *o
			one.Tried = slices.Clone(o.Tried)
			change(&one.Tried[n])
			for _, f := range Judge(c, &one, "").Findings {
				if f.ID == one.Tried[n].Probe && f.Verdict == report.Held {
					t.Errorf("%s, %s: held: %s", f.ID, what, f.Observed)
				}
			}
		}
		one := *o
		one.Tried = slices.Delete(slices.Clone(o.Tried), n, n+1)
		for _, f := range Judge(c, &one, "").Findings {
			if f.ID == o.Tried[n].Probe && f.Verdict != report.Unknown && f.Verdict != report.NotApplicable {
				t.Errorf("%s, not reported: %s: %s", f.ID, f.Verdict, f.Observed)
			}
		}
	}
	for _, f := range Judge(c, nil, "no word").Findings {
		if f.Verdict != report.Unknown || f.Reason != "no word" {
			t.Errorf("%s: %s, %s", f.ID, f.Verdict, f.Reason)
		}
	}
}

// TestOwnKernel: in a machine of its own an open door costs depth, not the host. That
// it is one is nothing that a container can say of itself.
func TestOwnKernel(t *testing.T) {
	o := observe(t)
	container, vm := &Declared{Boundary: "container"}, &Declared{Boundary: "vm", OwnKernel: true}
	for _, tt := range []struct {
		boot     string
		declared *Declared
		want     report.Consequence
		kernel   report.Verdict
	}{
		{"another", nil, report.GuestDepth, report.Held}, {bootOf(o), nil, report.Depth, report.NotApplicable},
		{"another", vm, report.GuestDepth, report.Held}, {bootOf(o), vm, report.Depth, report.Weaker},
		{"another", container, report.Depth, report.NotApplicable}, {bootOf(o), container, report.Depth, report.NotApplicable},
	} {
		r := Judge(NewContext(&Host{BootID: tt.boot}, tt.declared), o, "")
		for _, f := range r.Findings {
			if f.ID == "syscalls.bpf" && f.Consequence != tt.want {
				t.Errorf("boot ID %s, %+v: %s, want %s", tt.boot, tt.declared, f.Consequence, tt.want)
			}
			if inside := f.Consequence == report.GuestDepth; f.ID == "files.propagation" && inside != (tt.want == report.GuestDepth) {
				t.Errorf("boot ID %s, %+v, mounts that are shared: %s", tt.boot, tt.declared, f.Consequence)
			}
			if f.ID == "kernel.own" && f.Verdict != tt.kernel {
				t.Errorf("boot ID %s, %+v: %s, want %s", tt.boot, tt.declared, f.Verdict, tt.kernel)
			}
		}
	}
}

func bootOf(o *Observations) string {
	e, _ := callOf(&o.Tried[0], readBootID)
	return e.Value
}

// TestLimitOutside: a limit that only the cgroup around a runtime's has is unknown,
// neither there nor missing.
func TestLimitOutside(t *testing.T) {
	o := &Observations{Format: observationFormat, Tried: []Observation{{Probe: "limits.processes", Calls: []report.Evidence{{Call: pidsLimit, Value: unlimited}}}}}
	for boundary, want := range map[string]report.Verdict{"container": report.Weaker, "runtime": report.Unknown, "gvisor": report.Unknown} {
		for _, f := range Judge(NewContext(nil, &Declared{Boundary: boundary, Pids: 64}), o, "").Findings {
			if f.ID == "limits.processes" && f.Verdict != want {
				t.Errorf("%s: got %s, want %s", boundary, f.Verdict, want)
			}
		}
	}
}

func TestAll(t *testing.T) {
	a, b, c := isOpen("a"), isShut("b"), isUnclear("c")
	for _, tt := range []struct {
		got, want state
	}{
		{all(a, a).state, open}, {all(a, b).state, shut}, {all(b, c).state, shut}, {all(c, b).state, shut}, {all(a, c).state, unclear},
		{all(isAbsent("d"), a).state, shut},
		{either(a, b).state, open}, {either(c, a).state, open}, {either(b, c).state, unclear}, {either(c, b).state, unclear}, {either(b, b).state, shut},
	} {
		if tt.got != tt.want {
			t.Errorf("got %d, want %d", tt.got, tt.want)
		}
	}
}

func TestRanges(t *testing.T) {
	for _, s := range []string{"", "0", "0-3", "0,2-4,470"} {
		set, ok := parseRanges(s)
		if !ok {
			t.Errorf("%q is refused", s)
		}
		if s == "0,2-4,470" && (len(set) != 5 || !set[3] || set[1]) {
			t.Errorf("%q: got %v", s, set)
		}
	}
	for _, s := range []string{"x", "1-", "-1", "3-1", "0-4000000000", "471", ",", "1,,2"} {
		if set, ok := parseRanges(s); ok {
			t.Errorf("%q is taken as %v", s, set)
		}
	}
}

func TestMounts(t *testing.T) {
	const text = `45 27 0:41 / /a\040b rw,nosuid shared:3 master:1 - tmpfs none rw
46 27 0:42 /x /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
`
	got, whole := parseMounts(text)
	if !whole || len(got) != 2 || got[0].point != "/a b" || !got[0].shared || got[1].shared || got[1].kind != "cgroup" || got[1].super != "rw,pids" {
		t.Errorf("got %+v, %v", got, whole)
	}
	if _, whole := parseMounts("45 27 0:41 / /a rw"); whole {
		t.Error("half a line is whole")
	}
}

// TestDecodeRefuses changes what a prober wrote.
func TestDecodeRefuses(t *testing.T) {
	good := `{"format":6,"nonce":"n","kernel":"6.1","tried":[{"probe":"kernel.log","calls":[{"call":"a","errno":"EPERM"}]}]}`
	if _, err := Decode([]byte(good + "\n")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new string }{
		{"a format", `"format":6`, `"format":4`}, {"a probe", "kernel.log", "kernel.panic"}, {"a field", `"nonce"`, `"Nonce"`},
		{"a field more", `"format":6`, `"format":6,"format":6`}, {"control characters", "EPERM", `\u001b`}, {"text", "EPERM", strings.Repeat("x", maxText+1)},
		{"a probe twice", `{"probe":"kernel.log","calls"`, `{"probe":"kernel.log"},{"probe":"kernel.log","calls"`},
		{"calls", `{"call":"a","errno":"EPERM"}`, strings.Repeat(`{"call":"a"},`, maxCalls) + `{"call":"a"}`},
		{"the end", "]}]}", "]}]"}, {"more", "]}]}", "]}]} {}"}, {"size", "EPERM", strings.Repeat("x", MaxObservations)},
	} {
		if _, err := Decode([]byte(strings.Replace(good, tt.old, tt.new, 1))); !errors.Is(err, report.ErrMalformed) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// FuzzJudge: whatever a workload writes is refused or judged, and the report is one
// that can be written. A door is held only where something was tried.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"format":6,"nonce":"","kernel":"6.1","tried":[{"probe":"namespaces.pid","calls":[{"call":"readlink(/proc/self/ns/pid)","value":"pid:[4026531836]"}]}]}`), true)
	if os.Geteuid() == 0 {
		if b, err := observe(f).Encode(); err == nil {
			f.Add(b, true)
			f.Add(bytes.ReplaceAll(b, []byte("EPERM"), []byte("")), false)
		}
	}
	h := &Host{BootID: "b", Release: "6.1", Namespaces: map[string]uint64{"pid": 1}, Memory: 1, Booted: 1}
	d := &Declared{Boundary: "container", Passes: "0-100", ReadOnlyRoot: true, NoNetwork: true, Memory: 1, Pids: 1, CPUs: 1, Files: 1, Shm: 1, Options: []string{"--pid host"}}
	f.Fuzz(func(t *testing.T, b []byte, own bool) {
		o, err := Decode(b)
		if err != nil {
			return
		}
		one := *d
		one.OwnKernel = own
		c := NewContext(h, &one)
		c.Targets = Targets{Files: []string{"/x"}, Token: "t", Abstract: "a", Loopback: []string{"127.0.0.1:1"}, ShmKey: 1, Addresses: []string{"127.0.0.1:1"}}
		r := Judge(c, o, "")
		doc := report.Document{Format: report.Format, Kind: report.Probe, Reports: []report.Report{r}}
		if _, err := doc.Encode(); err != nil {
			t.Fatal(err)
		}
		if len(o.Tried) == 0 && r.Count(report.Held) > 0 {
			t.Errorf("%d doors are held, and nothing was tried", r.Count(report.Held))
		}
		if r.Text(new(bytes.Buffer), true) != nil || doc.Matrix(new(bytes.Buffer), true) != nil {
			t.Error("it cannot be shown")
		}
	})
}

// FuzzContext: a context is refused or means the same when it is written anew.
func FuzzContext(f *testing.F) {
	b, err := NewContext(&Host{BootID: "b"}, &Declared{Boundary: "vm"}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseContext(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseContext(again); err != nil {
			t.Errorf("%s: %v", strconv.Quote(string(again)), err)
		}
	})
}

// TestOutside: where the host looked, its word decides, whatever the workload says;
// and a kernel that is processes of the host counts as one only if it is seen there.
func TestOutside(t *testing.T) {
	o := observe(t)
	host := &Host{BootID: "another", Release: "1.0", Memory: 1, Booted: 1}
	saw := func(id, call, value, errno string) []Observation {
		return []Observation{{Probe: id, Calls: []report.Evidence{{Call: call, Value: value, Errno: errno}}}}
	}
	gvisor := Declared{Boundary: "gvisor", OwnKernel: true, Pids: 64, Memory: 64, CPUs: 0.5}
	for _, tt := range []struct {
		name, id string
		outside  []Observation
		want     report.Verdict
	}{
		{"nobody looked", "kernel.own", nil, report.Unknown},
		{"gVisor's", "kernel.own", saw("kernel.own", SeenPrograms, SeenSentry, ""), report.Held},
		{"another program", "kernel.own", saw("kernel.own", SeenPrograms, "/bin/sh", ""), report.Unknown},
		{"the host cannot look", "kernel.own", saw("kernel.own", SeenPrograms, "no such file", "error"), report.Unknown},
		{"a limit", "limits.processes", saw("limits.processes", SeenPids, "64", ""), report.Held},
		{"too high a limit", "limits.processes", saw("limits.processes", SeenPids, "65", ""), report.Weaker},
		{"no limit", "limits.processes", saw("limits.processes", SeenPids, Unlimited, ""), report.Weaker},
		{"no answer", "limits.processes", saw("limits.processes", SeenPids, "gone", "error"), report.Unknown},
		{"no sense", "limits.memory", saw("limits.memory", SeenMemory, "much", ""), report.Unknown},
		{"a quota", "limits.processors", saw("limits.processors", SeenQuota, "50000 100000", ""), report.Held},
		{"too high a quota", "limits.processors", saw("limits.processors", SeenQuota, "90000 100000", ""), report.Weaker},
		{"no quota", "limits.processors", saw("limits.processors", SeenQuota, Unlimited, ""), report.Weaker},
		{"half a quota", "limits.processors", saw("limits.processors", SeenQuota, "50000", ""), report.Unknown},
		{"a map", "namespaces.uid-map", saw("namespaces.uid-map", SeenUIDMap, "0 100000 65536", ""), report.Held},
		{"root's map", "namespaces.uid-map", saw("namespaces.uid-map", SeenUIDMap, "0 100000 5, 5 0 1", ""), report.Weaker},
		{"no map", "namespaces.uid-map", saw("namespaces.uid-map", SeenUIDMap, "", ""), report.Unknown},
		{"a score", "limits.oom-score", saw("limits.oom-score", SeenOOMScore, "-1", ""), report.Weaker},
	} {
		c := NewContext(host, &gvisor)
		c.Outside = tt.outside
		for _, f := range Judge(c, o, "").Findings {
			if f.ID != tt.id {
				continue
			}
			if f.Verdict != tt.want {
				t.Errorf("%s: got %s, want %s: %s%s", tt.name, f.Verdict, tt.want, f.Observed, f.Reason)
			}
			if len(tt.outside) > 0 && (len(f.Evidence) == 0 || f.Evidence[0] != tt.outside[0].Calls[0]) {
				t.Errorf("%s: the host's word is not the first evidence: %+v", tt.name, f.Evidence)
			}
		}
	}
	for name, want := range map[string]report.Consequence{"": report.Depth, SeenSentry: report.SandboxDepth, "/bin/sh": report.Depth} {
		c := NewContext(host, &gvisor)
		if name != "" {
			c.Outside = saw("kernel.own", SeenPrograms, name, "")
		}
		for _, f := range Judge(c, o, "").Findings {
			if f.ID == "syscalls.bpf" && f.Consequence != want {
				t.Errorf("the host sees %q: %s, want %s", name, f.Consequence, want)
			}
		}
	}
}

// TestByDesign: what gVisor has itself is declared open behind it, and anything
// beside it is not.
func TestByDesign(t *testing.T) {
	const own = "/dev/fuse (c 10:229), /dev/net/tun (c 10:200)"
	for _, tt := range []struct {
		boundary, found string
		want            report.Verdict
	}{{"gvisor", own, report.Leaked}, {"gvisor", own + ", /dev/kvm (c 10:232)", report.Weaker}, {"container", own, report.Weaker}, {"vm", own, report.Weaker}} {
		o := &Observations{Format: observationFormat, Tried: []Observation{{Probe: "devices.extra", Calls: []report.Evidence{{Call: foundDevices, Value: tt.found}}}}}
		for _, f := range Judge(NewContext(nil, &Declared{Boundary: tt.boundary}), o, "").Findings {
			if f.ID == "devices.extra" && f.Verdict != tt.want {
				t.Errorf("%s, %s: got %s, want %s", tt.boundary, tt.found, f.Verdict, tt.want)
			}
		}
	}
}

func TestInterfacesIn(t *testing.T) {
	got := interfacesIn("Inter-|   Receive |  Transmit\n face |bytes packets |bytes\n    lo:       0 0\n  eth0: 1 2\n")
	if !slices.Equal(got, []string{"lo", "eth0"}) {
		t.Errorf("got %q", got)
	}
}

// TestSurface: counts come through, and what is missing has a reason, not a number.
func TestSurface(t *testing.T) {
	o := observe(t)
	r := Judge(NewContext(nil, nil), o, "")
	if len(r.Measures) != len(surfaces) {
		t.Fatalf("%d measures", len(r.Measures))
	}
	for _, m := range r.Measures {
		if !m.Measured() || m.Group() != "surface" || m.Better != report.Less || m.Note == "" {
			t.Errorf("%+v", m)
		}
	}
	// This test is root and behind no filter: all calls but those that no filter sees.
	if got := r.Measure("surface.calls").Median(); got < 400 || got > gate.Last+1 {
		t.Errorf("%v calls pass", got)
	}
	if got := r.Measure("surface.sockets").Median(); got != families {
		t.Errorf("%v families pass", got)
	}
	o.Surface = []Count{{ID: "surface.calls", Trouble: "no gate"}, {ID: "surface.devices", N: 3, AtLeast: true}}
	r = Judge(NewContext(nil, nil), o, "")
	if m := r.Measure("surface.calls"); m.Measured() || m.Reason != "no gate" {
		t.Errorf("%+v", m)
	}
	if m := r.Measure("surface.devices"); m.Median() != 3 || !strings.HasSuffix(m.Note, "there are more") {
		t.Errorf("%+v", m)
	}
	if m := r.Measure("surface.writable"); m.Measured() || m.Reason == "" {
		t.Errorf("%+v", m)
	}
	for _, bad := range []Count{{ID: "surface.calls", N: -1}, {ID: "surface.calls", N: maxCount + 1}, {ID: "surface.more"}, {ID: "surface.calls", Trouble: "\x1b"}} {
		o.Surface = []Count{bad}
		b, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, report.ErrMalformed) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
	for _, m := range Judge(NewContext(nil, nil), nil, "no word").Measures {
		if m.Measured() || m.Reason != "no word" {
			t.Errorf("%+v", m)
		}
	}
}

// FuzzMounts: whatever the text, every line is a mount or told to be none, and a mount
// whose fields are written as the kernel does is read as it was.
func FuzzMounts(f *testing.F) {
	f.Add("45 27 0:41 / /a\\040b rw,nosuid shared:3 master:1 - tmpfs none rw\n46 27 0:42 /x /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n", "/a b", "/x\ny")
	f.Add("45 27 0:41 / /a rw", "/\\", "/a - b")
	f.Add("1 2 3 4 5 6 - k\n - \n\\777\\04", "", "\\040")
	escaper := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`) // mangle_path() of fs/seq_file.c
	f.Fuzz(func(t *testing.T, text, root, point string) {
		list, whole := parseMounts(text)
		lines := strings.Count(text, "\n")
		if !strings.HasSuffix(text, "\n") && text != "" {
			lines++
		}
		if len(list) > lines || whole != (len(list) == lines) {
			t.Errorf("%d mounts in %d lines, whole: %v", len(list), lines, whole)
		}
		for n := range list {
			if m := &list[n]; m.kind == "" || len(m.sources()) == 0 || m.access() == "" {
				t.Errorf("a mount without something: %+v", *m)
			}
			if c := clean(mountCall(list[n].point)); report.CheckText(c, maxText) != nil {
				t.Errorf("%q is no evidence", c)
			}
		}
		if !strings.HasPrefix(root, "/") || !strings.HasPrefix(point, "/") {
			return // no path that the kernel writes
		}
		line := "45 27 0:41 " + escaper.Replace(root) + " " + escaper.Replace(point) + " rw shared:1 - tmpfs none rw\n"
		if got, whole := parseMounts(line); !whole || len(got) != 1 || got[0].root != root || got[0].point != point || !got[0].shared {
			t.Errorf("%q: got %+v", line, got)
		}
	})
}
