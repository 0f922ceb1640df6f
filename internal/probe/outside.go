package probe

import (
	"fmt"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// What the host sees of a workload, in the form of observations, by probe. The
// workload has no word in it: where the host looked, its word decides, and what the
// prober says is shown beside it.
const (
	// SeenPrograms are, for kernel.own, the names of the programs that the host's
	// processes of a sandbox run; SeenSentry alone where each is the runtime's own file.
	SeenPrograms = "host: readlink(/proc/PID/exe)"
	// SeenUIDMap is, for namespaces.uid-map, the ID map of the first process of the
	// workload, or of its sandbox.
	SeenUIDMap = "host: read(/proc/PID/uid_map)"
	// SeenOOMScore is for limits.oom-score.
	SeenOOMScore = "host: read(/proc/PID/oom_score_adj)"
	// The limits are the tightest of the process's cgroup and those above it, Unlimited
	// where none of them has one. SeenQuota is a quota and its period, in words.
	SeenPids   = "host: pids.max"
	SeenMemory = "host: memory.max"
	SeenQuota  = "host: cpu.max"

	SeenSentry = "runsc"
	Unlimited  = unlimited
)

// sandbox is the boundary whose kernel is processes of the host.
const sandbox = "gvisor"

// host is what the host saw for this probe.
func (v *view) host(call string) (report.Evidence, bool) { return seen(v.context, v.id, call) }

func seen(c *Context, id, call string) (report.Evidence, bool) {
	for n := range c.Outside {
		if c.Outside[n].Probe == id {
			return callOf(&c.Outside[n], call)
		}
	}
	return report.Evidence{}, false
}

// either is the host's word where there is one, or else the workload's.
func (v *view) either(host, inside string) (report.Evidence, bool) {
	if e, ok := v.host(host); ok {
		return e, true
	}
	return v.call(inside)
}

// checkOutside finds fault with what no host of this version says.
func checkOutside(list []Observation) error {
	for _, o := range list {
		if !exists(o.Probe) || len(o.Calls) > maxCalls {
			return fmt.Errorf("%w: an observation %.80q", report.ErrMalformed, o.Probe)
		}
		for _, e := range o.Calls {
			for _, s := range []string{e.Call, e.Errno, e.Value, o.Trouble} {
				if err := report.CheckText(s, maxText); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sentry judges whether gVisor's kernel alone serves a workload, by what programs
// the host's processes of the sandbox run.
func sentry(c *Context) outcome {
	e, ok := seen(c, "kernel.own", SeenPrograms)
	switch {
	case !ok:
		return isUnclear("the host did not look which programs serve the workload")
	case e.Errno != "":
		return isUnclear("the host cannot look which programs serve the workload: " + first(e.Value, e.Errno))
	case e.Value != SeenSentry:
		return isUnclear("the host sees other programs than the runsc that was to be started: " + e.Value)
	}
	return isShut("the host sees gVisor's kernel and no other program")
}

// sentryDoor is what gVisor's kernel has of its own, for every workload.
type sentryDoor struct {
	what string
	// observed is what is seen where it is this and no more, and ends its end; "" for
	// whatever is.
	observed, ends string
}

// sentryDoors are declared open by whoever chooses the boundary: docs/probes.md has
// them. None leads to the host but the last.
var sentryDoors = map[string]sentryDoor{
	"files.sysrq":       {what: "gVisor's kernel has a file of that name, which takes nothing"},
	"files.cgroups":     {what: "gVisor's kernel has cgroups of its own; those of the host around it hold the limits"},
	"devices.extra":     {what: "gVisor's kernel has these devices itself", observed: "/dev/fuse (c 10:229), /dev/net/tun (c 10:200)"},
	"devices.kernel":    {what: "gVisor's kernel has /dev/fuse itself", observed: "succeeds: openat(/dev/fuse, O_RDONLY)"},
	"leaks.memory-size": {what: "gVisor tells programs how much memory the host has"},

	"syscalls.user-namespaces": {what: tracedClone, observed: "the filter lets pass: clone3"},
	"syscalls.table":           {what: tracedClone, ends: ", 1 more than the default profile lets: numbers 435"},
}

// tracedClone is how a filter answers clone3 there. The gate cannot see that: what may
// pass by a tracer's word passes.
const tracedClone = "gVisor answers clone3 with ENOSYS, as the profile says, but where a tracer lets it pass"

// byDesign is why a door is open behind a boundary whatever its options say.
func byDesign(d *Declared, id string, out outcome) string {
	door, ok := sentryDoors[id]
	if d == nil || d.Boundary != sandbox || !ok || door.observed != "" && door.observed != out.observed || !strings.HasSuffix(out.observed, door.ends) {
		return ""
	}
	return door.what
}

// mapsRoot reports whether an ID map of one line or several makes user 0 outside
// some user inside, and whether it is one.
func mapsRoot(text string) (root, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		if len(words) != 3 {
			return false, false
		}
		root = root || words[1] == "0"
	}
	return root, true
}
