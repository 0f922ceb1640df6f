package launch

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Program is a list of steps in the order in which a reader follows them. Each
// actor performs its own in that order; steps of different actors run side by
// side except where one waits for another.
type Program struct {
	Name  string
	Steps []*Step

	slots []string       // names, by Slot; slots[0] is unused
	names map[string]int // how often each was taken
	keep  map[Slot]bool
	built bool
	ran   bool
	err   error

	statusRead, statusWrite Slot
	messages                int
	phase                   string
}

// Phase names what the steps that follow are for, in a trace of the start.
func (p *Program) Phase(name string) { p.phase = name }

// New returns an empty program.
func New(name string) *Program {
	return &Program{Name: name, slots: []string{""}, keep: map[Slot]bool{}}
}

// Slot makes a new slot, printed as $name; a second one of the same name as
// $name.2.
func (p *Program) Slot(name string) Slot {
	if len(p.slots) > maxSlots {
		p.fail(fmt.Errorf("more than %d results to keep: too many mounts or layers", maxSlots))
		return 1
	}
	if p.names == nil {
		p.names = map[string]int{}
	}
	if p.names[name]++; p.names[name] > 1 {
		name += "." + strconv.Itoa(p.names[name])
	}
	p.slots = append(p.slots, name)
	return Slot(len(p.slots) - 1)
}

func (p *Program) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// Do adds one system call.
func (p *Program) Do(a Actor, c Call, why string, args ...Arg) *Step {
	s := &Step{Actor: a, Call: c, Args: args, Why: why, want: -1}
	p.add(s)
	return s
}

func (p *Program) add(s *Step) {
	if len(s.Args) > 6 {
		p.fail(fmt.Errorf("%s with %d arguments", s.Call, len(s.Args)))
	}
	for _, a := range s.Args {
		if a.text == badString {
			p.fail(fmt.Errorf("%s: a string holds a NUL byte", s.Call))
		}
		if a.kind == argPath && s.Actor != Host {
			p.fail(fmt.Errorf("%s: only the host can format a path", s.Call))
		}
	}
	s.phase = p.phase
	p.Steps = append(p.Steps, s)
}

// Fork adds the clone by which the child begins its own steps. parent gets the
// child's process ID in pid. flags are those of clone(2), without the exit
// signal. With cgroup set the child is born in that cgroup v2 directory
// (clone3, CLONE_INTO_CGROUP).
func (p *Program) Fork(parent, child Actor, flags uintptr, flagText string, pid, cgroup Slot, why string) *Step {
	s := &Step{Actor: parent, Why: why, kind: fork, child: child, Save: pid, want: -1}
	exit := uint64(unix.SIGCHLD)
	if flags&unix.CLONE_PARENT != 0 {
		exit = 0 // CLONE_PARENT inherits the exit signal
	}
	if cgroup != 0 {
		b := U64(uint64(flags)|unix.CLONE_INTO_CGROUP, 0, 0, 0, exit, 0, 0, 0, 0, 0, 0)
		text := "{flags=" + orFlags(flagText, "CLONE_INTO_CGROUP") + ", exit_signal=SIGCHLD, cgroup=$" + p.slots[cgroup] + "}"
		s.Call, s.Args = Clone3, []Arg{Patched(b, 80, cgroup, text), Int(len(b))}
	} else {
		text := flagText
		if exit != 0 {
			text = orFlags(flagText, "SIGCHLD")
		}
		s.Call, s.Args = Clone, []Arg{Flag(flags|uintptr(exit), text), Null(), Null(), Null(), Int(0)}
	}
	p.add(s)
	return s
}

func orFlags(a, b string) string {
	if a == "" || a == "0" {
		return b
	}
	return a + "|" + b
}

// CloseOthers adds the close_range calls after which the actor, a child, holds
// no descriptor but keep. Which ranges these are is known when the host forks.
func (p *Program) CloseOthers(a Actor, why string, keep ...Arg) {
	p.add(&Step{Actor: a, Call: CloseRange, Why: why, kind: closeOthers, keep: keep, want: -1})
}

// Message is what one child tells the host once.
type Message int

// Tell adds a message from a child to the host: the value of slot, or nothing
// in particular when slot is 0.
func (p *Program) Tell(a Actor, slot Slot, why string) Message {
	p.messages++
	m := Message(p.messages)
	rec := U64(0, uint64(m)<<32)
	text := fmt.Sprintf("{0, #%d}", m)
	arg := Buf(rec, text)
	if slot != 0 {
		arg = Patched(rec, 0, slot, fmt.Sprintf("{$%s, #%d}", p.slots[slot], m))
	}
	p.Do(a, Write, why, Use(p.statusWrite), arg, Int(recordSize)).Wanting(recordSize)
	return m
}

// Await makes the host wait for a message; others that come before are kept for
// their own Await. With a slot, the message is the process ID of a child that
// the host has to reap from then on.
func (p *Program) Await(m Message, pid Slot, why string) {
	p.AwaitValue(m, pid, why)
	p.Steps[len(p.Steps)-1].reap = pid != 0
}

// AwaitValue makes the host wait for a message and saves its value.
func (p *Program) AwaitValue(m Message, slot Slot, why string) {
	p.add(&Step{Actor: Host, Call: Read, Why: why, kind: await, Save: slot, want: recordSize, message: m,
		Args: []Arg{Use(p.statusRead), Buf(make([]byte, recordSize), fmt.Sprintf("{value, #%d}", m)), Int(recordSize)}})
}

