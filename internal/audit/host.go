package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Host is a machine that workloads run on.
type Host struct {
	// Files is its root: below it are proc, sys, etc and var.
	Files    fs.FS
	Now      time.Time
	Products []Product // but the kernel, which Files tells of
	// Untested is what nobody looked at, such as an engine that is not installed.
	Untested []report.Untested
	// Unseen are engines with containers that nobody could look at, though asked to.
	Unseen []Unseen
}

// Unseen is an engine, and why its containers were not looked at.
type Unseen struct {
	Kind Kind
	Why  string
}

// finding is unknown, without a severity: what is open in there is open to anything.
func (u Unseen) finding() (report.Finding, answer) {
	return report.Finding{
		ID: "host.containers-" + string(u.Kind), Door: "containers of " + string(u.Kind), Consequence: report.Takeover,
		Expected: "every container was looked at",
	}, unknown("they were not all looked at: " + u.Why)
}

// maxHostFile bounds a file of the host that is read; dpkg's status is the largest.
const maxHostFile = 32 << 20

// read returns a file without the white space around it.
func (h *Host) read(name string) (string, error) {
	f, err := h.Files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHostFile))
	return strings.TrimSpace(string(b)), err
}

// JudgeHost looks at a machine.
func JudgeHost(h *Host, a *Advisories, recheck string) report.Report {
	r := report.Report{Subject: report.Subject{Label: "host", Boundary: report.Host, Note: "advisories are those known on " + a.Date}}
	kernel := h.kernel()
	r.Subject.Kernel, r.Subject.HostKernel = kernel.Version, kernel.Version
	add := func(f report.Finding, a answer) {
		f.Verdict, f.Observed, f.Reason, f.Evidence = a.verdict, a.observed, a.reason, a.evidence
		if a.severity != "" {
			f.Severity = a.severity
		}
		if a.verdict.Open() {
			f.Recheck = recheck
			if a.detail != "" {
				f.Fix = a.detail
			}
		} else {
			f.Enables, f.Fix, f.Breaks = "", "", ""
		}
		r.Findings = append(r.Findings, f)
	}
	add(kernelAge(h))
	for _, f := range h.vulnerabilities() {
		add(f.finding, f.answer)
	}
	for _, s := range settings {
		f := report.Finding{
			ID: "host." + s.id, Door: s.door, Severity: s.severity, Consequence: s.consequence, Expected: s.expected,
			Enables: s.enables, Fix: s.fix, Breaks: s.breaks, References: s.references,
		}
		add(f, s.check(h))
	}
	debian := h.debianRelease()
	for _, p := range append([]Product{kernel}, h.packaged()...) {
		for i := range a.Entries {
			if e := &a.Entries[i]; e.Product == p.Name {
				add(e.finding(p), e.judge(p, debian))
			}
		}
	}
	for _, u := range h.Unseen {
		add(u.finding())
	}
	r.Untested = h.Untested
	for _, p := range h.Products {
		if !slices.ContainsFunc(a.Entries, func(e Advisory) bool { return e.Product == p.Name }) {
			r.Untested = append(r.Untested, report.Untested{What: p.Name + " " + p.Version, Why: "the project knows no advisory of it"})
		}
	}
	arrange(&r)
	return r
}

func (a *Advisory) finding(p Product) report.Finding {
	c := report.Depth
	switch a.Severity {
	case report.Critical:
		c = report.Takeover
	case report.High:
		c = report.Disturbs
	}
	return report.Finding{
		ID: "advisories." + p.Name + "." + strings.ToLower(a.ID), Door: a.ID + " in " + p.Name, Severity: a.Severity, Consequence: c,
		Expected: "one of " + strings.Join(a.Fixed, ", ") + ", or later in its branch", Enables: a.Enables,
		Fix: "upgrade " + p.Name, Breaks: "nothing that the project promises", References: []string{a.ID, a.Source},
	}
}

