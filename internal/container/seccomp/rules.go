package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// An op is a comparison after NE, LT and LE were turned into the negation of
// EQ, GE and GT.
type op uint8

const (
	opEQ op = iota // arg&mask == value
	opGE
	opGT
)

// A cond is one comparison of an argument, as unsigned 64-bit numbers.
type cond struct {
	arg         uint8
	op          op
	negate      bool
	masked      bool // written as MASKED_EQ
	value, mask uint64
}

// A rule is an action and the conditions that must all hold for it.
type rule struct {
	verdict Verdict
	conds   []cond // in ascending order of arg, each arg once at most
}

// A call is one system call of one architecture with its rules.
type call struct {
	nr    uint32
	rules []rule
}

// maxRulesPerCall bounds the work for a hostile profile: every conditional
// rule takes two instructions at least, so more cannot fit into a filter.
const maxRulesPerCall = maxInsns / 2

// ErrTooLarge says that a profile needs more than the 4096 instructions that
// the kernel accepts.
var ErrTooLarge = errors.New("seccomp: the profile needs more than 4096 instructions")

// profile is a specs.LinuxSeccomp made ready: verdicts and conditions parsed,
// names looked up in the tables once for all architectures.
type profile struct {
	def    Verdict
	arches []*arch
	rules  []namedRules

	// Buffers of the method calls, used for one architecture after the other:
	// a fresh process pays a page fault for each page of them.
	entries, sorted []rule
	keys            []uint64
	found           []call
}

// namedRules is one entry of the specification's list of system calls.
type namedRules struct {
	calls []int  // indexes into the tables
	rules []rule // usually one, see splitRule; none if skip
	skip  bool   // equal to the default action
}

