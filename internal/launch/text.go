package launch

import (
	"fmt"
	"io"
	"strings"
)

// WriteTo prints the program: one line a step, the actor, the call with its
// arguments, where the result goes, and the reason.
//
//	host   unshare(CLONE_FS|CLONE_NEWNS)              # a mount namespace of the initial user namespace
func (p *Program) WriteTo(w io.Writer) (int64, error) {
	const column = 72
	var n int64
	for _, s := range p.Steps {
		line := fmt.Sprintf("%-7s %s", s.Actor, p.text(s))
		if s.Why != "" {
			if pad := column - len([]rune(line)); pad > 0 {
				line += strings.Repeat(" ", pad)
			}
			line += "  # " + s.Why
		}
		m, err := io.WriteString(w, line+"\n")
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// String returns what WriteTo prints.
func (p *Program) String() string {
	var b strings.Builder
	p.WriteTo(&b)
	return b.String()
}

// text prints one step without actor and reason.
func (p *Program) text(s *Step) string {
	var b strings.Builder
	switch s.kind {
	case goFunc:
		return "(" + s.Why + ")"
	case given:
		return "(given) = $" + p.slots[s.Save]
	case closeOthers:
		b.WriteString("close_range(all but ")
		b.WriteString(p.args(s.keep))
		b.WriteString(")")
	default:
		fmt.Fprintf(&b, "%s(%s)", s.Call, p.args(s.Args))
	}
	if s.kind == fork {
		fmt.Fprintf(&b, " → %s", s.child)
	}
	if s.Save != 0 {
		b.WriteString(" = $" + p.slots[s.Save])
	}
	for i, e := range s.Tolerate {
		if i == 0 {
			b.WriteString(" or ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(errnoName(e))
	}
	return b.String()
}

func (p *Program) args(args []Arg) string {
	parts := make([]string, len(args))
	for i, a := range args {
		parts[i] = p.arg(a)
	}
	return strings.Join(parts, ", ")
}

func (p *Program) arg(a Arg) string {
	switch a.kind {
	case argSlot:
		return "$" + p.slots[a.slot]
	case argSlotAddr:
		return "&$" + p.slots[a.slot]
	case argPath:
		return quote(strings.Replace(a.text, "%d", "$"+p.slots[a.slot], 1))
	}
	return a.text
}
