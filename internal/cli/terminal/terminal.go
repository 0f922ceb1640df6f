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
	"os/signal"
	"sync"
	"syscall"

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

// fatal are signals that end a program which does not forward them.
var fatal = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}

// Guard watches signals while a terminal is raw, until stop is called: one that
// ends this program restores the terminal first and then exits with 128 + its
// number; SIGWINCH calls resized; SIGCONT makes the terminal raw again.
func Guard(r *Raw, resized func(), exit func(code int)) (stop func()) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, append([]os.Signal{syscall.SIGWINCH, syscall.SIGCONT}, fatal...)...)
	return loop(r, ch, func(sig syscall.Signal) {
		switch sig {
		case syscall.SIGCONT:
			r.again()
			resized()
		case syscall.SIGWINCH:
			resized()
		default:
			r.Restore()
			exit(128 + int(sig))
		}
	})
}

// Proxy passes the signals that this program gets to send, until stop is
// called. Those that concern this program alone are left out: stops by the
// terminal (SIGTSTP, SIGTTIN, SIGTTOU), SIGCHLD, SIGPIPE, SIGWINCH, and SIGURG,
// which the Go runtime sends itself.
func Proxy(send func(syscall.Signal)) (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch, proxied()...)
	return loop(nil, ch, send)
}

// proxied lists what Proxy passes on.
func proxied() []os.Signal {
	var all []os.Signal
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGWINCH,
			syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT,
			syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGPROF, syscall.SIGVTALRM,
			32, 33: // used by C libraries for themselves
			continue
		}
		all = append(all, n)
	}
	return all
}

// loop calls handle for each signal in a goroutine that stop ends and waits for.
func loop(r *Raw, ch chan os.Signal, handle func(syscall.Signal)) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	r.Go(func() {
		defer close(done)
		for {
			select {
			case s := <-ch:
				if sig, ok := s.(syscall.Signal); ok {
					handle(sig)
				}
			case <-quit:
				return
			}
		}
	})
	var once sync.Once
	return func() {
		once.Do(func() {
			signal.Stop(ch)
			close(quit)
			<-done
		})
	}
}