// prepare validates a specification. As in runc, an unknown name is ignored:
// a profile names calls that this build has not heard of yet.
func prepare(s *specs.LinuxSeccomp, native *arch) (*profile, error) {
	if s == nil {
		return nil, errors.New("seccomp: no profile")
	}
	def, err := verdict(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	p := &profile{
		def: def, rules: make([]namedRules, 0, len(s.Syscalls)),
		entries: make([]rule, 0, 512), keys: make([]uint64, 0, 512), found: make([]call, 0, 512),
	}
	if p.arches, err = profileArches(s.Architectures, native); err != nil {
		return nil, err
	}
	total := 0
	for i := range s.Syscalls {
		sc := &s.Syscalls[i]
		if len(sc.Names) == 0 {
			return nil, fmt.Errorf("seccomp: rule %d names no system call", i)
		}
		v, err := verdict(sc.Action, sc.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("rule %d (%s): %w", i, quoteShort(sc.Names[0]), err)
		}
		rules, err := splitRule(v, sc.Args)
		if err != nil {
			return nil, fmt.Errorf("rule %d (%s): %w", i, quoteShort(sc.Names[0]), err)
		}
		n := namedRules{rules: rules, skip: v == def, calls: make([]int, 0, len(sc.Names))}
		if n.skip {
			n.rules = nil
		}
		for _, name := range sc.Names {
			if name == "" {
				return nil, fmt.Errorf("seccomp: rule %d has an empty system call name", i)
			}
			if index, ok := syscallIndex(name); ok {
				n.calls = append(n.calls, index)
			}
		}
		// Each condition of each named call needs its own instructions, on
		// every architecture that has the call.
		if len(sc.Args) > 0 && !n.skip {
			if total += len(n.calls) * len(n.rules); total > maxInsns {
				return nil, ErrTooLarge
			}
		}
		p.rules = append(p.rules, n)
	}
	return p, nil
}

func quoteShort(name string) string {
	if len(name) > 40 {
		name = name[:40] + "…"
	}
	return fmt.Sprintf("%q", name)
}

// profileArches returns the architectures of a profile. The native one always
// belongs to them, as with libseccomp: without it nothing could run.
func profileArches(names []specs.Arch, native *arch) ([]*arch, error) {
	list := []*arch{native}
	for _, name := range names {
		a, err := findArch(name)
		if err != nil {
			return nil, err
		}
		if a.big != native.big {
			return nil, fmt.Errorf("seccomp: %s and %s differ in byte order, no kernel runs both", a.name, native.name)
		}
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list, nil
}

// splitRule parses the conditions of an entry. They are joined by "and",
// except when two concern the same argument: libseccomp cannot express that,
// so runc has always made a rule of each condition ("or"), and profiles rely
// on it.
func splitRule(v Verdict, args []specs.LinuxSeccompArg) ([]rule, error) {
	conds := make([]cond, 0, len(args))
	var seen [6]bool
	twice := false
	for _, a := range args {
		c, err := parseCond(a)
		if err != nil {
			return nil, err
		}
		twice = twice || seen[c.arg]
		seen[c.arg] = true
		conds = append(conds, c)
	}
	if !twice {
		slices.SortFunc(conds, func(a, b cond) int { return int(a.arg) - int(b.arg) })
		return []rule{{verdict: v, conds: conds}}, nil
	}
	if len(conds) > maxRulesPerCall {
		return nil, ErrTooLarge
	}
	rules := make([]rule, len(conds))
	for i := range conds {
		rules[i] = rule{verdict: v, conds: conds[i : i+1 : i+1]}
	}
	return rules, nil
}

func parseCond(a specs.LinuxSeccompArg) (cond, error) {
	if a.Index > 5 {
		return cond{}, fmt.Errorf("seccomp: argument index %d is above 5", a.Index)
	}
	c := cond{arg: uint8(a.Index), value: a.Value, mask: ^uint64(0)}
	switch a.Op {
	case specs.OpEqualTo:
	case specs.OpNotEqual:
		c.negate = true
	case specs.OpGreaterEqual:
		c.op = opGE
	case specs.OpLessThan:
		c.op, c.negate = opGE, true
	case specs.OpGreaterThan:
		c.op = opGT
	case specs.OpLessEqual:
		c.op, c.negate = opGT, true
	case specs.OpMaskedEqual:
		// The mask comes first: arg & Value == ValueTwo. Bits of ValueTwo
		// outside the mask are ignored, as in libseccomp.
		c.masked, c.mask, c.value = true, a.Value, a.ValueTwo&a.Value
	default:
		return cond{}, fmt.Errorf("seccomp: unknown operator %q", string(a.Op))
	}
	return c, nil
}

// narrow returns the condition for an architecture that compares 32 bits.
// Like libseccomp it drops the upper halves.
func (c cond) narrow() cond {
	c.value, c.mask = uint64(uint32(c.value)), uint64(uint32(c.mask))
	return c
}

// always tells whether the condition holds for every argument because its mask
// is empty. libseccomp drops only these; it does compare for x >= 0.
func (c cond) always() bool { return c.masked && c.mask == 0 }

// calls returns the calls that have rules on one architecture, in ascending
// order, and the highest number that the profile names there. The result is
// valid until the next time.
func (p *profile) calls(a *arch) (calls []call, newest uint32, err error) {
	// Entries are sorted by number, then by their place in the profile: a key is
	// the number and the index in entries.
	entries, keys := p.entries[:0], p.keys[:0]
	add := func(nr uint32, r rule) {
		keys = append(keys, uint64(nr)<<32|uint64(len(entries)))
		entries = append(entries, r)
	}
	muxes := a.muxes()
	for i := range p.rules {
		n := &p.rules[i]
		for _, index := range n.calls {
			nr, ok := a.number(index)
			if !ok && !muxes.has(index) {
				continue
			}
			if ok && !a.private(nr) {
				newest = max(newest, nr)
			}
			for _, r := range n.rules {
				if ok {
					add(nr, r)
				}
				if muxNr, muxed, ok := a.mux(muxes, index, r); ok {
					add(muxNr, muxed)
				}
			}
		}
	}
	slices.Sort(keys)
	rules := slices.Grow(p.sorted[:0], len(keys))[:len(keys)]
	calls = p.found[:0]
	p.entries, p.keys, p.sorted = entries, keys, rules
	for start := 0; start < len(keys); {
		c := call{nr: uint32(keys[start] >> 32)}
		end := start
		for ; end < len(keys) && uint32(keys[end]>>32) == c.nr; end++ {
			rules[end] = a.fit(entries[uint32(keys[end])])
		}
		c.rules = rules[start:end]
		start = end
		if c.rules, err = settle(c.rules, a.wide); err != nil {
			return nil, 0, fmt.Errorf("system call %s on %s: %w", SyscallName(a.audit, c.nr), a.name, err)
		}
		calls = append(calls, c)
	}
	p.found = calls
	return calls, newest, nil
}

// private tells whether the number lies in ARM's private range, far above the
// ordinary calls.
func (a *arch) private(nr uint32) bool { return a.column == colARM && nr >= armPrivate }

// fit drops conditions that always hold and narrows the others where the
// architecture compares 32 bits.
func (a *arch) fit(r rule) rule {
	if len(r.conds) == 0 {
		return r
	}
	conds := make([]cond, 0, len(r.conds))
	for _, c := range r.conds {
		if !a.wide {
			c = c.narrow()
		}
		if !c.always() {
			conds = append(conds, c)
		}
	}
	r.conds = conds
	return r
}
