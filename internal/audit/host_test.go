package audit

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// files makes a machine's root of the files in pairs.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1] + "\n")}
	}
	return m
}

const (
	debian12 = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian"
	status   = "Package: runc\nStatus: install ok installed\nVersion: 1.1.5+ds1-1+deb12u1\n\n" +
		"Package: podman\nStatus: deinstall ok config-files\nVersion: 4.3.1+ds1-8\n\n" +
		"Package: qemu-system-x86\nStatus: install ok installed\nVersion: 1:7.2+dfsg-7+deb12u18"
)

// TestHost looks at two machines: one with every door shut, and one with every door
// open.
func TestHost(t *testing.T) {
	known, err := LoadAdvisories()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	shut := &Host{Now: now, Files: files(
		"proc/sys/kernel/osrelease", "6.1.0-57-amd64", "proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-10-02)",
		"sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected",
		"sys/devices/system/cpu/vulnerabilities/spectre_v2", "Mitigation: Enhanced / Automatic IBRS",
		"proc/sys/kernel/unprivileged_bpf_disabled", "2", "proc/sys/kernel/kptr_restrict", "1", "proc/sys/kernel/dmesg_restrict", "1",
		"proc/sys/kernel/yama/ptrace_scope", "1", "proc/sys/kernel/perf_event_paranoid", "3", "proc/sys/net/core/bpf_jit_harden", "2",
		"proc/sys/kernel/unprivileged_userns_clone", "0", "sys/kernel/security/lockdown", "none [integrity] confidentiality",
		"sys/kernel/mm/ksm/run", "0", "sys/devices/system/cpu/smt/active", "0",
		"proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100",
	), Products: []Product{{Name: "runc", Version: "1.3.3", Path: "/usr/local/sbin/runc"}, {Name: "runsc", Version: "v0.0.0-20260905035102-160fafc42237"}, {Name: "youki", Version: "0.5.5"}}}
	r := JudgeHost(shut, known, "again")
	if got := notable(r); got != nil {
		t.Errorf("shut: %v", got)
	}
	if len(r.Untested) != 1 || !strings.Contains(r.Untested[0].What, "youki") {
		t.Errorf("a program without advisories: %v", r.Untested)
	}

	open := &Host{Now: now, Files: files(
		"etc/os-release", debian12, "var/lib/dpkg/status", status,
		"proc/sys/kernel/osrelease", "6.6.100", "proc/sys/kernel/version", "#1 SMP Fri Jan  2 10:00:00 UTC 2026",
		"sys/devices/system/cpu/vulnerabilities/meltdown", "Vulnerable",
		"sys/devices/system/cpu/vulnerabilities/mds", "Mitigation: Clear CPU buffers; SMT vulnerable",
		"sys/devices/system/cpu/vulnerabilities/itlb_multihit", "KVM: Vulnerable",
		"sys/devices/system/cpu/vulnerabilities/tsa", "Something new",
		"proc/sys/kernel/unprivileged_bpf_disabled", "0", "proc/sys/kernel/kptr_restrict", "0", "proc/sys/kernel/dmesg_restrict", "x",
		"proc/sys/kernel/yama/ptrace_scope", "0", "proc/sys/kernel/perf_event_paranoid", "1", "proc/sys/net/core/bpf_jit_harden", "0",
		"proc/sys/kernel/unprivileged_userns_clone", "1", "sys/kernel/security/lockdown", "[none] integrity confidentiality",
		"sys/kernel/mm/ksm/run", "1", "sys/devices/system/cpu/smt/active", "1", "proc/swaps", "Filename Type\n/dev/vdb partition 1 0 -2",
	), Products: []Product{
		{Name: "runc", Version: "1.1.5+ds1", Path: "/usr/sbin/runc"},
		{Name: "crun", Version: "1.8", Path: "/usr/local/bin/crun"},
		{Name: "podman", Version: "4.3.1", Path: "/usr/bin/podman", Failed: "it hangs"},
		{Name: "qemu", Version: "7.2.22", Path: "/usr/bin/qemu-system-x86_64"},
	}}
	got := notable(JudgeHost(open, known, "again"))
	slices.Sort(got)
	want := []string{
		"leaked critical advisories.linux.cve-2026-31431", "leaked high advisories.crun.cve-2025-24965", "leaked high cpu.itlb-multihit",
		"leaked high cpu.meltdown", "leaked low host.jit", "leaked low host.kptr", "leaked low host.lockdown", "leaked low host.perf",
		"leaked low host.ptrace", "leaked low host.userns", "leaked medium cpu.mds", "leaked medium host.bpf", "leaked medium host.ksm",
		"leaked medium host.smt", "leaked medium host.swap", "leaked medium kernel.age",
		"unknown critical advisories.runc.cve-2025-31133", "unknown critical advisories.runc.cve-2025-52565",
		"unknown critical advisories.runc.cve-2025-52881", "unknown high advisories.podman.cve-2025-9566", "unknown high cpu.tsa",
		"unknown low advisories.qemu.cve-2024-26328", "unknown low advisories.runc.cve-2024-45310", "unknown low host.dmesg",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("open (-want +got):\n%s", diff)
	}
	open.Untested = []report.Untested{{What: "containers of docker", Why: strings.Repeat("why ", 1000)}}
	for _, r := range []report.Report{JudgeHost(open, known, "again"), JudgeHost(&Host{Files: files(), Now: now}, known, "")} {
		d := report.Document{Format: report.Format, Kind: report.Audit, Time: now, Reports: []report.Report{r}}
		if _, err := d.Encode(); err != nil {
			t.Error(err)
		}
	}
}

