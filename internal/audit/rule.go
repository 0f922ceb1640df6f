package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// reach says what lies behind a door, and so for whom a boundary counts.
type reach int

const (
	// kernel doors lead into the kernel that serves the workload, whosever it is.
	kernel reach = iota
	// host doors lead to the host past any boundary: files, addresses, devices.
	host
	// machine doors are those of a virtual machine itself.
	machine
)

// rule is one entry of the catalogue.
type rule struct {
	id   string
	door string
	// severity and consequence are those of the open door on a shared kernel.
	severity    report.Severity
	consequence report.Consequence
	reach       reach
	// mapped tells that a user namespace without the host's root takes a step off.
	mapped   bool
	expected string
	enables  string
	// fix is the smallest change, in the words of each kind of configuration.
	fix    fix
	breaks string
	// cis is the recommendation of the CIS Docker Benchmark 1.6.0, pss the profile
	// of the Pod Security Standards that asks for the same.
	cis, pss   string
	references []string
	check      func(*Config) answer
}

// fix is a change in the words of the command line of an engine, of Podman's and of our
// own where they differ, and of a config.json.
type fix struct{ run, podman, ours, oci string }

// answer is what a rule found in a configuration.
type answer struct {
	verdict  report.Verdict
	observed string
	reason   string
	evidence []report.Evidence
	// What follows is set where a case is different from the rule's.
	severity    report.Severity
	consequence report.Consequence
	enables     string
	detail      string // replaces "%s" in the fix
	fix         string // replaces the fix
}

func held(observed string, from ...report.Evidence) answer {
	return answer{verdict: report.Held, observed: observed, evidence: from}
}

func leaked(observed string, from ...report.Evidence) answer {
	return answer{verdict: report.Leaked, observed: observed, evidence: from}
}

func unknown(reason string, from ...report.Evidence) answer {
	if reason == "" {
		reason = "the configuration does not say"
	}
	return answer{verdict: report.Unknown, reason: reason, evidence: from}
}

func notApplicable(reason string, from ...report.Evidence) answer {
	return answer{verdict: report.NotApplicable, reason: reason, evidence: from}
}

// weigh gives the severity and the consequence that an open door has behind a
// boundary: those of a shared kernel, less what the boundary keeps in.
//
//	                critical  high    medium  low
//	shared kernel   critical  high    medium  low
//	gVisor, tenant  medium    medium  low     low
//	own machine     low       low     low     low
//	  emulated      medium    low     low     low
//
// A door that leads past the boundary keeps what it has, and so does a limit that is
// missing behind gVisor, which takes what it needs of the host.
func weigh(s report.Severity, c report.Consequence, r reach, b Boundary, emulated bool) (report.Severity, report.Consequence) {
	if b == SharedKernel || r != kernel || b == UserKernel && c == report.Exhausts {
		return s, c
	}
	worst := s == report.Critical || s == report.High
	switch {
	case b == OwnVM && emulated && s == report.Critical:
		// Who has the guest's kernel has only an emulator left to pass, which its
		// authors do not call a boundary.
		return report.Medium, report.Depth
	case b == OwnVM:
		return report.Low, report.GuestDepth
	case b == TenantVM && c == report.Exhausts:
		return report.Low, report.Exhausts // of the tenant's other workloads
	case worst:
		return report.Medium, report.Depth
	case b == TenantVM:
		return report.Low, report.GuestDepth
	}
	return report.Low, report.Depth
}

// lower takes a step off a severity.
func lower(s report.Severity) report.Severity {
	switch s {
	case report.Critical:
		return report.High
	case report.High:
		return report.Medium
	}
	return report.Low
}

// Judge applies every rule to a configuration.
func Judge(c *Config, recheck string) report.Report {
	r := report.Report{Subject: report.Subject{
		Label: c.label(), Boundary: c.Boundary.String(), Engine: string(c.Kind), Image: c.Image, Command: c.Command, Note: c.note(),
	}}
	for i := range rules {
		r.Findings = append(r.Findings, rules[i].apply(c, recheck))
	}
	r.Shared = shared(c)
	r.Untested = untested(c)
	arrange(&r)
	return r
}

// arrange sorts a report, by severity first, and makes it fit to be written.
func arrange(r *report.Report) {
	r.Sort()
	slices.SortStableFunc(r.Findings, func(a, b report.Finding) int {
		if !a.Verdict.Open() || !b.Verdict.Open() {
			return 0
		}
		return rank(a.Severity) - rank(b.Severity)
	})
	clean(r)
}

func (c *Config) label() string {
	return cmp.Or(c.Label, c.Target, string(c.Kind)+":"+c.Name)
}

func (c *Config) note() string {
	switch {
	case c.Guess != "":
		return c.Guess
	case c.Boundary.machine() && c.Emulated.Known && c.Emulated.Value:
		return "the machine is emulated in software, which is no security boundary"
	case c.Kind == OCI && c.Boundary == SharedKernel:
		return "a config.json does not name its runtime; it is judged as one that shares the host's kernel"
	}
	return ""
}

