// Package probe finds out, from inside a workload, which doors to the host stand
// open. It is data: a list of probes, each with what it tries, how it judges what
// came of that, and what an open door means.
//
//	inside, hostile                         outside, or inside by hand
//	Observe(targets) ──▶ Observations ──▶ Judge(context) ──▶ report.Report
//
// The rules that every probe keeps: nothing is exploited, changed or left behind;
// what would take effect if it succeeded is tried at the seccomp filter only
// (package gate) or with arguments that the kernel refuses after it has checked
// permissions; what could not be tried is unknown and never counts as shut. And
// each has a test that opens its door on purpose (tests/probe).
package probe

import (
	"slices"
	"strings"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Probe is one door.
type Probe struct {
	// ID is stable; what is before its first dot is the group.
	ID string
	// Door names what is behind it, Expected what shows that it is shut.
	Door, Expected string
	// Enables is what somebody can do who finds it open.
	Enables     string
	Consequence report.Consequence
	// Opens are the options of `bulkhead run` that open it, as beginnings of
	// workload.Weakening.Flag.
	Opens []string
	// Fix is the smallest change where no option of ours opened it.
	Fix        string
	Breaks     string // what may no longer work after it
	References []string

	// beyond tells that what is behind the door belongs to the host even where the
	// workload has a kernel of its own.
	beyond bool
	// share is what an open door makes common with the host, for the first sentence
	// of a report.
	share string
	// gates are calls that are tried at the filter before observe is called.
	gates []gateCall
	// observe tries it; nil for a probe that has gates alone, or judges others.
	observe func(*prober)
	// judge says what follows.
	judge func(*view) outcome
}

// Group is the first part of the ID.
func (p *Probe) Group() string {
	group, _, _ := strings.Cut(p.ID, ".")
	return group
}

// Probes are all of them, in the order of their groups.
func Probes() []Probe { return slices.Clone(probes()) }

// probes is made when it is asked for first: most commands do not.
var probes = sync.OnceValue(func() []Probe {
	return slices.Concat(kernelProbes(), namespaceProbes(), fileProbes(), capabilityProbes(), callProbes(), deviceProbes(), limitProbes(), networkProbes(),
		leakProbes(), escapeProbes())
})

// exists reports whether there is a probe with an ID.
func exists(id string) bool {
	return slices.ContainsFunc(probes(), func(p Probe) bool { return p.ID == id })
}

// Untested is what this version does not look at, with the reason.
func Untested() []report.Untested {
	return []report.Untested{
		{What: "side channels between processors' threads", Why: "measuring them disturbs neighbours"},
		{What: "faults in the kernel, the monitor and the runtime", Why: "nothing is exploited; keep them patched"},
		{What: "addresses that nobody named", Why: "the prober sends to what was put up for it and to --target only"},
		{What: "limits of processor time, disk and memory under load", Why: "exhausting them disturbs neighbours; the configured figures are compared"},
	}
}
