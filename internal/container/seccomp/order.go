package seccomp

import (
	"fmt"
	"slices"
)

// What happens when several rules of one call hold at once is not written in
// the runtime spec. Profiles are tested with libseccomp, so its behaviour is
// the rule here:
//
//   - A rule without conditions beats all conditional ones, wherever it
//     stands; of several the first counts.
//   - Conditional rules with the same action are alternatives.
//   - Conditional rules with different actions are tried in an order that
//     depends on their conditions alone: libseccomp keeps them in a tree whose
//     levels are sorted by argument (the highest first), then by kind of
//     comparison (equality, then LT and LE, then GT and GE), then by value (so
//     that the tightest of several bounds is tried first). Rules that start
//     with the same comparisons share a path.
//   - A rule whose comparisons continue those of an earlier rule is dropped. One
//     that cuts an earlier rule short is tried after it, if the actions differ
//     (libseccomp refuses most such profiles). One that repeats a rule with
//     another action is an error.
//
// The differential test compares this with the real libseccomp.

// settle reduces the rules of one call to either one unconditional rule, or
// conditional rules in the order in which they are to be tried.
func settle(rules []rule, wide bool) ([]rule, error) {
	for i := range rules {
		if len(rules[i].conds) == 0 {
			return rules[i : i+1], nil
		}
	}
	if len(rules) > maxRulesPerCall {
		return nil, ErrTooLarge
	}
	mixed := false
	kept := make([]rule, 0, len(rules))
	for _, r := range rules {
		if slices.ContainsFunc(kept, r.equal) {
			continue
		}
		kept = append(kept, r)
		mixed = mixed || r.verdict != kept[0].verdict
	}
	if !mixed {
		return kept, nil
	}
	return order(kept, wide)
}

func (r rule) equal(o rule) bool { return r.verdict == o.verdict && slices.Equal(r.conds, o.conds) }

// A step is one 32-bit comparison on the way to a rule's action.
type step struct {
	arg    uint8 // twice the argument's index, plus one for its upper half
	op     stepOp
	class  uint8
	datum  uint32
	mask   uint32
	invert bool // smaller values first
	branch int  // 1 if the rule goes on where the comparison is true
}

type stepOp uint8

const (
	stepEQ stepOp = iota
	stepMasked
	stepGT
	stepGE
)

// same tells whether two steps share a node of the tree.
func (s step) same(o step) bool {
	return s.arg == o.arg && s.op == o.op && s.datum == o.datum && s.mask == o.mask
}

// before tells whether s is strictly before o on a level of the tree.
func (s step) before(o step) bool {
	if s.arg != o.arg {
		return s.arg > o.arg
	}
	if s.class != o.class {
		return s.class > o.class
	}
	if o.invert {
		return s.datum < o.datum
	}
	return s.datum > o.datum
}

// steps returns the comparisons of a condition: the upper half of the
// argument, then the lower.
func (c cond) steps(wide bool) []step {
	low := step{
		arg: 2 * c.arg, class: 3, datum: uint32(c.value), mask: uint32(c.mask),
		invert: c.op != opEQ && c.negate,
	}
	switch {
	case c.masked:
		low.op = stepMasked
	case c.op == opGE:
		low.op = stepGE
	case c.op == opGT:
		low.op = stepGT
	}
	switch {
	case c.op != opEQ && c.negate:
		low.class = 2
	case c.op != opEQ:
		low.class = 1
	}
	if !c.negate {
		low.branch = 1
	}
	if !wide {
		return []step{low}
	}
	high := low
	high.arg++
	high.datum, high.mask = uint32(c.value>>32), uint32(c.mask>>32)
	if high.op == stepGE {
		high.op = stepGT
	}
	high.branch = 1 // only leads to the lower half
	return []step{high, low}
}

// A node of the tree of one call's rules.
type node struct {
	step     step
	children [2][]*node // by branch
	end      [2]*rule   // the rule that ends at a branch, after its children
}

func order(rules []rule, wide bool) ([]rule, error) {
	var root []*node
	for i := range rules {
		var path []step
		for _, c := range rules[i].conds {
			path = append(path, c.steps(wide)...)
		}
		if err := insert(&root, path, &rules[i]); err != nil {
			return nil, err
		}
	}
	return flatten(nil, root), nil
}

func insert(level *[]*node, path []step, r *rule) error {
	for {
		n := place(level, path[0])
		branch := path[0].branch
		if len(path) > 1 {
			if n.end[branch] != nil {
				return nil // an earlier, shorter rule covers it
			}
			level, path = &n.children[branch], path[1:]
			continue
		}
		if n.end[branch] == nil {
			n.end[branch] = r
		} else if old := n.end[branch].verdict; old != r.verdict {
			return fmt.Errorf("seccomp: two rules with the same conditions, one for %s, one for %s", old, r.verdict)
		}
		return nil
	}
}

// place finds or makes the node of a step on a level.
func place(level *[]*node, s step) *node {
	i := 0
	for ; i < len(*level); i++ {
		x := (*level)[i]
		if x.step.same(s) {
			return x
		}
		if s.before(x.step) {
			break
		}
	}
	n := &node{step: s}
	*level = slices.Insert(*level, i, n)
	return n
}

// flatten returns the rules in the order in which they are tried.
func flatten(rules []rule, level []*node) []rule {
	for _, n := range level {
		for branch := range n.children {
			rules = flatten(rules, n.children[branch])
			if n.end[branch] != nil {
				rules = append(rules, *n.end[branch])
			}
		}
	}
	return rules
}
