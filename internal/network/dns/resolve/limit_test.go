package resolve

import (
	"fmt"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	var b bucket
	taken := 0
	for range 50 {
		if b.take(now, 10, 20) {
			taken++
		}
	}
	if taken != 20 {
		t.Errorf("a burst of 20 gave %d", taken)
	}
	taken = 0
	for range 50 {
		now = now.Add(50 * time.Millisecond)
		if b.take(now, 10, 20) {
			taken++
		}
	}
	if taken < 24 || taken > 25 {
		t.Errorf("2.5 seconds at 10 a second gave %d", taken)
	}
	if now = now.Add(-time.Hour); b.take(now, 10, 20) && b.tokens > 20 {
		t.Errorf("a clock that goes back gave %f", b.tokens)
	}
}

// TestWaiting has many workloads wait for all that they may.
func TestWaiting(t *testing.T) {
	l := newLimits()
	var done []func()
	got := map[string]int{}
	for range 100 {
		for w := range 20 {
			name := fmt.Sprint(w)
			if d, ok := l.wait(name); ok {
				done = append(done, d)
				got[name]++
			}
		}
	}
	for name, n := range got {
		if n > clientWaiting {
			t.Errorf("workload %s has %d questions waiting", name, n)
		}
	}
	if len(done) < commonWaiting {
		t.Errorf("%d wait, where %d may", len(done), commonWaiting)
	}
	// One who comes now still has its own.
	for i := range ownWaiting + 1 {
		d, ok := l.wait("late")
		if ok != (i < ownWaiting) {
			t.Errorf("question %d of a latecomer: %t", i, ok)
		}
		if ok {
			done = append(done, d)
		}
	}
	for _, d := range done {
		d()
	}
	if l.waiting != 0 {
		t.Errorf("%d still wait", l.waiting)
	}
}

func TestClientsAreForgotten(t *testing.T) {
	l := newLimits()
	start := time.Now()
	for i := range 100000 {
		l.client(fmt.Sprint(i), start).take(start.Add(time.Duration(i)*time.Millisecond), clientRate, clientBurst)
		if i&(i-1) == 0 {
			l.forget(start.Add(time.Duration(i) * time.Millisecond))
		}
	}
	if done, ok := l.connect("x"); !ok {
		t.Error("no connection")
	} else {
		done()
	}
	l.forget(start.Add(time.Hour))
	if len(l.clients) != 0 {
		t.Errorf("%d are remembered", len(l.clients))
	}
}
