package terminal

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// fatal are signals that end a program which does not forward them.
var fatal = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}

// Guard watches signals while a terminal is raw, until stop is called: one that
// ends this program restores the terminal first and then exits with 128 + its
// number; SIGWINCH calls resized; SIGCONT makes the terminal raw again. What canceled
// ctx, of Interruptible, comes first, as with Proxy.
func Guard(ctx context.Context, r *Raw, resized func(), exit func(code int)) (stop func()) {
	return takeOver(ctx, r, append([]os.Signal{syscall.SIGWINCH, syscall.SIGCONT}, fatal...), func(sig syscall.Signal) {
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

// GuardStart is Guard for the time before there is anything that signals are for, in
// which SIGINT and SIGTERM may have others that wait for them. Until stop is called,
// writing to a pipe that nobody reads fails (EPIPE) and does not end this program, which
// would leave the terminal raw.
func GuardStart(r *Raw, exit func(code int)) (stop func()) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	return loop(r, ch, func(sig syscall.Signal) {
		if sig == syscall.SIGPIPE {
			return // the write tells; ignored, the signal would be so in programs that are started
		}
		r.Restore()
		exit(128 + int(sig))
	})
}

// Resized calls f for each SIGWINCH, until stop is called.
func Resized(f func()) (stop func()) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, syscall.SIGWINCH)
	return loop(nil, ch, func(syscall.Signal) { f() })
}

// interrupts are SIGINT and SIGTERM, of which each either cancels a context or, once
// Proxy has taken them over, is passed on.
type interrupts struct {
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	came []syscall.Signal     // before anybody took them over
	send func(syscall.Signal) // nil while they cancel
}

// interruptsKey is the key of a context's interrupts.
type interruptsKey struct{}

// interruption is the cause of what a signal canceled. Whoever asks a context for the
// cause, and not for its error, returns one: it is context.Canceled all the same.
type interruption syscall.Signal

func (i interruption) Error() string { return syscall.Signal(i).String() }

func (interruption) Is(target error) bool { return target == context.Canceled }

// Interruption returns the signal that canceled a context of Interruptible, 0 for none.
func Interruption(ctx context.Context) syscall.Signal {
	var by interruption
	errors.As(context.Cause(ctx), &by)
	return syscall.Signal(by)
}

// Interruptible returns a context that SIGINT and SIGTERM cancel, until stop is called
// or Proxy passes them on.
func Interruptible(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	in := &interrupts{cancel: cancel}
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	end := loop(nil, ch, in.handle)
	return context.WithValue(ctx, interruptsKey{}, in), func() {
		end()
		cancel(nil)
	}
}

func (in *interrupts) handle(sig syscall.Signal) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.send != nil {
		in.send(sig)
		return
	}
	in.came = append(in.came, sig)
	in.cancel(interruption(sig))
}

// passOn sends what comes from now on, after what came before. With nil signals
// cancel again.
func (in *interrupts) passOn(send func(syscall.Signal)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.send = send; send == nil {
		return
	}
	for _, sig := range in.came {
		send(sig)
	}
	in.came = nil
}

// Proxy passes the signals that this program gets to send, each once, until stop is
// called. What canceled ctx, of Interruptible, comes first: it came after the process
// had been started and before anybody watched for it. Signals that concern this
// program alone are left out: stops by the terminal (SIGTSTP, SIGTTIN, SIGTTOU),
// SIGCHLD, SIGPIPE, SIGWINCH, and SIGURG, which the Go runtime sends itself.
func Proxy(ctx context.Context, send func(syscall.Signal)) (stop func()) {
	return takeOver(ctx, nil, proxied(), send)
}

// takeOver calls handle for each of the signals, SIGINT and SIGTERM being those of
// ctx, if it is of Interruptible: also those that came before.
func takeOver(ctx context.Context, r *Raw, signals []os.Signal, handle func(syscall.Signal)) (stop func()) {
	ch := make(chan os.Signal, 128)
	var rest []os.Signal
	in, _ := ctx.Value(interruptsKey{}).(*interrupts)
	for _, sig := range signals {
		if in == nil || sig != syscall.SIGINT && sig != syscall.SIGTERM {
			rest = append(rest, sig)
		}
	}
	signal.Notify(ch, rest...)
	end := loop(r, ch, handle)
	if in == nil {
		return end
	}
	in.passOn(handle)
	return func() {
		in.passOn(nil)
		end()
	}
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