// TestVulnerability takes what the kernel says (arch/x86/kernel/cpu/bugs.c, and arm64's
// proton-pack.c) for what it means.
func TestVulnerability(t *testing.T) {
	const open, smt, held, unknown = "leaked high", "leaked medium", "held high", "unknown high"
	for text, want := range map[string]string{
		"Not affected":    held,
		"Mitigation: PTI": held,
		"Vulnerable":      open,
		"Something new":   unknown,
		"":                unknown,
		"Unknown: Dependent on hypervisor status": unknown,
		"Unknown: No mitigations":                 unknown,
		// L1TF: whether a guest's view of the first cache is shut depends on its last parts.
		"Mitigation: PTE Inversion":                                                 held,
		"Mitigation: PTE Inversion; VMX: vulnerable":                                open,
		"Mitigation: PTE Inversion; VMX: vulnerable, SMT disabled":                  open,
		"Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable": smt,
		"Mitigation: PTE Inversion; VMX: cache flushes, SMT disabled":               held,
		"Mitigation: PTE Inversion; VMX: flush not necessary, SMT disabled":         held,
		"Mitigation: PTE Inversion; VMX: EPT disabled":                              held,
		// MDS and its like.
		"Mitigation: Clear CPU buffers; SMT vulnerable":                         smt,
		"Mitigation: Clear CPU buffers; SMT mitigated":                          held,
		"Vulnerable: Clear CPU buffers attempted, no microcode; SMT vulnerable": open,
		"Mitigation: untrained return thunk; SMT enabled with STIBP protection": held,
		"Mitigation: SMT disabled":                                              held,
		"Vulnerable: Safe RET, no microcode":                                    open,
		// Spectre v2: each part has a word of its own.
		"Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; STIBP: always-on; PBRSB-eIBRS: Not affected; BHI: Not affected": held,
		"Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: BHI_DIS_S":                       held,
		"Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: Vulnerable; BHI: BHI_DIS_S":                        open,
		"Mitigation: Enhanced IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: Vulnerable":                                  open,
		"Mitigation: Enhanced IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: Vulnerable, KVM: SW loop":                    open,
		"Mitigation: Retpolines, IBPB: conditional, IBRS_FW, STIBP: conditional, RSB filling, PBRSB-eIBRS: Vulnerable":             open,
		"Mitigation: Retpolines, IBPB: conditional, IBRS_FW, STIBP: conditional, RSB filling":                                      held,
		"Vulnerable: CSV2, but not BHB": open,
		"Mitigation: CSV2, BHB":         held,
		// ITS: of the kernel, not of its guests.
		"Mitigation: Vulnerable, KVM: Not affected": open,
		// iTLB multihit is a matter of KVM; a kernel without it says what the processor is.
		"KVM: Mitigation: Split huge pages": held,
		"KVM: Mitigation: VMX disabled":     held,
		"KVM: Mitigation: VMX unsupported":  held,
		"KVM: Vulnerable":                   open,
		"Processor vulnerable":              unknown,
	} {
		r := JudgeHost(&Host{Files: files("sys/devices/system/cpu/vulnerabilities/x", text)}, &Advisories{}, "")
		for _, f := range r.Findings {
			if f.ID != "cpu.x" {
				continue
			}
			if got := fmt.Sprintf("%s %s", f.Verdict, f.Severity); got != want {
				t.Errorf("%q: %s, want %s", text, got, want)
			}
			if f.Verdict.Open() && strings.Contains(f.Fix, "SMT") != (want == smt) {
				t.Errorf("%q: fix %q", text, f.Fix)
			}
		}
	}
}

