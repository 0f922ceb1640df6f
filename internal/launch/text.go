package launch

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// WriteTo prints the program: one line a step, the actor, the call with its
// arguments, where the result goes, and the reason. Closes in a row share a
// line.
//
//	host   unshare(CLONE_FS|CLONE_NEWNS)              # a mount namespace of the initial user namespace
func (p *Program) WriteTo(w io.Writer) (int64, error) {
	const column = 72
	var n int64
	for i := 0; i < len(p.Steps); i++ {
		s := p.Steps[i]
		line := fmt.Sprintf("%-7s %s", s.Actor, p.text(s))
		for closes(s) && i+1 < len(p.Steps) && closes(p.Steps[i+1]) {
			i++
			line += ", " + p.text(p.Steps[i])
		}
		if why := reason(s); why != "" {
			if pad := column - utf8.RuneCountInString(line); pad > 0 {
				line += strings.Repeat(" ", pad)
			}
			line += "  # " + why
		}
		m, err := io.WriteString(w, line+"\n")
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func closes(s *Step) bool { return s.Call == Close && s.Actor == Host && s.Why == "" }

// reason is why a step is there: what the planner says, or what the call is
// for wherever it occurs.
func reason(s *Step) string {
	if s.Why != "" || s.kind == given || s.kind == goFunc {
		return s.Why
	}
	switch s.Call {
	case Close:
		return "no longer needed"
	case Dup3:
		return "a standard stream"
	case ExitGroup:
		return "its work is done"
	case Fchdir:
		return "stand in the new root"
	case Fchownat:
		return "its owner inside"
	case Fsconfig:
		if len(s.Args) > 1 && s.Args[1].n == unix.FSCONFIG_CMD_CREATE {
			return "make the file system"
		}
		return "an option of it"
	case Fsmount:
		return "a mount of it, attached nowhere yet"
	case MountSetattr:
		return "attributes of the mount"
	case MoveMount:
		return "attach it there"
	case OpenTree:
		return "a clone, attached nowhere yet"
	case Openat, Openat2:
		return "by descriptor: no link can lead elsewhere"
	case PidfdOpen:
		return "a name for it that cannot be reused"
	case Prlimit64:
		return "a resource limit"
	case Setgroups:
		return "its supplementary groups"
	case Setresgid:
		return "its group"
	case Setsid:
		return "a session of its own"
	case Sethostname:
		return "the host name inside"
	case Symlinkat:
		return "a usual name"
	case Umask:
		return "permissions that new files lack"
	case Umount2:
		return "no longer needed there"
	case Wait4:
		return "reap it"
	case Chdir:
		return "out of the host's directories"
	case Ioctl:
		return "set it up"
	case Write:
		return "write it"
	case Prctl:
		return "as above"
	}
	return ""
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
