package cgroup

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// wildcard stands for every major or minor number.
const wildcard = -1

// access is a set of the rights to a device node, with the bits of
// BPF_DEVCG_ACC_* (linux/bpf.h).
type access uint32

const (
	accessMknod access = 1 << iota
	accessRead
	accessWrite

	accessAll = accessMknod | accessRead | accessWrite
)

func (a access) String() string {
	var s string
	if a&accessRead != 0 {
		s += "r"
	}
	if a&accessWrite != 0 {
		s += "w"
	}
	if a&accessMknod != 0 {
		s += "m"
	}
	return s
}

// device names one device node or, with wildcards, many.
type device struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

func (d device) String() string {
	number := func(n int64) string {
		if n == wildcard {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return string(d.kind) + " " + number(d.major) + ":" + number(d.minor)
}

func (d device) covers(o device) bool {
	return d.kind == o.kind &&
		(d.major == wildcard || d.major == o.major) &&
		(d.minor == wildcard || d.minor == o.minor)
}

// deviceException is one line of a devicePolicy.
type deviceException struct {
	device
	access access
}

func (e deviceException) String() string { return e.device.String() + " " + e.access.String() }

// devicePolicy is what a list of device rules comes to: an answer for every
// device, and the exceptions from it. That is the model of the v1 controller
// (Documentation/admin-guide/cgroup-v1/devices.rst); the eBPF program for v2
// is made from the same value, so that a rule means the same on both.
type devicePolicy struct {
	allow      bool // what is not an exception is allowed
	exceptions map[device]access
}

// sorted returns the exceptions in a fixed order.
func (p devicePolicy) sorted() []deviceException {
	list := make([]deviceException, 0, len(p.exceptions))
	for _, d := range slices.SortedFunc(maps.Keys(p.exceptions), func(a, b device) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor))
	}) {
		list = append(list, deviceException{d, p.exceptions[d]})
	}
	return list
}

const (
	deviceLimit = "device rules"
	// maxDeviceRules bounds the eBPF program and the time to verify it.
	maxDeviceRules = 512
)

// newDevicePolicy works through rules in their order, later ones on top of
// earlier ones. Before the first rule everything is allowed, as in a cgroup
// that nothing was written to.
//
// A rule that takes back part of an earlier wildcard ("allow c 5:*, then deny
// c 5:1") is refused: the v1 kernel would accept and ignore it.
func newDevicePolicy(rules []specs.LinuxDeviceCgroup) (devicePolicy, error) {
	p := devicePolicy{allow: true}
	if len(rules) > maxDeviceRules {
		return p, invalid(deviceLimit, "%d rules, more than %d", len(rules), maxDeviceRules)
	}
	for i, r := range rules {
		devices, acc, err := parseDeviceRule(r)
		if err != nil {
			return p, invalid(deviceLimit, "rule %d: %v", i, err)
		}
		if devices == nil {
			p = devicePolicy{allow: r.Allow}
			continue
		}
		for _, d := range devices {
			if err := p.apply(d, acc, r.Allow); err != nil {
				return p, invalid(deviceLimit, "rule %d: %v", i, err)
			}
		}
	}
	return p, nil
}

func (p *devicePolicy) apply(d device, acc access, allow bool) error {
	if allow != p.allow {
		if p.exceptions == nil {
			p.exceptions = make(map[device]access)
		}
		p.exceptions[d] |= acc
		return nil
	}
	// The rule agrees with the default: it takes back what exceptions it covers.
	for e, have := range p.exceptions {
		switch {
		case have&acc == 0:
		case d.covers(e):
			if have &^= acc; have == 0 {
				delete(p.exceptions, e)
			} else {
				p.exceptions[e] = have
			}
		case e.covers(d) || overlap(e, d):
			return fmt.Errorf("%s cannot be taken out of %s", d, e)
		}
	}
	return nil
}

// overlap reports whether some device is named by both.
func overlap(a, b device) bool {
	return a.kind == b.kind &&
		(a.major == b.major || a.major == wildcard || b.major == wildcard) &&
		(a.minor == b.minor || a.minor == wildcard || b.minor == wildcard)
}

// parseDeviceRule returns the devices of a rule, nil when it is about all of
// them with all rights, which resets whatever came before.
func parseDeviceRule(r specs.LinuxDeviceCgroup) ([]device, access, error) {
	acc, err := parseAccess(r.Access)
	if err != nil {
		return nil, 0, err
	}
	major, err := parseNumber("major", r.Major)
	if err != nil {
		return nil, 0, err
	}
	minor, err := parseNumber("minor", r.Minor)
	if err != nil {
		return nil, 0, err
	}
	switch r.Type {
	case "b", "c":
		return []device{{r.Type[0], major, minor}}, acc, nil
	case "u": // an unbuffered character device, mknod(1)
		return []device{{'c', major, minor}}, acc, nil
	case "", "a":
		// The v1 kernel ignores all but the "a" of such a line, which would widen
		// "allow a 1:3 r" to everything: so it is written as two lines.
		if major == wildcard && minor == wildcard && acc == accessAll {
			return nil, acc, nil
		}
		return []device{{'b', major, minor}, {'c', major, minor}}, acc, nil
	}
	return nil, 0, fmt.Errorf("type %q is not a, b or c", r.Type)
}

func parseNumber(what string, n *int64) (int64, error) {
	switch {
	case n == nil || *n == wildcard:
		return wildcard, nil
	case *n < 0 || *n > math.MaxUint32:
		return 0, fmt.Errorf("%s number %d is out of range", what, *n)
	}
	return *n, nil
}

// parseAccess reads "rwm". Empty means all, as in the runtime spec's examples.
func parseAccess(s string) (access, error) {
	if s == "" {
		return accessAll, nil
	}
	var a access
	for _, c := range s {
		switch c {
		case 'r':
			a |= accessRead
		case 'w':
			a |= accessWrite
		case 'm':
			a |= accessMknod
		default:
			return 0, fmt.Errorf("access %q is not of rwm", s)
		}
	}
	return a, nil
}

// v1Lines returns what to write to devices.deny and devices.allow, the first
// before the second when deny comes first.
func (p devicePolicy) v1Lines() (first, then string, lines []string) {
	first, then = "devices.deny", "devices.allow"
	if p.allow {
		first, then = then, first
	}
	for _, e := range p.sorted() {
		lines = append(lines, e.String())
	}
	return first, then, lines
}