// refusing is a root whose files exist and cannot be read.
type refusing struct{}

func (refusing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// TestHostUnreadable: what cannot be read is no pass.
func TestHostUnreadable(t *testing.T) {
	r := JudgeHost(&Host{Files: refusing{}}, &Advisories{}, "")
	for _, f := range r.Findings {
		if f.Verdict != report.Unknown {
			t.Errorf("%s: %s, want unknown", f.ID, f.Verdict)
		}
	}
	if len(r.Findings) < 10 {
		t.Errorf("%d findings only", len(r.Findings))
	}
}

// TestAdvisories holds the data to what the rules need of it, and each entry to
// being open before its first fix and shut at each.
func TestAdvisories(t *testing.T) {
	known, err := LoadAdvisories()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.DateOnly, known.Date); err != nil {
		t.Error(err)
	}
	ids := map[string]bool{}
	for _, e := range known.Entries {
		t.Run(e.Product+" "+e.ID, func(t *testing.T) {
			if ids[e.Product+e.ID] || !strings.HasPrefix(e.ID, "CVE-") || e.Enables == "" || !strings.HasPrefix(e.Source, "https://") || len(e.Fixed) == 0 {
				t.Errorf("incomplete, or there twice: %+v", e)
			}
			ids[e.Product+e.ID] = true
			if f := e.finding(Product{Name: e.Product}); report.CheckID(f.ID) != nil || f.Severity == "" {
				t.Errorf("its finding is %+v", f)
			}
			for _, s := range append([]string{e.Introduced}, e.Fixed...) {
				if _, ok := parseVersion(s); !ok && s != "" {
					t.Errorf("%q is no version", s)
				}
			}
			for _, fixed := range e.Fixed {
				if a := e.judge(Product{Version: fixed}, ""); a.verdict != report.Held {
					t.Errorf("%s is %s", fixed, a.verdict)
				}
			}
			if e.Introduced != "" {
				if a := e.judge(Product{Version: e.Introduced}, ""); a.verdict != report.Leaked {
					t.Errorf("introduced in %s, where it is %s", e.Introduced, a.verdict)
				}
			}
			if a := e.judge(Product{Version: "99990101.0"}, ""); a.verdict != report.Held {
				t.Errorf("a later branch is %s", a.verdict)
			}
		})
	}
}

func TestAdvisoryBranches(t *testing.T) {
	e := Advisory{Introduced: "1.0.0", Fixed: []string{"1.2.8", "1.3.3", "1.4.0-rc.3"}, Debian: map[string]string{"12": "1.1.5-1+deb12u2"}}
	for _, tt := range []struct {
		product Product
		debian  string
		want    report.Verdict
	}{
		{Product{Version: "0.9"}, "", report.Held},
		{Product{Version: "1.1.15"}, "", report.Leaked}, // a branch that was never fixed
		{Product{Version: "1.2.7"}, "", report.Leaked},
		{Product{Version: "1.2.8"}, "", report.Held},
		{Product{Version: "1.3.2"}, "", report.Leaked},
		{Product{Version: "1.4.0-rc.2"}, "", report.Leaked},
		{Product{Version: "v1.4.0"}, "", report.Held},
		{Product{Version: "1.5.0"}, "", report.Held},
		{Product{Version: "what"}, "", report.Unknown},
		{Product{Failed: "no"}, "", report.Unknown},
		{Product{Version: "1.1.5", Foreign: true}, "", report.Unknown},
		{Product{Version: "1.1.5", Package: "1.1.5-1+deb12u1"}, "12", report.Leaked},
		{Product{Version: "1.1.5", Package: "1.1.5-1+deb12u2"}, "12", report.Held},
		{Product{Version: "1.1.5", Package: "1.1.5-1+deb13u9"}, "13", report.Unknown},
	} {
		if got := e.judge(tt.product, tt.debian); got.verdict != tt.want {
			t.Errorf("%+v on Debian %q: %s, want %s", tt.product, tt.debian, got.verdict, tt.want)
		}
	}
}

