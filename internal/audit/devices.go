package audit

import (
	"slices"
	"strconv"
	"strings"
)

// deviceRule is one of a device cgroup. The numbers are "" for every one.
type deviceRule struct {
	kind         string // "a" for both kinds, "b", "c"
	major, minor string
	access       string // of "rwm"
}

// parseDeviceRule reads a rule as engines take it: "b 8:* rwm". What is not said is
// everything.
func parseDeviceRule(s string) (deviceRule, bool) {
	f := strings.Fields(s)
	if len(f) == 0 || len(f) > 3 || !slices.Contains([]string{"a", "b", "c"}, f[0]) {
		return deviceRule{}, false
	}
	r := deviceRule{kind: f[0], access: "rwm"}
	if len(f) > 1 {
		var ok bool
		if r.major, r.minor, ok = strings.Cut(f[1], ":"); !ok {
			return deviceRule{}, false
		}
		r.major, r.minor = strings.TrimPrefix(r.major, "*"), strings.TrimPrefix(r.minor, "*")
	}
	if len(f) > 2 {
		r.access = f[2]
	}
	return r, true
}

// ociDeviceRule is an element of linux.resources.devices (config-linux.md, "Device
// Allowlist"). Runtimes take a negative number for every one, too.
func ociDeviceRule(n node) deviceRule {
	number := func(name string) string {
		if v, ok := n.get(name).number(); ok && v >= 0 {
			return strconv.FormatInt(v, 10)
		}
		return ""
	}
	r := deviceRule{kind: n.get("type").text(), major: number("major"), minor: number("minor"), access: n.get("access").text()}
	switch r.kind {
	case "":
		r.kind = "a"
	case "u": // a character device without a buffer, mknod(1)
		r.kind = "c"
	}
	if r.access == "" {
		r.access = "rwm"
	}
	return r
}

// memoryDevices are mem, kmem and port, of major number 1.
var memoryDevices = []string{"1", "2", "4"}

// wide reports whether a rule that allows opens what a host keeps to itself: all
// devices, any disk, or memory. To make a node, and no more, is what engines allow
// for all.
func (r deviceRule) wide() bool {
	switch {
	case !strings.ContainsAny(r.access, "rw"):
		return false
	case r.kind == "c":
		return r.major == "" || r.major == "1" && (r.minor == "" || slices.Contains(memoryDevices, r.minor))
	}
	return r.kind == "a" || r.kind == "b"
}

// deniedDevices are rules that deny, by all but their access, with each access that
// one of them is for.
type deniedDevices map[deviceRule]map[string]bool

// add takes in a rule. An access has at most three letters that count, so that there
// are few of one rule.
func (d deniedDevices) add(r deviceRule) {
	access := ""
	for _, a := range "rwm" {
		if strings.ContainsRune(r.access, a) {
			access += string(a)
		}
	}
	r.access = ""
	if d[r] == nil {
		d[r] = map[string]bool{}
	}
	d[r][access] = true
}

// covers reports whether one of the rules is for whatever r is for.
func (d deniedDevices) covers(r deviceRule) bool {
	for _, kind := range []string{"a", r.kind} {
		for _, major := range []string{"", r.major} {
			for _, minor := range []string{"", r.minor} {
				for access := range d[deviceRule{kind: kind, major: major, minor: minor}] {
					if strings.Trim(r.access, access) == "" {
						return true
					}
				}
			}
		}
	}
	return false
}

// wideRule reports whether a rule of an engine's command line is wide. One that makes
// no sense counts as if it were.
func wideRule(s string) bool {
	r, ok := parseDeviceRule(s)
	return !ok || r.wide()
}
