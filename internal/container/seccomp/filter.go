// Package seccomp turns the seccomp profile of a container into a program for
// the kernel, in pure Go.
//
// A profile (runtime spec, "linux.seccomp") lists system calls by name with an
// action each, for several architectures. Compile makes it a classic BPF
// program, which the launch program hands to seccomp(2). The program's
// verdicts are those of libseccomp with the changes that runc makes to them;
// where they differ on purpose, the place in this package says so, and the
// differential test lists it.
//
// Default is the profile that containers get; ParseProfile reads a profile
// file of the form that Docker uses. Filter.Run interprets a program, for
// tests and for telling which calls are open. Reporter names the calls that a
// running container was denied.
package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// An Insn is one instruction, with the layout of the kernel's struct
// sock_filter.
type Insn struct {
	Code uint16
	JT   uint8 // instructions to skip if the comparison holds
	JF   uint8 // and if it does not
	K    uint32
}

// Flags of seccomp(2), SECCOMP_SET_MODE_FILTER.
const (
	FlagTSync             = 1 << 0
	FlagLog               = 1 << 1
	FlagSpecAllow         = 1 << 2
	FlagNewListener       = 1 << 3
	FlagTSyncESRCH        = 1 << 4
	FlagWaitKillableRecv  = 1 << 5
	flagTSyncName         = "SECCOMP_FILTER_FLAG_TSYNC" // not in the runtime spec, but runc takes it
	listenerNeededForWait = "seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
)

// A Filter is a program ready for the kernel.
type Filter struct {
	Insns []Insn
	// Flags are for seccomp(2). They include FlagNewListener if Listener is
	// set.
	Flags uint
	// Listener says that some verdict is Notify. seccomp(2) then returns a
	// descriptor, and calls with that verdict block until someone answers them
	// there; without a listener they fail with ENOSYS. The one who installs
	// such a filter must be able to hand the descriptor over without a call
	// that the filter itself holds back.
	Listener bool
}

// Compile compiles a profile for the architecture of this program and those
// that the profile lists. It returns an UnknownArchError for an architecture
// without a table, ErrTooLarge for a profile beyond the kernel's limit.
//
// Calls of an architecture outside the profile kill the thread, as with
// libseccomp.
//
// If the default action is ERRNO, a number above the highest one that the
// profile names on its architecture fails with ENOSYS instead: the profile is
// older than the call, and a C library that probes for it must be told that it
// is missing, not that it is forbidden. runc does the same, for every default
// but ALLOW, LOG and TRACE; here a profile that kills by default kills. The
// private calls of 32-bit ARM do not count as named, they would put the limit
// out of reach.
func Compile(s *specs.LinuxSeccomp) (Filter, error) {
	native, err := nativeArch()
	if err != nil {
		return Filter{}, err
	}
	return compile(s, native)
}

func compile(s *specs.LinuxSeccomp, native *arch) (Filter, error) {
	p, err := prepare(s, native)
	if err != nil {
		return Filter{}, err
	}
	a := &assembler{rets: make(map[Verdict]label, 4), rev: make([]Insn, 0, 1024)}
	parts, err := p.parts(a)
	if err != nil {
		return Filter{}, err
	}
	next := a.ret(KillThread)
	for i := len(parts) - 1; i >= 0; i-- {
		next = a.jump(jeq, parts[i].audit, parts[i].start, next)
	}
	a.load(offArch, next)

	f := Filter{}
	if f.Insns, err = a.program(); err != nil {
		return Filter{}, err
	}
	for _, i := range f.Insns {
		if i.Code == ret && Verdict(i.K).Action() == Notify {
			f.Listener = true
		}
	}
	if f.Flags, err = flags(s.Flags, f.Listener); err != nil {
		return Filter{}, err
	}
	return f, nil
}

// A part of the program handles the calls of one AUDIT_ARCH value.
type part struct {
	audit uint32
	start label
}

