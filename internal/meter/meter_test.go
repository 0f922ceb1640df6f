package meter

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestMain lets the test binary be the program that calls.spawn starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "exit" {
		os.Exit(0)
	}
	nettest.Isolate()
	os.Exit(m.Run())
}

// TestFigures takes every one for a short time, and wants samples that can be.
func TestFigures(t *testing.T) {
	dir := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Files: true})
	groups := []string{GroupCalls, GroupFiles, GroupWork}
	r := Measure(Options{Time: 5 * time.Millisecond, Dir: dir, Groups: groups})
	var ids []string
	for _, f := range r.Figures {
		ids = append(ids, f.ID)
		if f.Error != "" || len(f.Samples) == 0 || !slices.Contains(groups, group(f.ID)) {
			t.Errorf("%s: %d samples, %s", f.ID, len(f.Samples), f.Error)
		}
	}
	if diff := cmp.Diff(IDs(), ids); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	again(t, r)
}

// again writes and reads a result.
func again(t *testing.T, r *Result) {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	again, err := got.Encode()
	if err != nil || string(again) != string(b) || strings.Count(string(b), "\n") != 1 {
		t.Errorf("it was written as %s and then as %s, %v", b, again, err)
	}
}

// TestUnmeasurable has figures that cannot be taken: they say so.
func TestUnmeasurable(t *testing.T) {
	r := Measure(Options{Time: time.Millisecond, Dir: filepath.Join(t.TempDir(), "missing"), Groups: []string{GroupFiles}})
	for _, f := range r.Figures {
		if len(f.Samples) != 0 || !strings.Contains(f.Error, "no such file or directory") {
			t.Errorf("%s: %v, %q", f.ID, f.Samples, f.Error)
		}
	}
	f := figure{id: "calls.spawn", unit: report.Seconds, each: 1, prepare: spawn}
	if got := f.measure(Options{Time: time.Millisecond}, "/missing"); len(got.Samples) != 0 || !strings.Contains(got.Error, "/missing") {
		t.Errorf("got %+v", got)
	}
	again(t, r)
}

// TestBudgetIsUsed: whoever gives a figure more time has more measured.
func TestBudgetIsUsed(t *testing.T) {
	for _, budget := range []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := figure{unit: report.Seconds, each: 1, prepare: func(*rig) (func(int) error, error) {
				return func(n int) error { time.Sleep(time.Duration(n) * 100 * time.Microsecond); return nil }, nil
			}}
			begin := time.Now()
			all, err := f.samples(&rig{budget: budget})
			if took := time.Since(begin); err != nil || len(all) > MaxSamples || took < budget || took > budget+budget/10 {
				t.Errorf("%v: %d samples in %v, %v", budget, len(all), took, err)
			}
		})
	}
}

// TestSamplesAreBounded has turns that cost nothing, and a budget that never ends.
func TestSamplesAreBounded(t *testing.T) {
	turns := 0
	f := figure{unit: report.PerSecond, each: 1, most: 8, prepare: func(*rig) (func(int) error, error) {
		return func(n int) error {
			if n > 8 {
				t.Fatalf("%d turns", n)
			}
			turns += n
			return nil
		}, nil
	}}
	all, err := f.samples(&rig{budget: time.Hour})
	if err != nil || len(all) > MaxSamples || turns > 8*(MaxSamples+4) {
		t.Errorf("%d samples, %d turns, %v", len(all), turns, err)
	}
}

func TestFeatureNames(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range features {
		if seen[f.name] || f.name == "" || f.call == "" || f.try == nil || report.CheckText(f.name, 40) != nil {
			t.Errorf("%q: twice, or something is missing", f.name)
		}
		seen[f.name] = true
	}
	if len(seen) < 40 {
		t.Errorf("%d features", len(seen))
	}
}

// TestDocumented finds every figure and every feature in the page about them.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/meter.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(b), " |", ",")
	for _, id := range IDs() {
		if !strings.Contains(page, "| `"+id+"`,") {
			t.Errorf("docs/meter.md does not have the figure %s", id)
		}
	}
	for _, name := range FeatureNames() {
		if !strings.Contains(page, " "+name+",") {
			t.Errorf("docs/meter.md does not have the feature %s", name)
		}
	}
}

// TestOtherAnswers asks programs that are not this one.
func TestOtherAnswers(t *testing.T) {
	dir := t.TempDir()
	f := feature{name: "statx", call: "statx"}
	for _, tt := range []struct{ script, call, errno string }{
		{"exit 0", "statx", Wrong},
		{"exit 3", "statx", Wrong},
		{"kill -KILL $$", "statx", "SIGKILL"},
		{"echo mount; echo EPERM", "mount", "EPERM"},
		{"echo statx; echo", "statx", ""},
		{"echo mount; head -c 100000 /dev/zero; echo", "statx", Wrong},
		{"echo mount; printf EPERM", "statx", Wrong},
	} {
		name := filepath.Join(dir, "program")
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := f.ask(dir, name, 0); got != (Feature{f.name, tt.call, tt.errno}) {
			t.Errorf("%s: %+v, want %s, %s", tt.script, got, tt.call, tt.errno)
		}
	}
	if got := f.ask(dir, "/missing", 0); got != (Feature{f.name, "clone", "ENOENT"}) {
		t.Errorf("/missing: %+v", got)
	}
}