// TestWhoseVersion: a version below the fix is open where it is upstream's own, and
// unknown where a distribution may have added the fix.
func TestWhoseVersion(t *testing.T) {
	known, err := LoadAdvisories()
	if err != nil {
		t.Fatal(err)
	}
	verdict := func(h *Host, id string) report.Verdict {
		for _, f := range JudgeHost(h, known, "").Findings {
			if f.ID == id {
				return f.Verdict
			}
		}
		t.Fatalf("no %s", id)
		return ""
	}
	const ubuntu = "#49-Ubuntu SMP PREEMPT_DYNAMIC Tue Oct 13 10:00:00 UTC 2026"
	for _, tt := range []struct {
		release, build string
		want           report.Verdict
	}{
		{"6.8.0-48-generic", ubuntu, report.Unknown},
		{"6.8.0-48-generic-64k", ubuntu, report.Unknown},
		{"6.8.0-48-lowlatency", "#48.1~22.04.1-Ubuntu SMP PREEMPT_DYNAMIC Tue Oct 13 10:00:00 UTC 2026", report.Unknown},
		{"6.8.0-1014-oracle", ubuntu, report.Unknown},
		{"6.8.0-1014-raspi", ubuntu, report.Unknown},
		{"6.8.0-1014-oem", ubuntu, report.Unknown},
		{"6.8.0-1014-kvm", ubuntu, report.Unknown},
		{"6.8.12-4-pve", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-4 (2026-10-02T10:00Z)", report.Unknown},
		{"5.14.0-503.el9.x86_64", "#1 SMP PREEMPT_DYNAMIC Tue Oct 13 10:00:00 UTC 2026", report.Unknown},
		{"6.6.100", "#1 SMP Tue Oct 13 10:00:00 UTC 2026", report.Leaked},
		{"6.6.100-custom", "#1 SMP me@Ubuntu Tue Oct 13 10:00:00 UTC 2026", report.Leaked},
	} {
		h := &Host{Files: files("proc/sys/kernel/osrelease", tt.release, "proc/sys/kernel/version", tt.build)}
		if got := verdict(h, "advisories.linux.cve-2026-31431"); got != tt.want {
			t.Errorf("%s, %s: %s, want %s", tt.release, tt.build, got, tt.want)
		}
	}

	const packages = "Package: runc\nStatus: install ok installed\nVersion: 99.1-1\n\nPackage: qemu-system-x86\nStatus: install ok installed\nVersion: 1:7.2-1"
	for path, want := range map[string]report.Verdict{
		"/usr/bin/runc": report.Unknown, "/usr/sbin/runc": report.Unknown, "/sbin/runc": report.Unknown, "/usr/lib/cri-o-runc/sbin/runc": report.Unknown,
		"/usr/libexec/runc": report.Unknown, "/usr/local/bin/runc": report.Leaked, "/opt/bin/runc": report.Leaked, "/root/bin/runc": report.Leaked,
		"/snap/docker/current/bin/runc": report.Leaked, "/usr/binary/runc": report.Leaked,
	} {
		h := &Host{Files: files("var/lib/dpkg/status", packages), Products: []Product{{Name: "runc", Version: "1.1.0", Path: path}}}
		if got := verdict(h, "advisories.runc.cve-2024-21626"); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestDebianCompare(t *testing.T) {
	// In order, as dpkg --compare-versions has it.
	ordered := []string{
		"1.0.0~rc93+ds1-5+deb11u3", "1.0.0+ds1-1", "1.1.5-1", "1.1.5+ds1-1", "1.1.5+ds1-1+b1", "1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1+deb12u10",
		"1.1.12-1", "1:0.1-1",
	}
	for i := 1; i < len(ordered); i++ {
		if a, b := ordered[i-1], ordered[i]; debianCompare(a, b) >= 0 || debianCompare(b, a) <= 0 || debianCompare(a, a) != 0 {
			t.Errorf("%s is not before %s", a, b)
		}
	}
}

func TestBuildDate(t *testing.T) {
	for s, want := range map[string]string{
		"#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)":    "2025-05-22",
		"#1 SMP PREEMPT_DYNAMIC Fri Oct  2 10:00:00 UTC 2026":     "2026-10-02",
		"#42-Ubuntu SMP PREEMPT_DYNAMIC Tue Oct 13 UTC (not one)": "",
		"#1 SMP PREEMPT_DYNAMIC @0":                               "",
		"":                                                        "",
	} {
		got := ""
		if d, ok := buildDate(s); ok {
			got = d.Format(time.DateOnly)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// FuzzHost: no file of the machine, be it a container's idea of one, breaks it.
func FuzzHost(f *testing.F) {
	f.Add("#1 SMP Debian 6.1.140-1 (2025-05-22)", "Mitigation: x", "1", status, "1.1.5+ds1")
	f.Fuzz(func(t *testing.T, build, vulnerability, number, status, version string) {
		known, err := LoadAdvisories()
		if err != nil {
			t.Fatal(err)
		}
		h := &Host{Files: files("proc/sys/kernel/version", build, "proc/sys/kernel/osrelease", version, "sys/devices/system/cpu/vulnerabilities/mds", vulnerability,
			"proc/sys/kernel/kptr_restrict", number, "proc/swaps", build, "var/lib/dpkg/status", status, "etc/os-release", debian12),
			Products: []Product{{Name: "runc", Version: version, Path: "/usr/sbin/runc"}}}
		d := report.Document{Format: report.Format, Kind: report.Audit, Reports: []report.Report{JudgeHost(h, known, "")}}
		if _, err := d.Encode(); err != nil {
			t.Error(err)
		}
		if a, b := debianCompare(version, number), debianCompare(number, version); (a < 0) != (b > 0) {
			t.Errorf("%q and %q: %d and %d", version, number, a, b)
		}
	})
}

// TestSentryVersions: gVisor's versions are days, of a release or of a commit.
func TestSentryVersions(t *testing.T) {
	a := Advisory{Product: "runsc", Fixed: []string{"20260824.0"}}
	for version, want := range map[string]report.Verdict{
		"20260817.0": report.Leaked, "20260824.0": report.Held, "20260824.1": report.Held, "20261116.0": report.Held, "20251215.0": report.Leaked,
		"v0.0.0-20260905035102-160fafc42237": report.Held, "v0.0.0-20260817235959-160fafc42237": report.Leaked,
		"v0.0.0-160fafc42237": report.Unknown, "VERSION_MISSING": report.Unknown, "": report.Unknown,
	} {
		if got := a.judge(Product{Name: "runsc", Version: version, Path: "/usr/local/bin/runsc"}, ""); got.verdict != want {
			t.Errorf("%s: got %v, want %v", version, got.verdict, want)
		}
	}
}

// TestUnseen: containers that could not be looked at are unknown, whatever severity counts.
func TestUnseen(t *testing.T) {
	h := &Host{Files: fstest.MapFS{}, Unseen: []Unseen{{Kind: Docker, Why: "the daemon does not answer"}}}
	r := JudgeHost(h, &Advisories{}, "")
	r.Findings = slices.DeleteFunc(r.Findings, func(f report.Finding) bool { return f.ID != "host.containers-docker" })
	d := report.Document{Reports: []report.Report{r}, Threshold: report.Critical}
	if len(r.Findings) != 1 || d.ExitCode() != report.ExitInconclusive || !strings.Contains(r.Findings[0].Reason, "does not answer") {
		t.Errorf("exit code %d, %+v", d.ExitCode(), r.Findings)
	}
}