// Go adds ordinary Go code of the host between its system calls. It runs on the
// host's thread; value returns what a slot holds. Descriptors that it uses are
// named in uses, or they are closed before it runs.
func (p *Program) Go(why string, f func(value func(Slot) int) error, uses ...Slot) {
	s := &Step{Actor: Host, Why: why, kind: goFunc, run: f, want: -1}
	for _, u := range uses {
		s.keep = append(s.keep, Use(u))
	}
	p.add(s)
}

// Status declares the slots of the status pipe: the host's end and the end
// that the children write to.
func (p *Program) Status(read, write Slot) { p.statusRead, p.statusWrite = read, write }

// Given adds a descriptor that exists before the program runs: a pipe, or what
// a library opened. The program owns it from here on, whether it runs or not.
func (p *Program) Given(name string, fd int, why string) Slot {
	slot := p.Slot(name)
	p.add(&Step{Actor: Host, Why: why, kind: given, Save: slot, fd: true, want: -1, value: uintptr(fd)})
	return slot
}

// Close closes the given descriptors of a program that will not run.
func (p *Program) Close() {
	if p.ran {
		return
	}
	p.ran = true
	for _, s := range p.Steps {
		if s.kind == given && int(s.value) > 2 { // the standard streams are nobody's to close
			unix.Close(int(s.value))
		}
	}
}

// Keep leaves the descriptor in slot open when the program ends: the caller
// takes it over from Running.Value.
func (p *Program) Keep(slots ...Slot) {
	for _, s := range slots {
		p.keep[s] = true
	}
}

// Build completes the program: it checks it and adds the host's closes. Run
// and WriteTo work on a built program.
func (p *Program) Build() error {
	if p.err != nil {
		return p.err
	}
	if p.built {
		return errors.New("program is built already")
	}
	p.built = true
	p.Steps = p.withCloses()
	return nil
}

// withCloses puts a close after the last use of every descriptor that the host
// holds. A descriptor that a child uses is copied to it by the fork, so it
// lives at least until then.
func (p *Program) withCloses() []*Step {
	last := map[Slot]int{}
	forkAt := 0
	for i, s := range p.Steps {
		if s.Actor == Host && s.kind == fork {
			forkAt = i
		}
		if s.Actor == Host && s.fd && !p.keep[s.Save] {
			last[s.Save] = i
		}
	}
	for i, s := range p.Steps {
		for _, a := range append(s.Args[:len(s.Args):len(s.Args)], s.keep...) {
			if a.slot == 0 {
				continue
			}
			if _, ours := last[a.slot]; !ours {
				continue
			}
			at := i
			switch s.Actor {
			case Stage, Init:
				at = forkAt
			case Mounter: // shares the table: until the host has heard of its end
				at = p.nextHostStep(i)
			}
			last[a.slot] = max(last[a.slot], at)
		}
	}
	closes := map[int][]Slot{}
	for slot := range p.slots {
		if at, ok := last[Slot(slot)]; ok {
			closes[at] = append(closes[at], Slot(slot))
		}
	}
	var out []*Step
	for i, s := range p.Steps {
		out = append(out, s)
		for _, slot := range closes[i] {
			out = append(out, &Step{Actor: Host, Call: Close, Args: []Arg{Use(slot)}, want: -1})
		}
	}
	return out
}

func (p *Program) nextHostStep(i int) int {
	for j := i + 1; j < len(p.Steps); j++ {
		if p.Steps[j].Actor == Host {
			return j
		}
	}
	return i
}

// Described is a step in words, for a process that has the failure record but
// not the program.
type Described struct {
	Step string `json:"step"`
	Why  string `json:"why,omitempty"`
	What string `json:"what,omitempty"` // its first argument
	Call Call   `json:"call"`
}

// Error makes the error of the step.
func (d Described) Error(e syscall.Errno) error {
	return &StepError{Step: d.Step, Why: d.Why, What: d.What, Call: d.Call, Actor: Init, Errno: e}
}

// Failures describes the steps of Init from the one that first uses slot on, by
// the index that a failure record gives.
func (p *Program) Failures(slot Slot) map[uint64]Described {
	out := map[uint64]Described{}
	from := false
	for i, s := range p.Steps {
		if s.Actor != Init {
			continue
		}
		for _, a := range s.Args {
			from = from || a.slot == slot && slot != 0
		}
		if from {
			out[uint64(i)] = Described{Step: p.text(s), Why: s.Why, What: p.what(s), Call: s.Call}
		}
	}
	return out
}

func (p *Program) what(s *Step) string {
	if len(s.Args) == 0 {
		return ""
	}
	return p.arg(s.Args[0])
}

// StepError says which step of a program failed.
type StepError struct {
	Program string
	Step    string // as printed
	What    string // its first argument
	Why     string
	Actor   Actor
	Call    Call
	Errno   syscall.Errno // 0: the call succeeded with a result that was not wanted
	Err     error         // of ordinary Go
}

// Error names the purpose first, then the call.
func (e *StepError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Why, e.Err)
	}
	what := "unexpected result"
	if e.Errno != 0 {
		what = e.Errno.Error()
	}
	if e.Why == "" {
		return fmt.Sprintf("%s: %s", e.Step, what)
	}
	return fmt.Sprintf("%s: %s: %s", e.Why, e.Step, what)
}

// Unwrap returns the error number.
func (e *StepError) Unwrap() error {
	if e.Err != nil {
		return e.Err
	}
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

const recordSize = 16
