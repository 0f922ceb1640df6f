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

// TestShares has many workloads take all that they may.
func TestShares(t *testing.T) {
	l := newLimits()
	for what, c := range map[string]struct {
		share
		take func(workload string) (func(), bool)
		all  *int
	}{
		"waiting":     {waiting, l.wait, &l.all.waiting},
		"connections": {connections, l.connect, &l.all.connections},
		"streams":     {streams, func(w string) (func(), bool) { return l.stream(w, time.Now()) }, &l.all.streams},
	} {
		var done []func()
		got := map[string]int{}
		for range c.client + 1 {
			for w := range 20 {
				name := fmt.Sprint(w)
				if d, ok := c.take(name); ok {
					done = append(done, d)
					got[name]++
				}
			}
		}
		for name, n := range got {
			if n > c.client {
				t.Errorf("%s: workload %s has %d", what, name, n)
			}
		}
		if len(done) < c.common {
			t.Errorf("%s: %d are taken, where %d may be", what, len(done), c.common)
		}
		// One who comes now still has its own.
		for i := range c.own + 1 {
			d, ok := c.take("late")
			if ok != (i < c.own) {
				t.Errorf("%s: number %d of a latecomer: %t", what, i, ok)
			}
			if ok {
				done = append(done, d)
			}
		}
		for w := range 2 * c.most {
			if d, ok := c.take(fmt.Sprint("w", w)); ok {
				done = append(done, d)
			}
		}
		if len(done) != c.most {
			t.Errorf("%s: %d are taken in all, want %d", what, len(done), c.most)
		}
		for _, d := range done {
			d()
		}
		if *c.all != 0 {
			t.Errorf("%s: %d are left", what, *c.all)
		}
	}
}

// TestStreamIsWaitedFor has somebody wait for its turn.
func TestStreamIsWaitedFor(t *testing.T) {
	l := newLimits()
	var done []func()
	for range streams.client {
		d, ok := l.stream("w", time.Now())
		if !ok {
			t.Fatal("none to begin with")
		}
		done = append(done, d)
	}
	got := make(chan bool)
	for range 2 {
		go func() {
			d, ok := l.stream("w", time.Now().Add(time.Minute))
			if ok {
				d()
			}
			got <- ok
		}()
	}
	select {
	case <-got:
		t.Error("one more than there are")
	case <-time.After(20 * time.Millisecond):
	}
	done[0]()
	for range 2 {
		if !<-got {
			t.Error("none when one was free again")
		}
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
