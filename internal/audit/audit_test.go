package audit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// expectation is a section of testdata/expected.txt.
type expectation struct {
	name  string
	lines []string // "leaked high files.host", sorted
}

func expectations(t *testing.T) (out []expectation) {
	t.Helper()
	f, err := os.Open("testdata/expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, reason, _ := strings.Cut(s.Text(), ": ")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			out = append(out, expectation{name: strings.Trim(line, "[]")})
		case reason == "":
			t.Fatalf("no reason: %s", line)
		default:
			e := &out[len(out)-1]
			e.lines = append(e.lines, line)
		}
	}
	return out
}

// engines are the defaults of those that made the configurations.
func engine(t *testing.T, kind Kind, name string) *Engine {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".info.json"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseEngine(kind, b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// load parses the configuration in a directory of testdata.
func load(t *testing.T, name string) *Config {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", name, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %d files, want one: %v", name, len(files), err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var list []*Config
	switch {
	case filepath.Base(files[0]) == "config.json":
		c, err := ParseOCI(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Target = "config.json"
		return c
	case strings.HasPrefix(name, "docker-20"):
		list, err = ParseDocker(b, engine(t, Docker, "docker-20"))
	case strings.HasPrefix(name, "docker"):
		list, err = ParseDocker(b, engine(t, Docker, "docker-28"))
	case strings.HasPrefix(name, "podman"):
		list, err = ParsePodman(b, engine(t, Podman, "podman"))
	default:
		list, err = ParseWorkload(b)
	}
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %d configurations, %v", name, len(list), err)
	}
	return list[0]
}

// notable are the findings of a report that a person has to see.
func notable(r report.Report) (out []string) {
	for _, f := range r.Findings {
		if f.Verdict.Open() || f.Verdict == report.Unknown {
			out = append(out, fmt.Sprintf("%s %s %s", f.Verdict, f.Severity, f.ID))
		}
	}
	return out
}

// handChecked is how many there are, as SPECIFICATION.md says.
const handChecked = 34

// TestConfigurations compares what the rules find in real configurations with what
// a person found: no finding too many, none missing.
func TestConfigurations(t *testing.T) {
	all := expectations(t)
	if len(all) != handChecked {
		t.Fatalf("%d configurations, want %d", len(all), handChecked)
	}
	document := report.Document{Format: report.Format, Kind: report.Audit, Tool: "test", Time: time.Unix(0, 0).UTC()}
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			r := Judge(load(t, e.name), "bulkhead audit")
			got := notable(r)
			slices.Sort(got)
			want := slices.Sorted(slices.Values(e.lines))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			for _, f := range r.Findings {
				if len(f.Evidence) == 0 && f.Verdict != report.NotApplicable {
					t.Errorf("%s: %s without evidence", f.ID, f.Verdict)
				}
				if f.Verdict.Open() && (f.Fix == "" || f.Enables == "" || strings.Contains(f.Fix, "%s")) {
					t.Errorf("%s: fix %q, enables %q", f.ID, f.Fix, f.Enables)
				}
			}
			r.Subject.Label = e.name
			document.Reports = append(document.Reports, r)
		})
	}
	if _, err := document.Encode(); err != nil {
		t.Error(err)
	}
}

// TestPrivilegedFix: what --privileged opened is shut by leaving it out, and what
// has an option of its own by that option.
func TestPrivilegedFix(t *testing.T) {
	for _, f := range Judge(load(t, "docker-worst"), "").Findings {
		one := f.Fix == "leave out --privileged"
		switch f.ID {
		case "capabilities.dangerous", "devices.nodes", "devices.rules", "syscalls.seccomp", "proc.paths", "lsm.profile":
			if !one {
				t.Errorf("%s: %q", f.ID, f.Fix)
			}
		case "files.socket", "namespaces.pid", "limits.memory", "privileges.root", "privileges.privileged":
			if one {
				t.Errorf("%s: %q", f.ID, f.Fix)
			}
		}
	}
}

// TestNothingSaid: what a configuration does not say is never a pass.
func TestNothingSaid(t *testing.T) {
	for _, kind := range []Kind{Bulkhead, Docker, Podman} {
		r := Judge(&Config{Kind: kind, Name: "x"}, "")
		for _, f := range r.Findings {
			if f.Verdict != report.Unknown && f.Verdict != report.NotApplicable {
				t.Errorf("%s %s: %s, want unknown", kind, f.ID, f.Verdict)
			}
		}
	}
}

