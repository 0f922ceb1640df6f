package launch

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawStep is a child's step in the form that walk reads. Pointers inside args
// are kept alive by the Program they came from.
type rawStep struct {
	nr        uintptr
	args      [6]uintptr
	from      [6]uint16 // slot whose value is the argument, 0: args as it is
	patch     *uint64   // where to store the value of patchSlot first
	patchSlot uint16
	save      uint16
	branch    *rawList // fork: what the child walks
	want      int64
	tolerate  [4]uint32
	index     uint64 // of the step in the program
}

// rawList is the compiled list of one child.
type rawList struct{ steps []rawStep }

// memory is everything that the children read and write, prepared by the host.
type memory struct {
	values [maxSlots + 1]uintptr
	record [2]uint64 // the failure that is reported
}

// compile turns the steps of a child, and of the children it forks, into raw
// form. It runs right before the fork, when the host's slots have values.
func (p *Program) compile(a Actor, m *memory) *rawList {
	list := &rawList{}
	for i, s := range p.Steps {
		if s.Actor != a {
			continue
		}
		if s.kind == closeOthers {
			list.steps = append(list.steps, p.compileCloseOthers(s, m, i)...)
			continue
		}
		r := p.raw(s, m, i)
		if s.kind == fork {
			r.branch = p.compile(s.child, m)
		}
		list.steps = append(list.steps, r)
	}
	return list
}

func (p *Program) raw(s *Step, m *memory, index int) rawStep {
	r := rawStep{nr: uintptr(s.Call), save: uint16(s.Save), want: s.want, index: uint64(index)}
	for i, e := range s.Tolerate {
		r.tolerate[i] = uint32(e)
	}
	for i, a := range s.Args {
		switch a.kind {
		case argInt:
			r.args[i] = a.n
		case argSlot:
			r.from[i] = uint16(a.slot)
		case argSlotAddr:
			r.args[i] = uintptr(unsafe.Pointer(&m.values[a.slot]))
		case argMem:
			r.args[i] = uintptr(a.mem)
		case argPatched:
			r.args[i] = uintptr(a.mem)
			r.patch = (*uint64)(unsafe.Add(a.mem, a.off))
			r.patchSlot = uint16(a.slot)
		}
	}
	return r
}

// compileCloseOthers makes a close_range of every gap between the descriptors
// to keep.
func (p *Program) compileCloseOthers(s *Step, m *memory, index int) []rawStep {
	var keep []uintptr
	for _, a := range s.keep {
		n := a.n
		if a.kind == argSlot {
			n = m.values[a.slot]
		}
		keep = append(keep, n)
	}
	slices.Sort(keep)
	var out []rawStep
	next := uintptr(0)
	add := func(from, to uintptr) {
		if from <= to {
			out = append(out, rawStep{nr: unix.SYS_CLOSE_RANGE, args: [6]uintptr{from, to, 0}, want: -1, index: uint64(index)})
		}
	}
	for _, fd := range keep {
		if fd > next {
			add(next, fd-1)
		}
		next = max(next, fd+1)
	}
	add(next, 1<<32-1)
	return out
}

// hostArgs are the arguments of a host's step. Strings that are formatted now
// are returned too, to be kept alive over the call.
func (p *Program) hostArgs(s *Step, m *memory) (args [6]uintptr, keep []byte) {
	for i, a := range s.Args {
		switch a.kind {
		case argInt:
			args[i] = a.n
		case argSlot:
			args[i] = m.values[a.slot]
		case argSlotAddr:
			args[i] = uintptr(unsafe.Pointer(&m.values[a.slot]))
		case argMem:
			args[i] = uintptr(a.mem)
		case argPatched:
			*(*uint64)(unsafe.Add(a.mem, a.off)) = uint64(m.values[a.slot])
			args[i] = uintptr(a.mem)
		case argPath:
			keep = append([]byte(strings.Replace(a.text, "%d", strconv.Itoa(int(m.values[a.slot])), 1)), 0)
			args[i] = uintptr(unsafe.Pointer(&keep[0]))
		}
	}
	return args, keep
}

func errnoName(e syscall.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return "errno " + strconv.Itoa(int(e))
}
