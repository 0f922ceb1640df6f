package vm

import (
	"context"
	"sync"
	"time"
)

// processors are those of a machine: while its workload is paused they stand, but
// for the time in which somebody asks its guest something. The zero value, with stop
// and cont, is that of a machine that runs.
type processors struct {
	stop, cont func(context.Context) error // of the VMM

	mu     sync.Mutex // held while they change
	held   bool       // they shall stand
	state  running
	askers int // who wants them to run in spite of held
	// How many of those come by askUnlessHeld; over is closed when the last of them is
	// done.
	looking int
	over    chan struct{}
}

// running is what processors do, as far as the VMM has said.
type running int

const (
	runs running = iota
	stands
	unknown // it was told to change that, and gave no answer
)

// hold stops them, at once or when the last who asks is done. It waits for those who
// came by askUnlessHeld, of whom no user knows.
func (p *processors) hold(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.held
	p.held = true // nobody else comes by askUnlessHeld
	err := ctx.Err()
	for p.looking > 0 && err == nil {
		over := p.over
		p.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.mu.Lock()
	}
	if err == nil {
		err = p.settle(ctx)
	}
	if err != nil {
		p.held = was && p.held // it may have been released meanwhile
	}
	return err
}

// release undoes hold, and reports whether there was anything to undo.
func (p *processors) release(ctx context.Context) (held bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held = p.held
	p.held = false
	if err = p.settle(ctx); err != nil {
		p.held = held
	}
	return held, err
}

// ask lets them run until done is called, whoever else holds or asks.
func (p *processors) ask(ctx context.Context) (done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.askers++
	if err := p.settle(ctx); err != nil {
		p.askers--
		return nil, err
	}
	return func() { p.done(ctx) }, nil
}

// done undoes ask.
func (p *processors) done(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.askers--
	p.settle(context.WithoutCancel(ctx)) //nolint:errcheck // a machine that is gone
}

// askUnlessHeld is ask, but where they stand it does nothing and returns nil.
func (p *processors) askUnlessHeld() (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		return nil
	}
	p.askers++
	if p.looking++; p.looking == 1 {
		p.over = make(chan struct{})
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.askers--
		if p.looking--; p.looking == 0 {
			close(p.over) // whoever holds them has waited, and stops them
		}
	}
}

// settle makes them stand or run, as is due. A VMM that gave no answer may have
// done what it was told, or not, so it is told again.
func (p *processors) settle(ctx context.Context) error {
	due, tell := runs, p.cont
	if p.held && p.askers == 0 {
		due, tell = stands, p.stop
	}
	if p.state == due {
		return nil
	}
	p.state = unknown
	err := within(ctx, killTimeout, tell)
	if err == nil {
		p.state = due
	}
	return err
}

// letGo lets the processors of a paused workload run, and tells the guest what time
// it has become.
func (m *machine) letGo(ctx context.Context) error {
	held, err := m.processors.release(ctx)
	if held && err == nil {
		m.clock.late.Store(true)
	}
	if err != nil || !m.clock.late.Load() {
		return err
	}
	err = within(ctx, killTimeout, func(ctx context.Context) error { return clientOf(m).SetClock(ctx, time.Now()) })
	if err == nil {
		m.clock.late.Store(false)
	}
	return err
}
