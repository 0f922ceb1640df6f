package seccomp

import (
	"math"
	"slices"
)

// Shape of a filter:
//
//	load arch
//	architecture -> its part, else kill
//	part: load number, then a binary search over the ranges of numbers that
//	      share a verdict, with the two ABIs of x86-64 in one search
//	conditional rules, by call
//	returns
//
// A classic BPF program only jumps forward, so it is built from its end: every
// target exists when a jump to it is made. A conditional jump reaches 255
// instructions; where that is too short, a copy of the return, or a long jump,
// is put in between.
//
// Only loads of arch and number, AND, and jumps stand before the verdict of an
// unconditional call. So the kernel can work it out beforehand and skip the
// program for calls that are always allowed (Linux 5.11,
// kernel/seccomp.c:seccomp_is_const_allow).

// maxInsns is the kernel's BPF_MAXINSNS.
const maxInsns = 4096

// Offsets in struct seccomp_data, linux/seccomp.h.
const (
	offNR   = 0
	offArch = 4
	offArgs = 16
)

// Operations, linux/bpf_common.h and linux/filter.h.
const (
	ldAbs = 0x20 // BPF_LD | BPF_W | BPF_ABS
	and   = 0x54 // BPF_ALU | BPF_AND | BPF_K
	ja    = 0x05 // BPF_JMP | BPF_JA
	jeq   = 0x15
	jgt   = 0x25
	jge   = 0x35
	jset  = 0x45
	ret   = 0x06 // BPF_RET | BPF_K
)

// A label is a position in an assembler: how many instructions follow it.
type label int

// An assembler collects a program from its last instruction to its first.
type assembler struct {
	rev  []Insn
	rets map[Verdict]label // the nearest return of each verdict
}

func (a *assembler) emit(code uint16, jt, jf uint8, k uint32) label {
	a.rev = append(a.rev, Insn{Code: code, JT: jt, JF: jf, K: k})
	return label(len(a.rev) - 1)
}

// ret returns a label where the verdict is returned.
func (a *assembler) ret(v Verdict) label {
	if l, ok := a.rets[v]; ok {
		return l
	}
	l := a.emit(ret, 0, 0, uint32(v))
	a.rets[v] = l
	return l
}

// distance is the offset of a jump to l in an instruction emitted after skip
// further ones.
func (a *assembler) distance(l label, skip int) int { return len(a.rev) + skip - int(l) - 1 }

// near returns a label with the same effect as l which a conditional jump
// still reaches even after another call of near.
func (a *assembler) near(l label) label {
	if a.distance(l, 2) <= math.MaxUint8 {
		return l
	}
	target := a.rev[l]
	if target.Code == ret {
		n := a.emit(ret, 0, 0, target.K)
		a.rets[Verdict(target.K)] = n
		return n
	}
	return a.emit(ja, 0, 0, uint32(a.distance(l, 0)))
}

// jump emits a conditional jump.
func (a *assembler) jump(code uint16, k uint32, yes, no label) label {
	yes, no = a.near(yes), a.near(no)
	return a.emit(code, uint8(a.distance(yes, 0)), uint8(a.distance(no, 0)), k)
}

// program returns the instructions in the order of execution.
func (a *assembler) program() ([]Insn, error) {
	if len(a.rev) > maxInsns {
		return nil, ErrTooLarge
	}
	slices.Reverse(a.rev)
	return a.rev, nil
}

// half emits a 32-bit comparison of one half of an argument.
func (a *assembler) half(code uint16, off, mask, k uint32, yes, no label) label {
	l := a.jump(code, k, yes, no)
	if mask != math.MaxUint32 {
		l = a.emit(and, 0, 0, mask)
	}
	return a.load(off, l)
}

// load emits a load that goes on at l. Unless l was emitted last, a jump gets
// there.
func (a *assembler) load(off uint32, l label) label {
	if int(l) != len(a.rev)-1 {
		a.emit(ja, 0, 0, uint32(a.distance(l, 0)))
	}
	return a.emit(ldAbs, 0, 0, off)
}

