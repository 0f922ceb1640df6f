// Package terminal handles the person's side of an interactive workload: raw
// mode, window size and signals.
//
// While a terminal is raw, whatever ends this program must put it back, or the
// person is left with a shell that does not echo. Raw.Restore may therefore be
// called from anywhere and any number of times, and Guard covers the ways out
// that a deferred call does not see.
package terminal

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// IsTerminal reports whether f is a terminal. f may be anything that a command
// reads or writes.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && file != nil && term.IsTerminal(int(file.Fd()))
}

// Size returns the size of the terminal f in characters, zeros if f is none or
// does not know.
func Size(f any) (rows, cols uint16) {
	file, ok := f.(*os.File)
	if !ok || file == nil {
		return 0, 0
	}
	w, h, err := term.GetSize(int(file.Fd()))
	if err != nil || w < 0 || h < 0 || w > 0xffff || h > 0xffff {
		return 0, 0
	}
	return uint16(h), uint16(w)
}

// Raw is a terminal in raw mode: every key reaches the program at once, none is
// interpreted here.
type Raw struct {
	fd    int
	mu    sync.Mutex
	saved *term.State // nil once restored
}

// MakeRaw switches f to raw mode.
func MakeRaw(f *os.File) (*Raw, error) {
	saved, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("switch %s to raw mode: %w", f.Name(), err)
	}
	return &Raw{fd: int(f.Fd()), saved: saved}, nil
}

// Restore puts the terminal back as MakeRaw found it. Only the first call does
// anything. It may be called on nil.
func (r *Raw) Restore() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.saved != nil {
		_ = term.Restore(r.fd, r.saved) // the terminal may be gone; nothing else can be done
		r.saved = nil
	}
}

// again makes the terminal raw once more, after a shell that had stopped us
// changed it. It does nothing after Restore.
func (r *Raw) again() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.saved != nil {
		_, _ = term.MakeRaw(r.fd)
	}
}

// Go runs f in a goroutine. If f panics the terminal is restored before the
// program ends, so that the message can be read and the shell used.
func (r *Raw) Go(f func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				r.Restore()
				panic(p)
			}
		}()
		f()
	}()
}