// TestHanging has a feature and a figure that never end.
func TestHanging(t *testing.T) {
	dir := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}})
	defer func(d time.Duration) { patience = d }(patience)
	patience = 50 * time.Millisecond
	name := filepath.Join(dir, "program")
	if err := os.WriteFile(name, []byte("#!/bin/sh\nsleep 1000 & wait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	feature := feature{name: "statx", call: "statx"}
	if got := feature.ask(dir, name, 0); got != (Feature{"statx", "statx", Hangs}) {
		t.Errorf("got %+v", got)
	}
	end := make(chan struct{})
	defer close(end)
	figure := figure{id: "calls.getpid", unit: report.Seconds, each: 1, prepare: func(*rig) (func(int) error, error) {
		return func(int) error { <-end; return errors.New("it was ended") }, nil
	}}
	if got := figure.measure(Options{}, name); len(got.Samples) > 0 || !strings.Contains(got.Error, "did not end within") {
		t.Errorf("got %+v", got)
	}
}

func TestFacts(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"etc/os-release":                   "NAME=x\nPRETTY_NAME=\"Some \x1b System 1\"\n",
		"proc/1/comm":                      "init\n",
		"proc/self/status":                 "Name:\tx\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
		"proc/self/uid_map":                "         0     100000      65536\n",
		"proc/self/attr/current":           "docker-default (enforce)\n",
		"proc/meminfo":                     "MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:       1024 kB\n",
		"proc/cpuinfo":                     "model name\t: Some  CPU\nflags\t\t: fpu hypervisor sse\n",
		"proc/sys/kernel/random/boot_id":   "an-id\n",
		"proc/self/ns/not-a-link-and-long": "",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("pid:[123]", filepath.Join(root, "proc/self/ns/pid")); err != nil {
		t.Fatal(err)
	}
	got := look(root)
	want := Facts{
		Sysname: "Linux", Release: got.Release, Version: got.Version, Machine: got.Machine, PID: os.Getpid(), Processors: got.Processors,
		OS: "Some   System 1", Init: "init", Namespaces: map[string]string{"pid": "pid:[123]"}, Seccomp: "2", NoNewPrivs: "1",
		Capabilities: "00000000a80425fb", UIDMap: "0 100000 65536", Label: "docker-default (enforce)", Memory: 2 << 20, Available: 1 << 20,
		CPU: "Some CPU", BootID: "an-id", Hypervisor: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if got.Release == "" || got.Machine == "" || got.Processors < 1 {
		t.Errorf("got %+v", got)
	}
	empty := look(t.TempDir())
	if empty.OS != "" || empty.Memory != 0 || len(empty.Namespaces) != 0 || empty.BootID != "" || empty.Release == "" {
		t.Errorf("of nothing: %+v", empty)
	}
	again(t, &Result{Format: Format, Facts: got})
	again(t, &Result{Format: Format, Facts: empty})
}

const small = `{"format":1,"facts":{"sysname":"Linux","release":"6.1","version":"#1","machine":"x86_64","pid":1},` +
	`"figures":[{"id":"calls.getpid","unit":"s","samples":[1e-7,0.000002]},{"id":"files.write","unit":"bytes/s","error":"no room"}],` +
	`"features":[{"name":"bpf","call":"bpf","errno":"EPERM"},{"name":"statx","call":"statx"}]}`

func TestDecode(t *testing.T) {
	r, err := Decode([]byte(small + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Figures) != 2 || r.Figures[0].Samples[0] != 1e-7 || r.Features[0].Works() || !r.Features[1].Works() || r.Facts.PID != 1 {
		t.Errorf("got %+v", r)
	}
	many := strings.Repeat(",1", MaxSamples)
	for what, replace := range map[string][2]string{
		"another format":       {`"format":1`, `"format":2`},
		"an unknown field":     {`"format":1`, `"format":1,"more":1`},
		"a name in capitals":   {`"figures"`, `"Figures"`},
		"twice the field":      {`"pid":1`, `"pid":1,"pid":2`},
		"a negative PID":       {`"pid":1`, `"pid":-1`},
		"an unknown figure":    {`calls.getpid`, `calls.getppid`},
		"another unit":         {`"unit":"s"`, `"unit":"bytes"`},
		"a figure twice":       {`"files.write","unit":"bytes/s","error":"no room"`, `"calls.getpid","unit":"s","samples":[1]`},
		"too many samples":     {`0.000002`, "1" + many},
		"a negative sample":    {`0.000002`, "-1"},
		"a sample of nothing":  {`0.000002`, "0"},
		"a sample too large":   {`0.000002`, "1e999"},
		"samples and an error": {`0.000002]`, `0.000002],"error":"x"`},
		"neither":              {`,"error":"no room"`, ""},
		"an unknown feature":   {`"bpf"`, `"fpb"`},
		"a feature twice":      {`"name":"statx"`, `"name":"bpf"`},
		"a long text":          {"#1", strings.Repeat("x", maxText+1)},
		"a line in a text":     {"EPERM", `E\nPERM`},
		"an escape":            {"no room", `no \u001b[2Jroom`},
		"more behind it":       {`"call":"statx"}]}`, `"call":"statx"}]}{}`},
		"nothing":              {small, ""},
		"too much":             {`"format":1`, strings.Repeat(" ", MaxSize) + `"format":1`},
	} {
		s := strings.Replace(small, replace[0], replace[1], 1)
		if s == small {
			t.Fatalf("%s: nothing was replaced", what)
		}
		if r, err := Decode([]byte(s)); !errors.Is(err, report.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(`{"format":1,"facts":{"sysname":"","release":"","version":"","machine":"","pid":0,"namespaces":{"pid":"pid:[1]"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if !errors.Is(err, report.ErrMalformed) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Errorf("%s was read, and written as %s: %v", b, again, err)
		}
	})
}
