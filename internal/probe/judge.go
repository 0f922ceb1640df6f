package probe

import (
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// state is a door as seen.
type state int

const (
	unclear state = iota // the zero value is never a pass
	shut
	open
	absent // there is no such door
)

// outcome is what a probe concludes from observations.
type outcome struct {
	state    state
	observed string
	reason   string // for unclear and absent
	// points are where mounts open it; whoever declared them declared it open.
	points []string
}

func isShut(observed string) outcome  { return outcome{state: shut, observed: observed} }
func isOpen(observed string) outcome  { return outcome{state: open, observed: observed} }
func isUnclear(reason string) outcome { return outcome{state: unclear, reason: reason} }
func isAbsent(reason string) outcome  { return outcome{state: absent, reason: reason} }

// view is what a judge sees.
type view struct {
	context  *Context
	kernel   string // its release
	probes   map[string]*Probe
	all      map[string]*Observation
	outcomes map[string]outcome
	id       string       // of the probe
	o        *Observation // the probe's own
	evidence []report.Evidence
}

// calls are those of the probe's own observation.
func (v *view) calls() []report.Evidence {
	if v.o == nil {
		return nil
	}
	return v.o.Calls
}

// call finds what came of a call, of this probe or of the one with an ID.
func (v *view) call(name string) (report.Evidence, bool) { return callOf(v.o, name) }

func callOf(o *Observation, name string) (report.Evidence, bool) {
	if o == nil {
		return report.Evidence{}, false
	}
	n := slices.IndexFunc(o.Calls, func(e report.Evidence) bool { return e.Call == name })
	if n < 0 {
		return report.Evidence{}, false
	}
	return o.Calls[n], true
}

// of is what another probe concluded. Its evidence becomes this one's, too.
func (v *view) of(id string) outcome {
	p := v.probes[id]
	if p == nil {
		return isUnclear("there is no probe " + id)
	}
	if o := v.all[id]; o != nil {
		v.evidence = append(v.evidence, o.Calls...)
	}
	return v.conclude(p)
}

// conclude judges one probe, once.
func (v *view) conclude(p *Probe) outcome {
	if out, ok := v.outcomes[p.ID]; ok {
		return out
	}
	inner := &view{context: v.context, kernel: v.kernel, probes: v.probes, all: v.all, outcomes: v.outcomes, id: p.ID, o: v.all[p.ID]}
	var out outcome
	switch {
	case (p.observe != nil || p.gates != nil) && inner.o == nil:
		out = isUnclear("the prober did not report it")
	case inner.o != nil && inner.o.Trouble != "":
		out = isUnclear(inner.o.Trouble)
	default:
		out = p.judge(inner)
	}
	v.outcomes[p.ID] = out
	if len(inner.evidence) > 0 {
		if v.all[p.ID] == nil {
			v.all[p.ID] = &Observation{Probe: p.ID}
		}
		v.all[p.ID].Calls = append(v.all[p.ID].Calls, inner.evidence...)
	}
	return out
}

// ownKernel reports whether the observations come from another kernel than the
// host's; unknown is false, and so is a workload's word where nobody gave it one. A
// kernel that is processes of the host must be seen there, too.
func ownKernel(c *Context, all map[string]*Observation) bool {
	if d := c.Declared; d != nil && (!d.OwnKernel || d.Boundary == sandbox && sentry(c).state != shut) {
		return false
	}
	e, ok := callOf(all["kernel.own"], readBootID)
	return ok && e.Errno == "" && c.Host != nil && c.Host.BootID != "" && e.Value != c.Host.BootID
}

// Judge says what follows from observations for every probe. Where o is nil
// everything is unknown, for the given reason. It takes hostile observations that
// Decode has let through.
func Judge(c *Context, o *Observations, reason string) report.Report {
	probes := Probes()
	v := &view{context: c, probes: map[string]*Probe{}, all: map[string]*Observation{}, outcomes: map[string]outcome{}}
	for n := range probes {
		v.probes[probes[n].ID] = &probes[n]
	}
	var r report.Report
	if o != nil {
		v.kernel, r.Subject.Kernel = o.Kernel, o.Kernel
		for n := range o.Tried {
			copied := o.Tried[n]
			v.all[copied.Probe] = &copied
		}
	}
	if c.Host != nil {
		r.Subject.HostKernel = c.Host.Release
	}
	if c.Declared != nil {
		r.Subject.Boundary = c.Declared.Boundary
	}
	own := ownKernel(c, v.all)
	for n := range probes {
		p := &probes[n]
		out := isUnclear(reason)
		if o != nil {
			out = v.conclude(p)
		}
		r.Findings = append(r.Findings, finding(p, c, out, own, v.all[p.ID]))
	}
	r.Shared = shared(c, v, own, o)
	r.Measures = measures(o, reason)
	r.Untested = Untested()
	r.Sort()
	return r
}

// finding puts a probe and its outcome into the words of reports.
func finding(p *Probe, c *Context, out outcome, own bool, o *Observation) report.Finding {
	f := report.Finding{
		ID: p.ID, Door: p.Door, Expected: p.Expected, Observed: clean(out.observed), Reason: clean(out.reason),
		Consequence: p.Consequence, References: p.References,
	}
	saw := slices.IndexFunc(c.Outside, func(o Observation) bool { return o.Probe == p.ID })
	inside := own && !p.beyond && saw < 0 // what the host sees is the host's
	if inside {
		f.Consequence = report.GuestDepth
		if c.Declared != nil && c.Declared.Boundary == sandbox {
			f.Consequence = report.SandboxDepth
		}
	}
	f.Severity = f.Consequence.Severity()
	if o != nil {
		f.Evidence = append(f.Evidence, o.Calls...)
	}
	if saw >= 0 {
		f.Evidence = append(slices.Clone(c.Outside[saw].Calls), f.Evidence...)
	}
	f.Evidence = f.Evidence[:min(len(f.Evidence), report.MaxList)]
	var by []string
	design := byDesign(c.Declared, p.ID, out)
	if c.Declared != nil {
		by = openedBy(p, c.Declared, out)
		f.Declared = "shut"
		if len(by) > 0 {
			f.Declared = clean("open: " + strings.Join(by, ", "))
		} else if design != "" {
			f.Declared = "open: " + design
		}
		if len(c.Declared.Recheck) <= maxText { // a part of a command is another one
			f.Recheck = clean(c.Declared.Recheck)
		}
	}
	switch out.state {
	case shut:
		f.Verdict = report.Held
	case absent:
		f.Verdict = report.NotApplicable
	case open:
		f.Verdict = report.Leaked
		if c.Declared != nil && len(by) == 0 && design == "" {
			f.Verdict = report.Weaker
		}
		f.Enables, f.Fix, f.Breaks = p.Enables, p.Fix, p.Breaks
		if inside {
			f.Enables = "more of the workload's own kernel to attack, and nothing of the host"
		}
		switch {
		case len(by) > 0:
			f.Fix = clean("leave out " + strings.Join(by, ", "))
		case design != "":
			f.Fix = "--boundary vm, where it matters: gVisor has it for every workload"
		}
	default:
		f.Verdict = report.Unknown
		if f.Reason == "" {
			f.Reason = "the prober could not tell"
		}
	}
	return f
}

// openedBy are the options among those given that open a door.
func openedBy(p *Probe, d *Declared, out outcome) (by []string) {
	for _, o := range d.Options {
		if slices.ContainsFunc(p.Opens, func(prefix string) bool { return strings.HasPrefix(o, prefix) }) {
			by = append(by, o)
		}
	}
	for _, b := range d.Binds {
		in := func(point string) bool {
			return point == b.Target || strings.HasPrefix(point, strings.TrimSuffix(b.Target, "/")+"/")
		}
		if o := clean("--volume " + b.Source + ":" + b.Target); slices.ContainsFunc(out.points, in) && !slices.Contains(by, o) {
			by = append(by, o)
		}
	}
	return by
}

// shared lists what the workload has in common with the host.
func shared(c *Context, v *view, own bool, o *Observations) []string {
	list := []string{}
	if o == nil {
		return list
	}
	if !own {
		kernel := clean("the kernel, Linux " + o.Kernel)
		if c.Host == nil {
			kernel = clean("perhaps the kernel, Linux " + o.Kernel)
		}
		list = append(list, kernel)
	}
	for _, p := range namespaceProbes() {
		if p.share != "" && (!own || p.beyond) && v.outcomes[p.ID].state == open {
			list = append(list, p.share)
		}
	}
	return list
}
