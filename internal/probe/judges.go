package probe

import (
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// refusals are the errors that show a door shut: refused, or not there.
var refusals = []string{"EPERM", "EACCES", "ENOENT", "ENOTDIR", "EROFS", "ENXIO", "ENODEV", "ENOSYS", "ELOOP", "EOPNOTSUPP"}

// refused judges attempts of which each that succeeds opens the door. None of them
// is unclear: nothing was tried.
func refused(v *view) outcome { return attempts(v.calls()) }

func attempts(calls []report.Evidence) outcome {
	if len(calls) == 0 {
		return isUnclear("nothing was tried")
	}
	var opened, errnos []string
	for _, e := range calls {
		switch {
		case e.Errno == "":
			opened = append(opened, e.Call)
		case !slices.Contains(errnos, e.Errno):
			errnos = append(errnos, e.Errno)
		}
	}
	if len(opened) > 0 {
		return isOpen("succeeds: " + list(opened))
	}
	for _, e := range errnos {
		if !slices.Contains(refusals, e) {
			return isUnclear("an error that says neither yes nor no: " + e)
		}
	}
	return isShut(strings.Join(errnos, ", "))
}

// content judges files of which each with something in it opens the door. A mask
// is an empty file or directory.
func content(tried []report.Evidence) outcome {
	calls := slices.Clone(tried)
	var empty bool
	for n, e := range calls {
		if e.Errno == "" && e.Value == "" {
			calls[n].Errno, empty = "ENOENT", true
		}
	}
	out := attempts(calls)
	if out.state == shut && empty {
		out.observed = "masked"
	}
	return out
}

// filtered judges calls at the gate.
func filtered(v *view) outcome { return filteredCalls(v.calls()) }

func filteredCalls(calls []report.Evidence) outcome {
	if len(calls) == 0 {
		return isAbsent("this architecture has no such call")
	}
	var passing, unknown []string
	missing := 0
	for _, e := range calls {
		switch {
		case e.Value == gatePasses:
			passing = append(passing, e.Call)
		case e.Value == gateUnknown+gate.NoI386:
			missing++
		case e.Value != gateRefused && e.Value != gateKills:
			unknown = append(unknown, e.Call+" "+e.Value)
		}
	}
	switch {
	case len(passing) > 0:
		return isOpen("the filter lets pass: " + list(passing))
	case len(unknown) > 0:
		return isUnclear(list(unknown))
	case missing == len(calls):
		return isAbsent(gate.NoI386)
	}
	return isShut("refused by the filter")
}

// list is up to four words, and how many more there are.
func list(words []string) string {
	const most = 4
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return strings.Join(words[:most], ", ") + " and more"
}

// all judges a conjunction: open if everything is, shut if anything is.
func all(outs ...outcome) outcome {
	out := isOpen("")
	var parts []string
	for _, o := range outs {
		switch o.state {
		case shut, absent:
			return isShut(first(o.observed, o.reason))
		case unclear:
			if out.state == open {
				out = isUnclear(o.reason)
			}
		}
		parts = append(parts, o.observed)
	}
	if out.state == open {
		out.observed = strings.Join(slices.Compact(parts), "; ")
	}
	return out
}

// either judges a disjunction.
func either(outs ...outcome) outcome {
	out := isShut("")
	for _, o := range outs {
		switch o.state {
		case open:
			return o
		case unclear:
			out = o
		default:
			if out.state == shut && out.observed == "" {
				out.observed = first(o.observed, o.reason)
			}
		}
	}
	return out
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
