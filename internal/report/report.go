// Package report is the model of results that looking at a boundary gives: what
// was declared, what was expected, what was observed, what follows, and what it
// costs. The prober fills it from inside a workload, an auditor from a
// configuration, a comparison by measuring; the terminal, JSON and the page read it.
//
//	Document ─┬─ Report   one subject: a workload, a container, a file
//	          │    ├─ Finding   one door: its verdict, evidence, fix
//	          │    ├─ Measure   one cost: its samples, or why there are none
//	          │    └─ Untested  what nobody looked at, and why
//	          └─ Report …
//
// A document may come from anybody. Decode takes only what Encode writes, within
// the limits of limits.go.
package report

import (
	"slices"
	"strings"
	"time"
)

// Format is the version of a document's JSON. It changes with every change of the
// fields.
const Format = 2

// Document is what one command found, about one subject or several.
type Document struct {
	Format int `json:"format"`
	// Kind is who looked: Probe, Audit or Compare.
	Kind string `json:"kind"`
	// Tool is the program and its version, such as "bulkhead 0.9".
	Tool string    `json:"tool"`
	Time time.Time `json:"time"` // in UTC, whole seconds
	// Machine is what a comparison's figures hold for: processors, kernel, versions.
	Machine []Fact   `json:"machine,omitempty"`
	Reports []Report `json:"reports"`
	// Changes are since an earlier document, where there was one to compare with.
	Changes []Change `json:"changes,omitempty"`
	// Threshold is the least severity that decides the exit code, "" for any.
	Threshold Severity `json:"threshold,omitempty"`
	// Notes are what a reader has to know of all of it, such as waivers that expired.
	Notes []string `json:"notes,omitempty"`
}

// The kinds of documents.
const (
	Probe   = "probe"
	Audit   = "audit"
	Compare = "compare"
)

// Report is what was found about one subject.
type Report struct {
	Subject Subject `json:"subject"`
	// Shared names what the subject has in common with the host, by design or
	// because a door is open: "the kernel, Linux 6.18.44".
	Shared   []string   `json:"shared"`
	Findings []Finding  `json:"findings"`
	Measures []Measure  `json:"measures,omitempty"`
	Untested []Untested `json:"untested,omitempty"`
}

// Subject is what was looked at.
type Subject struct {
	// Label tells it from the others of its document, and finds it again in an
	// earlier one: "container", "vm", the name of a container.
	Label string `json:"label"`
	// Boundary is what isolates it, "" if nobody said, and Host for the host itself.
	Boundary string `json:"boundary,omitempty"`
	Engine   string `json:"engine,omitempty"`
	Image    string `json:"image,omitempty"`
	// Command is how it was started, as far as that decides what is isolated.
	Command string `json:"command,omitempty"`
	// Kernel is the release that it runs on, HostKernel the host's.
	Kernel     string `json:"kernel,omitempty"`
	HostKernel string `json:"hostKernel,omitempty"`
	// Note is what a reader has to know before he trusts the findings, such as that
	// a machine is emulated.
	Note string `json:"note,omitempty"`
}

// Host is the boundary of the host, which has none.
const Host = "host"

// Verdict is what follows from a finding's observation.
type Verdict string

// The verdicts. Unknown is never a pass.
const (
	// Held: the door is shut.
	Held Verdict = "held"
	// Leaked: the door is open, and nothing declared it shut: an option asked for it,
	// or nobody declared anything.
	Leaked Verdict = "leaked"
	// Weaker: the door is open although the profile in force says that it is shut.
	Weaker Verdict = "weaker than declared"
	// Unknown: it could not be found out; Finding.Reason says why.
	Unknown Verdict = "unknown"
	// NotApplicable: there is no such door here; Finding.Reason says why.
	NotApplicable Verdict = "not applicable"
)

// verdicts in the order in which a reader wants them.
var verdicts = []Verdict{Weaker, Leaked, Unknown, Held, NotApplicable}

// Open reports whether a door stands open.
func (v Verdict) Open() bool { return v == Leaked || v == Weaker }

// Severity is how much an open door matters on the boundary at hand.
type Severity string

// The severities, from the worst.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
)

var severities = []Severity{Critical, High, Medium, Low}

// Consequence is what an open door leads to. Reports are grouped by it.
type Consequence string

// The consequences, from the worst.
const (
	Takeover   Consequence = "takes over the host"
	Disturbs   Consequence = "changes or disturbs the host"
	Reads      Consequence = "reads what is the host's or a neighbour's"
	Exhausts   Consequence = "takes resources from others"
	Depth      Consequence = "loses a line of defence"
	GuestDepth Consequence = "loses a line of defence inside the machine"
	// SandboxDepth is GuestDepth where the workload's own kernel is gVisor's.
	SandboxDepth Consequence = "loses a line of defence inside the sandbox"
)