// kernel is the running kernel as a product. A Debian kernel tells the upstream
// version that it is made of by its package, and not by its release.
func (h *Host) kernel() Product {
	p := Product{Name: "linux", Path: "/proc/sys/kernel/osrelease"}
	release, err := h.read("proc/sys/kernel/osrelease")
	if err != nil {
		p.Failed = "the release could not be read: " + err.Error()
		return p
	}
	p.Version = release
	build, _ := h.read("proc/sys/kernel/version")
	if _, after, ok := strings.Cut(build, " Debian "); ok {
		p.Version, _, _ = strings.Cut(after, " ") // 6.1.192-3
		p.Path = "/proc/sys/kernel/version"
		return p
	}
	// Others keep an upstream version and add fixes of their own. Ubuntu's and Proxmox'
	// say so in the build whatever the release ends in, which differs by flavour.
	foreign := func(text string, marks ...string) bool {
		return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(text, m) })
	}
	p.Foreign = foreign(build, "-Ubuntu ", " PMX ") || foreign(release, ".el", ".fc", ".amzn") ||
		slices.ContainsFunc([]string{"-generic", "-default", "-azure", "-aws", "-gcp"}, func(s string) bool { return strings.HasSuffix(release, s) })
	return p
}

// staleKernel is the age from which a kernel has missed several rounds of fixes: a
// stable branch gets one about every week.
const staleKernel = 180 * 24 * time.Hour

func kernelAge(h *Host) (report.Finding, answer) {
	f := report.Finding{
		ID: "kernel.age", Door: "fixes that the kernel does not have", Severity: report.Medium, Consequence: report.Depth,
		Expected: "a kernel that was built in the last 180 days", Enables: "every bug that was found since",
		Fix: "install the distribution's current kernel and boot it", Breaks: "what depends on this kernel's build",
	}
	build, err := h.read("proc/sys/kernel/version")
	if err != nil {
		return f, unknown("when it was built could not be read: " + err.Error())
	}
	at := report.Evidence{Call: "/proc/sys/kernel/version", Value: build}
	built, ok := buildDate(build)
	if !ok {
		return f, unknown("it does not say when it was built", at)
	}
	days := int(h.Now.Sub(built).Hours() / 24)
	observed := fmt.Sprintf("built on %s, %d days ago", built.Format(time.DateOnly), days)
	if h.Now.Sub(built) > staleKernel {
		return f, leaked(observed, at)
	}
	return f, held(observed, at)
}

// buildDate finds the date in uname(1) -v: Debian's "(2026-10-02)" or that of the
// kernel's own build, "Fri Oct  2 10:00:00 UTC 2026".
func buildDate(s string) (time.Time, bool) {
	if i, j := strings.LastIndexByte(s, '('), strings.LastIndexByte(s, ')'); i >= 0 && j > i {
		if t, err := time.Parse(time.DateOnly, s[i+1:j]); err == nil {
			return t, true
		}
	}
	words := strings.Fields(s)
	if len(words) < 6 {
		return time.Time{}, false
	}
	last := strings.Join(words[len(words)-6:], " ")
	t, err := time.Parse("Mon Jan 2 15:04:05 MST 2006", last)
	return t, err == nil
}

// judged is a finding with its answer.
type judged struct {
	finding report.Finding
	answer  answer
}

// vulnerabilities reads what the kernel says of the processor's.
func (h *Host) vulnerabilities() (out []judged) {
	const dir = "sys/devices/system/cpu/vulnerabilities"
	base := report.Finding{
		Door: "what others compute on the processor", Severity: report.High, Consequence: report.Reads, Expected: "Not affected, or a mitigation",
		Enables: "reading memory of the kernel, of other containers or machines", Fix: "install current microcode and kernel, and leave mitigations on",
		Breaks: "some speed", References: []string{"Linux admin-guide/hw-vuln"},
	}
	entries, err := fs.ReadDir(h.Files, dir)
	if err != nil || len(entries) == 0 {
		base.ID = "cpu.vulnerabilities"
		why := "the kernel lists none"
		if err != nil {
			why = "the kernel's list could not be read: " + err.Error()
		}
		return []judged{{base, unknown(why)}}
	}
	for _, e := range entries[:min(len(entries), 100)] {
		f := base
		f.ID = "cpu." + strings.ReplaceAll(strings.ToLower(e.Name()), "_", "-")
		if report.CheckID(f.ID) != nil {
			continue
		}
		text, err := h.read(dir + "/" + e.Name())
		at := report.Evidence{Call: "/" + dir + "/" + e.Name(), Value: text}
		out = append(out, judged{f, vulnerability(text, err, at)})
	}
	return out
}