// TestTakenAway removes each member of HostConfig that a rule reads: no door that
// was unknown or open becomes held by that.
func TestTakenAway(t *testing.T) {
	b, err := os.ReadFile("testdata/docker-worst/inspect.json")
	if err != nil {
		t.Fatal(err)
	}
	judge := func(text string) map[string]report.Verdict {
		list, err := ParseDocker([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		verdicts := map[string]report.Verdict{}
		for _, f := range Judge(list[0], "").Findings {
			verdicts[f.ID] = f.Verdict
		}
		return verdicts
	}
	whole := judge(string(b))
	for _, name := range []string{"Privileged", "PidMode", "NetworkMode", "IpcMode", "UTSMode", "MaskedPaths", "ReadonlyPaths", "Memory", "ReadonlyRootfs", "CapAdd", "SecurityOpt", "User", "Mounts"} {
		text := strings.ReplaceAll(string(b), `"`+name+`"`, `"X`+name+`"`)
		if text == string(b) {
			t.Fatalf("no %s", name)
		}
		changed := false
		for id, v := range judge(text) {
			changed = changed || v == report.Unknown && whole[id] != v
			if v == report.Held && whole[id] != v {
				t.Errorf("without %s, %s is held", name, id)
			}
		}
		if !changed && !slices.Contains([]string{"MaskedPaths", "ReadonlyPaths", "CapAdd", "SecurityOpt"}, name) { // a privileged one needs none
			t.Errorf("without %s nothing is unknown", name)
		}
	}
}

// TestDefaultContainer: what our own default leaves open, and nothing above medium.
func TestDefaultContainer(t *testing.T) {
	b, err := os.ReadFile("testdata/bulkhead-default/inspect.json")
	if err != nil {
		t.Fatal(err)
	}
	var inspected []struct{ Spec workload.Spec }
	if err := json.Unmarshal(b, &inspected); err != nil {
		t.Fatal(err)
	}
	usual := []string{"leaked medium limits.memory", "leaked medium limits.cpu", "leaked low files.root", "leaked low privileges.root"}
	for _, tt := range []struct {
		name  string
		facts Facts
		set   func(*workload.Spec)
		want  []string
	}{
		{"with AppArmor", Facts{AppArmor: said(true)}, func(*workload.Spec) {}, usual},
		{"without AppArmor", Facts{AppArmor: said(false)}, func(*workload.Spec) {},
			[]string{usual[0], usual[1], "leaked medium lsm.profile", usual[2], usual[3]}},
		{"behind gvisor", Facts{AppArmor: said(true)}, func(s *workload.Spec) { s.Boundary = "gvisor" },
			usual},
		{"behind gvisor, unmasked", Facts{AppArmor: said(false)}, func(s *workload.Spec) { s.Boundary, s.Security.Unmask = "gvisor", []string{"ALL"} },
			usual},
		{"by crun", Facts{AppArmor: said(true)}, func(s *workload.Spec) {
			s.Boundary, s.Runtime = workload.BoundaryRuntime, workload.Runtime{Name: "fast", Path: "/usr/bin/crun"}
		}, usual},
		{"by Kata", Facts{AppArmor: said(true)}, func(s *workload.Spec) {
			s.Boundary, s.Runtime = workload.BoundaryRuntime, workload.Runtime{Name: "kata", Path: "/opt/kata/bin/kata-runtime"}
		}, []string{usual[2], usual[3], "unknown high vm.emulated", "unknown medium vm.monitor"}},
		{"on hardware virtualization", Facts{Accel: "kvm"}, func(s *workload.Spec) { s.Boundary = "vm" },
			[]string{usual[2], usual[3], "unknown low lsm.profile"}},
		{"in a loose machine", Facts{Accel: "kvm", Running: true, Monitor: said(Monitor{Root: true, Filtered: true, Jailed: true})}, func(s *workload.Spec) { s.Boundary = "vm" },
			[]string{"leaked medium vm.monitor", usual[2], usual[3], "unknown low lsm.profile"}},
		{"nobody looked at the machine", Facts{Accel: "kvm", Running: true}, func(s *workload.Spec) { s.Boundary = "vm" },
			[]string{usual[2], usual[3], "unknown low lsm.profile", "unknown medium vm.monitor"}},
	} {
		s := inspected[0].Spec
		tt.set(&s)
		if diff := cmp.Diff(tt.want, notable(Judge(Workload(s, tt.facts), ""))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestWeigh: what is worst on a shared kernel counts less behind each further
// boundary, and what leads past a boundary as much.
func TestWeigh(t *testing.T) {
	for _, tt := range []struct {
		s        report.Severity
		r        reach
		b        Boundary
		emulated bool
		want     report.Severity
	}{
		{report.Critical, kernel, SharedKernel, false, report.Critical},
		{report.Critical, kernel, UserKernel, false, report.Medium},
		{report.Critical, kernel, TenantVM, false, report.Medium},
		{report.Critical, kernel, OwnVM, false, report.Low},
		{report.Critical, kernel, OwnVM, true, report.Medium},
		{report.Medium, kernel, OwnVM, true, report.Low},
		{report.Medium, kernel, TenantVM, false, report.Low},
		{report.Critical, host, OwnVM, false, report.Critical},
		{report.High, machine, OwnVM, true, report.High},
	} {
		got, c := weigh(tt.s, report.Takeover, tt.r, tt.b, tt.emulated)
		if got != tt.want {
			t.Errorf("%s behind %s: %s, want %s", tt.s, tt.b, got, tt.want)
		}
		if tt.r == kernel && tt.b != SharedKernel && c == report.Takeover {
			t.Errorf("%s behind %s takes over the host", tt.s, tt.b)
		}
	}
}

// TestPrivilegedByRuntime: the same container behind three kinds of runtime.
func TestPrivilegedByRuntime(t *testing.T) {
	b, err := os.ReadFile("testdata/docker-worst/inspect.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		runtime  string
		boundary Boundary
		severity report.Severity // of privileged
		guess    bool
	}{
		{"runc", SharedKernel, report.Critical, false},
		{"/usr/local/bin/runsc", UserKernel, report.Medium, false},
		{"io.containerd.kata.v2", OwnVM, report.Low, false},
		{"mystery", SharedKernel, report.Critical, true},
	} {
		list, err := ParseDocker([]byte(strings.Replace(string(b), `"Runtime": "runc"`, `"Runtime": "`+tt.runtime+`"`, 1)), engine(t, Docker, "docker-28"))
		if err != nil {
			t.Fatal(err)
		}
		r := Judge(list[0], "")
		if list[0].Boundary != tt.boundary || (r.Subject.Note != "") != tt.guess {
			t.Errorf("%s: boundary %s, note %q", tt.runtime, list[0].Boundary, r.Subject.Note)
		}
		for _, f := range r.Findings {
			switch {
			case f.ID == "privileges.privileged" && f.Severity != tt.severity:
				t.Errorf("%s: privileged is %s, want %s", tt.runtime, f.Severity, tt.severity)
			case f.ID == "files.host" && f.Severity != report.Critical:
				t.Errorf("%s: /:/host is %s", tt.runtime, f.Severity)
			case f.ID == "files.socket" && f.Verdict.Open() != (tt.boundary == SharedKernel):
				t.Errorf("%s: the socket is %s", tt.runtime, f.Verdict)
			}
		}
	}
}

func TestTweak(t *testing.T) {
	for _, tt := range []struct {
		add, drop  string
		have, lack string
	}{
		{"", "", "CAP_NET_RAW", "CAP_SYS_ADMIN"},
		{"sys_admin", "", "CAP_SYS_ADMIN CAP_NET_RAW", ""},
		{"", "ALL", "", "CAP_CHOWN"},
		{"CAP_CHOWN", "all", "CAP_CHOWN", "CAP_KILL"},
		{"ALL", "NET_RAW", "CAP_SYS_ADMIN", "CAP_NET_RAW"},
		{"ALL", "ALL", "CAP_SYS_ADMIN", ""},
		{"", "CHOWN", "CAP_KILL", "CAP_CHOWN"},
	} {
		got := tweak(dockerCaps, strings.Fields(tt.add), strings.Fields(tt.drop))
		for _, c := range strings.Fields(tt.have) {
			if !slices.Contains(got, c) {
				t.Errorf("+%s -%s: no %s in %v", tt.add, tt.drop, c, got)
			}
		}
		for _, c := range strings.Fields(tt.lack) {
			if slices.Contains(got, c) {
				t.Errorf("+%s -%s: %s in %v", tt.add, tt.drop, c, got)
			}
		}
	}
}

func TestVersions(t *testing.T) {
	ordered := []string{"1.0.0-rc7", "1.0.0-rc.95", "1.0.0", "1.1.5+ds1", "1.1.12", "1.2.0-rc.3", "1.2.0", "29.4.1", "29.4.2"}
	for i := 1; i < len(ordered); i++ {
		a, okA := parseVersion(ordered[i-1])
		b, okB := parseVersion(ordered[i])
		if !okA || !okB || a.compare(b) >= 0 || b.compare(a) <= 0 {
			t.Errorf("%s is not before %s", ordered[i-1], ordered[i])
		}
	}
	for _, bad := range []string{"", "x", "-1", "1..2", "1.9999999999", "v"} {
		if v, ok := parseVersion(bad); ok {
			t.Errorf("%q is a version: %v", bad, v)
		}
	}
}
