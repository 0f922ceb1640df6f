package vm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// vmmOf is a VMM's processors: what it was told, and what it does when told.
type vmmOf struct {
	standing bool
	fails    error // of the next command
	lost     bool  // which does not arrive; else it is carried out all the same
}

func (v *vmmOf) processors() *processors {
	set := func(standing bool) func(context.Context) error {
		return func(context.Context) error {
			if !v.lost {
				v.standing = standing
			}
			err := v.fails
			v.fails, v.lost = nil, false
			return err
		}
	}
	return &processors{stop: set(true), cont: set(false)}
}

// TestProcessors: what several ask of a paused machine at once does not change for how
// long it is paused.
func TestProcessors(t *testing.T) {
	ctx := context.Background()
	failed := errors.New("no answer")
	type step struct {
		do       string // with "!" without an answer, with "?" lost
		standing bool   // after it
	}
	for name, steps := range map[string][]step{
		"asked while paused":                {{"hold", true}, {"ask", false}, {"done", true}, {"release", false}},
		"two ask":                           {{"hold", true}, {"ask", false}, {"ask", false}, {"done", false}, {"done", true}},
		"resumed while somebody asks":       {{"hold", true}, {"ask", false}, {"release", false}, {"done", false}},
		"paused while somebody asks":        {{"ask", false}, {"hold", false}, {"done", true}, {"release", false}},
		"paused twice":                      {{"hold", true}, {"hold", true}, {"release", false}},
		"never paused":                      {{"ask", false}, {"done", false}, {"release", false}},
		"no answer to stop, and taken back": {{"hold!", true}, {"release", false}},
		"no answer to stop, and asked":      {{"hold!", true}, {"ask", false}, {"done", false}},
		"no answer to the end of asking":    {{"hold", true}, {"ask", false}, {"done!", true}, {"ask", false}, {"done", true}},
		"no answer to cont":                 {{"hold", true}, {"release!", false}, {"release", false}},
		"no answer to who asks":             {{"hold", true}, {"ask!", false}, {"release", false}},
		"never told to stop":                {{"hold?", false}, {"hold", true}, {"release", false}},
		"nor to go on":                      {{"hold?", false}, {"release?", false}, {"hold", true}},
		"not told of the end of asking":     {{"hold", true}, {"ask", false}, {"done?", false}, {"hold", true}},
		"never told to go on":               {{"hold", true}, {"release?", true}, {"release", false}},
	} {
		t.Run(name, func(t *testing.T) {
			v := &vmmOf{}
			p := v.processors()
			var asking []func()
			for n, s := range steps {
				what, fails := s.do, false
				if name, how := what[:len(what)-1], what[len(what)-1]; how == '!' || how == '?' {
					what, fails, v.fails, v.lost = name, true, failed, how == '?'
				}
				var err error
				switch what {
				case "hold":
					err = p.hold(ctx)
				case "release":
					_, err = p.release(ctx)
				case "ask":
					var done func()
					if done, err = p.ask(ctx); err == nil {
						asking = append(asking, done)
					}
				case "done":
					asking[0]()
					asking = asking[1:]
					fails = false // it has nobody to tell
				}
				if (err != nil) != fails {
					t.Fatalf("step %d, %s: %v", n, s.do, err)
				}
				if v.standing != s.standing {
					t.Fatalf("step %d, %s: the processors stand: %v", n, s.do, v.standing)
				}
			}
		})
	}
}

// TestHoldWaits: a machine that is said to be paused stands, whoever was just having a
// look at its guest.
func TestHoldWaits(t *testing.T) {
	held := func(t *testing.T, ctx context.Context, v *vmmOf, p *processors) <-chan error {
		t.Helper()
		end := make(chan error, 1)
		go func() { end <- p.hold(ctx) }()
		synctest.Wait()
		select {
		case err := <-end:
			t.Fatalf("paused while somebody looks: %v, the processors stand: %v", err, v.standing)
		default:
		}
		return end
	}
	t.Run("for all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := &vmmOf{}
			p := v.processors()
			first, second := p.askUnlessHeld(), p.askUnlessHeld()
			first()
			end := held(t, t.Context(), v, p)
			if p.askUnlessHeld() != nil {
				t.Error("another comes while they are to stand")
			}
			second()
			if err := <-end; err != nil || !v.standing {
				t.Errorf("when nobody looks: %v, the processors stand: %v", err, v.standing)
			}
		})
	})
	t.Run("and says what fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := &vmmOf{}
			p := v.processors()
			done := p.askUnlessHeld()
			end := held(t, t.Context(), v, p)
			v.fails, v.lost = errors.New("no answer"), true
			done()
			if err := <-end; err == nil {
				t.Errorf("no error, and the processors stand: %v", v.standing)
			}
		})
	})
	t.Run("until its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := &vmmOf{}
			p := v.processors()
			done := p.askUnlessHeld()
			ctx, cancel := context.WithCancel(t.Context())
			end := held(t, ctx, v, p)
			cancel()
			if err := <-end; !errors.Is(err, context.Canceled) {
				t.Errorf("called off: %v", err)
			}
			done()
			if again := p.askUnlessHeld(); v.standing || again == nil {
				t.Errorf("called off, and the processors stand: %v, nobody may look: %v", v.standing, again == nil)
			}
		})
	})
}