// argOffsets returns where the halves of an argument are in seccomp_data.
func (a *arch) argOffsets(arg uint8) (low, high uint32) {
	low = offArgs + 8*uint32(arg)
	if a.big {
		return low + 4, low
	}
	return low, low + 4
}

// cond emits a condition.
func (a *assembler) cond(r *arch, c cond, yes, no label) label {
	if c.negate {
		yes, no = no, yes
	}
	low, high := r.argOffsets(c.arg)
	valueLow, valueHigh := uint32(c.value), uint32(c.value>>32)
	maskLow, maskHigh := uint32(c.mask), uint32(c.mask>>32)

	l := yes
	switch {
	case c.op == opGE:
		l = a.half(jge, low, maskLow, valueLow, yes, no)
	case c.op == opGT:
		l = a.half(jgt, low, maskLow, valueLow, yes, no)
	case maskLow != 0:
		l = a.half(jeq, low, maskLow, valueLow, yes, no)
	}
	switch {
	case !r.wide:
		return l
	case c.op == opEQ && maskHigh == 0:
		return l
	case c.op == opEQ:
		return a.half(jeq, high, maskHigh, valueHigh, l, no)
	case valueHigh == 0: // above zero is the same as not zero
		return a.half(jeq, high, maskHigh, 0, l, yes)
	}
	equal := a.jump(jeq, valueHigh, l, no)
	return a.load(high, a.jump(jgt, valueHigh, yes, equal))
}

// rules emits the conditional rules of a call, which end in the default.
func (a *assembler) rules(r *arch, rules []rule, def Verdict) label {
	next := a.ret(def)
	for end := len(rules); end > 0; {
		start := equalRun(rules[:end])
		if end-start > 1 {
			next = a.anyOf(r, rules[start:end], next)
		} else {
			yes := a.ret(rules[start].verdict)
			conds := rules[start].conds
			for i := len(conds) - 1; i >= 0; i-- {
				yes = a.cond(r, conds[i], yes, next)
			}
			next = yes
		}
		end = start
		if len(a.rev) > maxInsns {
			break // program reports it
		}
	}
	return next
}

// equalRun returns where the last run of rules starts that compare one whole
// argument with values of the same upper half, and nothing else.
func equalRun(rules []rule) int {
	last := len(rules) - 1
	i := last
	for ; i >= 0; i-- {
		c, d := rules[i].conds, rules[last].conds
		if len(c) != 1 || len(d) != 1 || c[0].op != opEQ || c[0].negate || c[0].masked || d[0].masked ||
			d[0].negate || d[0].op != opEQ || c[0].arg != d[0].arg || c[0].value>>32 != d[0].value>>32 {
			break
		}
	}
	return min(i+1, last)
}

// anyOf emits a run of comparisons of one argument, loading it once.
func (a *assembler) anyOf(r *arch, rules []rule, no label) label {
	low, high := r.argOffsets(rules[0].conds[0].arg)
	l := no
	for i := len(rules) - 1; i >= 0; i-- {
		l = a.jump(jeq, uint32(rules[i].conds[0].value), a.ret(rules[i].verdict), l)
	}
	l = a.load(low, l)
	if r.wide {
		l = a.half(jeq, high, math.MaxUint32, uint32(rules[0].conds[0].value>>32), l, no)
	}
	return l
}

// A target is what a number leads to: a verdict, or a call's rules.
type target struct {
	verdict  Verdict
	rules    label // used if hasRules
	hasRules bool
}

// A span is a range of numbers with one target, up to the next span's start.
type span struct {
	start uint32
	to    target
}

// merge joins neighbours with the same target.
func merge(spans []span) []span {
	out := spans[:0]
	for _, s := range spans {
		if len(out) == 0 || out[len(out)-1].to != s.to {
			out = append(out, s)
		}
	}
	return out
}

// search emits a binary search for the number in the accumulator.
func (a *assembler) search(spans []span) label {
	if len(spans) == 1 {
		if to := spans[0].to; to.hasRules {
			return to.rules
		}
		return a.ret(spans[0].to.verdict)
	}
	mid := len(spans) / 2
	high := a.search(spans[mid:])
	low := a.search(spans[:mid])
	return a.jump(jge, spans[mid].start, high, low)
}
