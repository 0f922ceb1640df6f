package resolve

import (
	"sync"
	"time"
)

// Rates of questions. A workload that asks for the addresses of one name asks two.
const (
	clientRate   = 2000 // questions a second, of one workload
	clientBurst  = 1000
	strangerRate = 500 // looks at the directory for who is not known, a second
)

// A share says how much of something workloads can have: each up to client of what is
// common to all, and when that is in use, still its own few, which nobody can take
// from it; all together no more than most.
type share struct{ own, client, common, most int }

var (
	waiting     = share{own: 4, client: 64, common: 256, most: 1024} // questions that wait for an upstream server
	connections = share{own: 1, client: 8, common: 128, most: 512}
	streams     = share{own: 1, client: 4, common: 16, most: 128} // connections to upstream servers, each with an answer of up to 64 KiB
)

// allows tells whether a workload that has some of all that are taken can have one
// more.
func (s share) allows(has, all int) bool {
	return has < s.own && all < s.most || has < s.client && all < s.common
}

// limits count what workloads use.
type limits struct {
	mu        sync.Mutex
	clients   map[string]*client // by workload
	all       use
	ended     chan struct{} // closed, and made anew, when a stream ends
	strangers bucket
}

type client struct {
	bucket
	use
}

// use is what is in use, by one workload or by all.
type use struct{ waiting, connections, streams int }

// A bucket holds up to a burst of tokens and fills with a rate.
type bucket struct {
	tokens float64
	filled time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if b.filled.IsZero() {
		b.tokens = burst
	} else {
		b.tokens = min(burst, b.tokens+now.Sub(b.filled).Seconds()*rate)
	}
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func newLimits() *limits {
	return &limits{clients: map[string]*client{}, ended: make(chan struct{})}
}

// client returns what is counted of a workload. The caller holds the lock.
func (l *limits) client(workload string, now time.Time) *client {
	c := l.clients[workload]
	if c == nil {
		if len(l.clients) >= 256 && len(l.clients)&(len(l.clients)-1) == 0 {
			l.forget(now)
		}
		c = &client{}
		l.clients[workload] = c
	}
	return c
}

// forget drops everybody who has been still for long enough to have a full bucket.
func (l *limits) forget(now time.Time) {
	for workload, c := range l.clients {
		if c.use == (use{}) && now.Sub(c.filled) > time.Second {
			delete(l.clients, workload)
		}
	}
}

// question takes note of a question, and tells whether it is to be looked at.
func (l *limits) question(workload string) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client(workload, now).take(now, clientRate, clientBurst)
}

// stranger tells whether to look for the lease of an address that had none.
func (l *limits) stranger() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.strangers.take(time.Now(), strangerRate, strangerRate)
}

// wait tells whether a question may wait for an upstream server; if so, done is
// called in the end.
func (l *limits) wait(workload string) (done func(), ok bool) {
	return l.take(workload, waiting, func(u *use) *int { return &u.waiting })
}

// connect tells whether a workload may have one more connection.
func (l *limits) connect(workload string) (done func(), ok bool) {
	return l.take(workload, connections, func(u *use) *int { return &u.connections })
}

// stream waits until a workload may have one more connection to an upstream server,
// but not past a time.
func (l *limits) stream(workload string, until time.Time) (done func(), ok bool) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	for {
		l.mu.Lock()
		ended := l.ended
		l.mu.Unlock()
		if done, ok := l.take(workload, streams, func(u *use) *int { return &u.streams }); ok {
			return func() {
				done()
				l.mu.Lock()
				defer l.mu.Unlock()
				close(l.ended)
				l.ended = make(chan struct{})
			}, true
		}
		select {
		case <-ended:
		case <-t.C:
			return nil, false
		}
	}
}

// take takes one of what a share is of; done gives it back.
func (l *limits) take(workload string, s share, of func(*use) *int) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.client(workload, time.Now())
	has, all := of(&c.use), of(&l.all)
	if !s.allows(*has, *all) {
		return nil, false
	}
	*has++
	*all++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		*has--
		*all--
	}, true
}