// vulnerability judges what the kernel says of one weakness
// (arch/x86/kernel/cpu/bugs.c): a mitigation may be of a part only, and parts follow
// that are open, such as "VMX: vulnerable" and "BHI: Vulnerable".
func vulnerability(text string, err error, at report.Evidence) answer {
	open, smt := false, false
	for part := range strings.FieldsFuncSeq(strings.ToLower(text), func(r rune) bool { return r == ';' || r == ',' }) {
		if part = strings.TrimSpace(part); strings.HasPrefix(part, "smt ") {
			smt = smt || strings.Contains(part, "vulnerable")
		} else {
			open = open || strings.Contains(part, "vulnerable")
		}
	}
	switch {
	case err != nil:
		return unknown("it could not be read: "+err.Error(), at)
	case strings.HasPrefix(text, "Not affected"):
		return held(text, at)
	case !slices.ContainsFunc([]string{"Vulnerable", "Mitigation", "KVM: Vulnerable", "KVM: Mitigation"}, func(p string) bool { return strings.HasPrefix(text, p) }):
		return unknown(fmt.Sprintf("the kernel says %.200q", text), at)
	case open:
		return leaked(text, at)
	case smt:
		a := leaked(text, at)
		a.severity = report.Medium
		a.detail = "switch SMT off (nosmt, or the firmware), or give each tenant whole cores"
		return a
	}
	return held(text, at)
}

// debianRelease is the number of the Debian release, "" elsewhere.
func (h *Host) debianRelease() string {
	text, err := h.read("etc/os-release")
	if err != nil {
		return ""
	}
	values := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, "=")
		values[name] = strings.Trim(value, `"`)
	}
	if values["ID"] != "debian" {
		return ""
	}
	return values["VERSION_ID"]
}

// debianPackages are the packages of Debian that hold products.
var debianPackages = map[string][]string{
	"runc": {"runc"}, "crun": {"crun"}, "containerd": {"containerd"}, "docker": {"docker.io"}, "podman": {"podman"},
	"qemu": {"qemu-system-x86", "qemu-system-arm"}, "runsc": {"runsc"},
}

// packageDirs are where packages of a distribution put programs.
var packageDirs = []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/lib", "/usr/libexec"}

// packaged returns the products with what the distribution's packages tell of them.
func (h *Host) packaged() []Product {
	installed := map[string]string{}
	status, err := h.read("var/lib/dpkg/status")
	if err == nil {
		installed = dpkgVersions(status)
	}
	out := slices.Clone(h.Products)
	for i := range out {
		p := &out[i]
		if !slices.ContainsFunc(packageDirs, func(d string) bool { return below(p.Path, d) }) {
			continue // nobody's package
		}
		for _, name := range debianPackages[p.Name] {
			if v := installed[name]; v != "" {
				p.Package = v
			}
		}
		// In the distribution's directories, and not as it was released.
		p.Foreign = errors.Is(err, fs.ErrNotExist) || strings.ContainsAny(p.Version, "+~")
	}
	return out
}

// dpkgVersions reads the versions of installed packages (dpkg's status file).
func dpkgVersions(status string) map[string]string {
	out := map[string]string{}
	for paragraph := range strings.SplitSeq(status, "\n\n") {
		var name, version string
		installed := false
		for line := range strings.SplitSeq(paragraph, "\n") {
			switch field, value, _ := strings.Cut(line, ": "); field {
			case "Package":
				name = value
			case "Version":
				version = value
			case "Status":
				installed = strings.HasSuffix(value, " installed")
			}
		}
		if installed && name != "" {
			out[name] = version
		}
	}
	return out
}
