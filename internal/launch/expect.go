package launch

// Expected is one step as a tracer of system calls sees it.
type Expected struct {
	Call string
	// Args are the arguments that are known before the program runs; nil stands
	// for a pointer or for the result of an earlier step.
	Args []*uint64
	// Repeated: one call or more (close_range over the gaps between the
	// descriptors to keep).
	Repeated bool
	// Await: the host waits for a message, which it may have read already while
	// it waited for another. There are as many reads as messages.
	Await bool
}

// Expect lists the system calls of one actor in order, as they must appear in a
// trace: none missing, none besides.
func (p *Program) Expect(a Actor) []Expected {
	var out []Expected
	for _, s := range p.Steps {
		if s.Actor != a || s.kind == goFunc || s.kind == given {
			continue
		}
		e := Expected{Call: s.Call.String(), Repeated: s.kind == closeOthers, Await: s.kind == await}
		for _, arg := range s.Args {
			var known *uint64
			if arg.kind == argInt {
				n := uint64(arg.n)
				known = &n
			}
			e.Args = append(e.Args, known)
		}
		out = append(out, e)
	}
	return out
}
