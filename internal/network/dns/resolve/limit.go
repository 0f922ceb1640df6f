package resolve

import (
	"sync"
	"time"
)

// What one workload can have. A workload that asks for the addresses of one
// name asks two questions.
const (
	clientRate        = 2000 // questions a second
	clientBurst       = 1000
	clientWaiting     = 64 // questions that wait for an upstream server
	clientConnections = 8
)

// What all of them can have. When the common part of the waiting questions is
// in use, each workload still has its own few: nobody can take those from it.
const (
	commonWaiting  = 256
	ownWaiting     = 4
	mostWaiting    = 1024
	allConnections = 128
	strangerRate   = 500 // looks at the directory for who is not known, a second
)

// limits count what workloads use.
type limits struct {
	mu          sync.Mutex
	clients     map[string]*client // by workload
	waiting     int
	connections int
	strangers   bucket
}

type client struct {
	bucket
	waiting, connections int
}

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

func newLimits() *limits { return &limits{clients: map[string]*client{}} }

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
		if c.waiting == 0 && c.connections == 0 && now.Sub(c.filled) > time.Second {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.client(workload, time.Now())
	switch {
	case c.waiting < ownWaiting && l.waiting < mostWaiting:
	case c.waiting < clientWaiting && l.waiting < commonWaiting:
	default:
		return nil, false
	}
	c.waiting++
	l.waiting++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.waiting--
		l.waiting--
	}, true
}

// connect tells whether a workload may have one more connection.
func (l *limits) connect(workload string) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.client(workload, time.Now())
	if c.connections >= clientConnections || l.connections >= allConnections {
		return nil, false
	}
	c.connections++
	l.connections++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.connections--
		l.connections--
	}, true
}