func (r *rule) apply(c *Config, recheck string) report.Finding {
	a := r.check(c)
	if r.reach == machine && !c.Boundary.machine() {
		a = notApplicable("there is no virtual machine", c.BoundaryFrom)
	}
	f := report.Finding{
		ID: r.id, Door: r.door, Verdict: a.verdict, Expected: r.expected, Observed: a.observed, Reason: a.reason,
		Evidence: a.evidence, References: r.refs(),
	}
	f.Severity, f.Consequence = r.severity, r.consequence
	if a.severity != "" {
		f.Severity = a.severity
	}
	if a.consequence != "" {
		f.Consequence = a.consequence
	}
	if r.mapped && a.severity == "" && c.confined() {
		f.Severity = lower(f.Severity)
		if f.Severity != report.Critical && f.Consequence == report.Takeover {
			f.Consequence = report.Depth
		}
	}
	f.Severity, f.Consequence = weigh(f.Severity, f.Consequence, r.reach, c.Boundary, c.Emulated.Known && c.Emulated.Value)
	if a.verdict.Open() {
		f.Enables, f.Breaks, f.Recheck = r.enables, r.breaks, recheck
		if a.enables != "" {
			f.Enables = a.enables
		}
		if c.Boundary == TenantVM && f.Consequence == report.Exhausts {
			f.Enables = "taking it from the tenant's other workloads"
		}
		f.Fix = cmp.Or(a.fix, strings.ReplaceAll(r.fix.of(c.Kind), "%s", a.detail))
		if c.byPrivileged(a) && r.id != "privileges.privileged" {
			f.Fix = "leave out --privileged"
		}
	}
	return f
}

// byPrivileged reports whether it is the privileged mode that opened a door, and not
// an option of its own.
func (c *Config) byPrivileged(a answer) bool {
	return c.Privileged.Value && len(a.evidence) > 0 && a.evidence[0] == c.Privileged.From[0]
}

func (f fix) of(k Kind) string {
	switch {
	case k == OCI && f.oci != "":
		return "config.json: " + f.oci
	case k == Bulkhead && f.ours != "":
		return f.ours
	case k == Podman && f.podman != "":
		return f.podman
	case f.run != "":
		return f.run
	}
	return f.ours + f.oci
}

func (r *rule) refs() (out []string) {
	if r.cis != "" {
		for id := range strings.SplitSeq(r.cis, ", ") {
			out = append(out, "CIS Docker "+id)
		}
	}
	if r.pss != "" {
		out = append(out, "Pod Security Standards, "+r.pss)
	}
	return append(out, r.references...)
}

// shared names what a workload has in common with the host.
func shared(c *Config) (out []string) {
	switch {
	case c.Boundary == SharedKernel:
		out = append(out, "the kernel")
	case c.Boundary == TenantVM:
		out = append(out, "the tenant's machine, with its other workloads")
	}
	for _, ns := range []struct {
		what string
		said Said[Namespace]
	}{{"the network", c.Net}, {"the processes", c.PID}, {"memory between processes", c.IPC}, {"the host name", c.UTS}} {
		if ns.said.Known && ns.said.Value.Host {
			out = append(out, ns.what)
		}
	}
	for _, m := range c.Mounts.Value {
		if isEngineFile(m.Source) && isEngineDir(m.Source) {
			continue
		}
		if len(out) == report.MaxList-1 {
			return append(out, "more of the host's files")
		}
		how := "files, to read and write: "
		if m.ReadOnly {
			how = "files, to read: "
		}
		out = append(out, how+m.Source)
	}
	return out
}

// untested names what no configuration tells.
func untested(c *Config) []report.Untested {
	out := []report.Untested{{
		What: "whether the boundary holds",
		Why:  "a configuration says what is asked for; `bulkhead probe` looks from inside",
	}}
	if c.Kind != Bulkhead {
		out = append(out, report.Untested{
			What: "the versions of kernel, runtime and engine", Why: "they are the machine's: `bulkhead audit --host`",
		})
	}
	return out
}

// clean makes everything in a report fit to be there: what comes from outside may
// have any length and any characters.
func clean(r *report.Report) {
	text := func(s *string) { *s = fit(*s) }
	s := &r.Subject
	for _, t := range []*string{&s.Label, &s.Boundary, &s.Engine, &s.Image, &s.Command, &s.Kernel, &s.HostKernel, &s.Note} {
		text(t)
	}
	for i := range r.Shared {
		text(&r.Shared[i])
	}
	r.Untested = slices.Clone(r.Untested) // a Host's, too
	for i := range r.Untested {
		text(&r.Untested[i].What)
		text(&r.Untested[i].Why)
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		for _, t := range []*string{&f.Door, &f.Declared, &f.Expected, &f.Observed, &f.Reason, &f.Enables, &f.Fix, &f.Breaks, &f.Recheck} {
			text(t)
		}
		f.Evidence = slices.Clip(f.Evidence[:min(len(f.Evidence), report.MaxList)])
		f.Evidence = slices.Clone(f.Evidence) // rules share what a Config holds
		for j := range f.Evidence {
			text(&f.Evidence[j].Call)
			text(&f.Evidence[j].Value)
		}
	}
}

// fit escapes control characters and cuts what is too long.
func fit(s string) string {
	const most = 1000
	if report.CheckText(s, most) == nil {
		return s
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		if r < ' ' || r == 0x7f {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
		if b.Len() >= most {
			return b.String() + "…"
		}
	}
	return b.String()
}