// parts emits the part of each AUDIT_ARCH value.
func (p *profile) parts(a *assembler) ([]part, error) {
	var parts []part
	for i, r := range p.arches {
		if r.column == colX32 && p.has(colAMD64) {
			continue // together with amd64
		}
		var spans []span
		var err error
		switch r.column {
		case colAMD64, colX32:
			spans, err = p.x86Spans(a)
		default:
			spans, err = p.spans(a, nil, p.arches[i], 0)
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{r.audit, a.load(offNR, a.search(merge(spans)))})
		if len(a.rev) > maxInsns {
			return nil, ErrTooLarge
		}
	}
	return parts, nil
}

func (p *profile) has(column int) bool { return p.find(column) != nil }

func (p *profile) find(column int) *arch {
	for _, r := range p.arches {
		if r.column == column {
			return r
		}
	}
	return nil
}

// x86Spans covers both ABIs behind AUDIT_ARCH_X86_64. Calls of the one that
// the profile does not list kill the thread. The number -1 must not: a tracer
// sets it to skip a call, and it looks like one of x32.
func (p *profile) x86Spans(a *assembler) (spans []span, err error) {
	kill := target{verdict: KillThread}
	if r := p.find(colAMD64); r == nil {
		spans = append(spans, span{0, kill})
	} else if spans, err = p.spans(a, nil, r, 0); err != nil {
		return nil, err
	}
	// The last span ends where the next one starts.
	if r := p.find(colX32); r != nil {
		return p.spans(a, spans, r, x32Bit)
	}
	return append(spans, span{x32Bit, kill}, span{noCall, target{verdict: p.def}}), nil
}

// noCall is the number -1.
const noCall = 0xffffffff

// spans appends the ranges of one architecture, from the number first on.
func (p *profile) spans(a *assembler, spans []span, r *arch, first uint32) ([]span, error) {
	calls, newest, err := p.calls(r)
	if err != nil {
		return nil, err
	}
	def, unknown := target{verdict: p.def}, target{verdict: p.unknown(newest)}
	next := uint64(first)
	fill := func(until uint64) { // numbers without rules
		limit := max(next, uint64(newest)+1)
		if next < min(until, limit) {
			spans = append(spans, span{uint32(next), def})
		}
		if limit < until {
			spans = append(spans, span{uint32(limit), unknown})
		}
		next = until
	}
	for _, c := range calls {
		fill(uint64(c.nr))
		to := target{verdict: c.rules[0].verdict}
		if len(c.rules[0].conds) > 0 {
			to = target{rules: a.rules(r, c.rules, p.def), hasRules: true}
		}
		spans = append(spans, span{c.nr, to})
		next++
		if len(a.rev) > maxInsns {
			return nil, ErrTooLarge
		}
	}
	fill(1 << 32)
	return spans, nil
}

const enosys = 38

// unknown is the verdict for numbers above the newest one that the profile
// names, see Compile.
func (p *profile) unknown(newest uint32) Verdict {
	if p.def.Action() == Errno && newest != 0 {
		return Errno | enosys
	}
	return p.def
}

func flags(names []specs.LinuxSeccompFlag, listener bool) (uint, error) {
	var bits uint
	for _, name := range names {
		switch name {
		case flagTSyncName:
			bits |= FlagTSync
		case specs.LinuxSeccompFlagLog:
			bits |= FlagLog
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= FlagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			bits |= FlagWaitKillableRecv
		default:
			return 0, fmt.Errorf("seccomp: unknown flag %q", string(name))
		}
	}
	switch {
	case listener && bits&FlagTSync != 0:
		// Without ESRCH the kernel would have two meanings for the result.
		bits |= FlagNewListener | FlagTSyncESRCH
	case listener:
		bits |= FlagNewListener
	case bits&FlagWaitKillableRecv != 0:
		return 0, errors.New(listenerNeededForWait)
	}
	return bits, nil
}

// Bytes returns the program as the kernel reads it: an array of struct
// sock_filter in native byte order.
func (f Filter) Bytes() []byte {
	b := make([]byte, 0, 8*len(f.Insns))
	for _, i := range f.Insns {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.JT, i.JF)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}
