package qemu

import (
	"io"
	"sync"
)

// ringSize is how much of a stream is kept, in bytes.
const ringSize = 64 << 10

// ring keeps the end of a stream. Reading never waits for anybody, so a guest
// that floods its console costs processor time of its own cgroup only.
type ring struct {
	mu    sync.Mutex
	buf   []byte
	total int64
	done  chan struct{} // closed at the stream's end
}

func newRing() *ring { return &ring{done: make(chan struct{})} }

// follow reads r to its end.
func (g *ring) follow(r io.ReadCloser) {
	defer close(g.done)
	defer r.Close()
	io.Copy(g, struct{ io.Reader }{r}) //nolint:errcheck // the end of the process ends it, in one way or another
}

func (g *ring) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total += int64(len(p))
	g.buf = append(g.buf, p...)
	if len(g.buf) > 2*ringSize {
		g.buf = append(g.buf[:0], g.buf[len(g.buf)-ringSize:]...)
	}
	return len(p), nil
}

// bytes returns a copy of the last ringSize bytes.
func (g *ring) bytes() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.buf[max(0, len(g.buf)-ringSize):]
	return append([]byte(nil), b...)
}