// Inside reports whether a door leads no further than to the workload's own kernel.
func (c Consequence) Inside() bool { return c == GuestDepth || c == SandboxDepth }

// Consequences are all of them, from the worst.
var Consequences = []Consequence{Takeover, Disturbs, Reads, Exhausts, Depth, GuestDepth, SandboxDepth}

// Severity is what a consequence counts where nothing else is known.
func (c Consequence) Severity() Severity {
	switch c {
	case Takeover:
		return Critical
	case Disturbs, Reads:
		return High
	case Exhausts, Depth:
		return Medium
	default:
		return Low
	}
}

// Finding is one door of a subject.
type Finding struct {
	// ID is stable: "namespaces.pid". The part before the first dot is its group.
	ID string `json:"id"`
	// Door names what lies behind it: "the host's processes".
	Door    string  `json:"door"`
	Verdict Verdict `json:"verdict"`
	// Severity and Consequence are those of the door when it is open.
	Severity    Severity    `json:"severity,omitempty"`
	Consequence Consequence `json:"consequence,omitempty"`
	// Declared is what the subject's configuration says, "" if there is none;
	// Expected what shows that the door is shut; Observed what was seen.
	Declared string `json:"declared,omitempty"`
	Expected string `json:"expected"`
	Observed string `json:"observed,omitempty"`
	// Reason says why the verdict is Unknown or NotApplicable.
	Reason   string     `json:"reason,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
	// Enables is what somebody can do with the open door.
	Enables string `json:"enables,omitempty"`
	// Fix is the smallest change of the command or the file that shuts it, Breaks
	// what may then no longer work, Recheck the command that looks again.
	Fix        string   `json:"fix,omitempty"`
	Breaks     string   `json:"breaks,omitempty"`
	Recheck    string   `json:"recheck,omitempty"`
	References []string `json:"references,omitempty"`
	// Waived says who accepts an open door, or what is unknown, and why.
	Waived *Waiver `json:"waived,omitempty"`
}

// Group is the first part of the ID.
func (f *Finding) Group() string { return group(f.ID) }

func group(id string) string {
	first, _, _ := strings.Cut(id, ".")
	return first
}

// Evidence is one call and how it ended, or one line of a configuration.
type Evidence struct {
	// Call is what was tried: "openat(/dev/kmsg, O_WRONLY)", or where it is written:
	// "config.json: linux.seccomp".
	Call string `json:"call"`
	// Errno is the name of the error, "" for success.
	Errno string `json:"errno,omitempty"`
	// Value is what was read or returned.
	Value string `json:"value,omitempty"`
}

// Untested is something that nobody looked at.
type Untested struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Sort orders findings for a reader: open doors first, the worst before the
// others, then what is unknown.
func (r *Report) Sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		if o := boolRank(a.Verdict.Open()) - boolRank(b.Verdict.Open()); o != 0 {
			return o
		}
		if a.Verdict.Open() {
			if c := slices.Index(Consequences, a.Consequence) - slices.Index(Consequences, b.Consequence); c != 0 {
				return c
			}
		}
		return slices.Index(verdicts, a.Verdict) - slices.Index(verdicts, b.Verdict)
	})
}

func boolRank(b bool) int {
	if b {
		return 0
	}
	return 1
}

// Count is how many findings have a verdict.
func (r *Report) Count(v Verdict) (n int) {
	for i := range r.Findings {
		if r.Findings[i].Verdict == v {
			n++
		}
	}
	return n
}

// Opened is how many doors stand open.
func (r *Report) Opened() int { return r.Count(Leaked) + r.Count(Weaker) }

// Looked is how many doors there are.
func (r *Report) Looked() int { return len(r.Findings) - r.Count(NotApplicable) }

// Inside is how many open doors lead no further than to the workload's own kernel.
func (r *Report) Inside() (n int) {
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Verdict.Open() && f.Consequence.Inside() {
			n++
		}
	}
	return n
}

// The exit codes of commands that look at boundaries.
const (
	ExitHeld         = 0 // as expected
	ExitLeak         = 2 // a door is open that counts
	ExitInconclusive = 3 // no door is known to be open, and something is unknown
	ExitError        = 4 // nothing can be said
)

// ExitCode is the command's that found this.
func (d *Document) ExitCode() int {
	code := ExitHeld
	for i := range d.Reports {
		for j := range d.Reports[i].Findings {
			f := &d.Reports[i].Findings[j]
			switch {
			case !d.Counts(f):
			case f.Verdict.Open():
				return ExitLeak
			default:
				code = ExitInconclusive
			}
		}
	}
	return code
}
