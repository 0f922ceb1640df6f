package seccomp

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Disassemble returns the program as text, an instruction a line, in the
// notation of the kernel's bpf_dbg with absolute jump targets.
func (f Filter) Disassemble() string {
	var b strings.Builder
	for pc, i := range f.Insns {
		fmt.Fprintf(&b, "%4d  %s\n", pc, i.text(pc))
	}
	return b.String()
}

func (i Insn) text(pc int) string {
	jump := func(name string) string {
		return fmt.Sprintf("%s #%#x, %d, %d", name, i.K, pc+1+int(i.JT), pc+1+int(i.JF))
	}
	switch i.Code {
	case ldAbs:
		return "ld " + fieldName(i.K)
	case and:
		return fmt.Sprintf("and #%#x", i.K)
	case ja:
		return fmt.Sprintf("ja %d", uint64(pc)+1+uint64(i.K))
	case jeq:
		return jump("jeq")
	case jgt:
		return jump("jgt")
	case jge:
		return jump("jge")
	case jset:
		return jump("jset")
	case ret:
		return "ret " + Verdict(i.K).String()
	}
	return fmt.Sprintf("code %#x %d %d %#x", i.Code, i.JT, i.JF, i.K)
}

func fieldName(off uint32) string {
	switch {
	case off == offNR:
		return "nr"
	case off == offArch:
		return "arch"
	case off >= offArgs && off < dataSize:
		return fmt.Sprintf("args[%d]+%d", (off-offArgs)/8, off%8)
	}
	return fmt.Sprintf("[%d]", off)
}

// Summary says in one line what a profile does to the calls of this program's
// architecture, such as "default errno 1, newer calls errno 38, 337 calls
// allow, 3 by arguments, 1 errno 38; architectures X86_64, X86, X32".
func Summary(s *specs.LinuxSeccomp) (string, error) {
	native, err := nativeArch()
	if err != nil {
		return "", err
	}
	return summaryFor(s, native)
}

func summaryFor(s *specs.LinuxSeccomp, native *arch) (string, error) {
	p, err := prepare(s, native)
	if err != nil {
		return "", err
	}
	calls, newest, err := p.calls(native)
	if err != nil {
		return "", err
	}
	var order []string
	count := map[string]int{}
	for _, c := range calls {
		kind := c.rules[0].verdict.String()
		if len(c.rules[0].conds) > 0 {
			kind = "by arguments"
		}
		if count[kind] == 0 {
			order = append(order, kind)
		}
		count[kind]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "default %s", p.def)
	if u := p.unknown(newest); u != p.def {
		fmt.Fprintf(&b, ", newer calls %s", u)
	}
	unit := " calls"
	for _, kind := range order {
		fmt.Fprintf(&b, ", %d%s %s", count[kind], unit, kind)
		unit = ""
	}
	b.WriteString("; architectures ")
	for i, a := range p.arches {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strings.TrimPrefix(string(a.name), "SCMP_ARCH_"))
	}
	return b.String(), nil
}

// Explain returns the calls of this program's architecture that a profile
// names, a line each, in the order of their numbers: "socket: allow if arg0 &
// 0xffffffe0 == 0". Calls that are not listed get the default action.
func Explain(s *specs.LinuxSeccomp) ([]string, error) {
	native, err := nativeArch()
	if err != nil {
		return nil, err
	}
	p, err := prepare(s, native)
	if err != nil {
		return nil, err
	}
	calls, _, err := p.calls(native)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, c := range calls {
		name := SyscallName(native.audit, c.nr)
		for _, r := range c.rules {
			lines = append(lines, name+": "+r.String())
		}
	}
	return lines, nil
}

// String returns the rule in words.
func (r rule) String() string {
	text := r.verdict.String()
	for i, c := range r.conds {
		if i == 0 {
			text += " if "
		} else {
			text += " and "
		}
		text += c.String()
	}
	return text
}

func (c cond) String() string {
	operator := [...][2]string{opEQ: {"==", "!="}, opGE: {">=", "<"}, opGT: {">", "<="}}[c.op]
	o := operator[0]
	if c.negate {
		o = operator[1]
	}
	if c.masked {
		return fmt.Sprintf("arg%d & %#x %s %#x", c.arg, c.mask, o, c.value)
	}
	return fmt.Sprintf("arg%d %s %#x", c.arg, o, c.value)
}
