package client

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
)

// terminal is our side of a terminal in the guest.
type terminal struct {
	p   *process
	out *screen
	mu  sync.Mutex // orders writes

	size struct {
		sync.Mutex
		rows, cols uint16
		pending    bool // to be sent
		sending    bool // a goroutine does it
	}
}

func newTerminal(p *process) *terminal {
	return &terminal{p: p, out: newScreen()}
}

// Read returns what the terminal shows; syscall.EIO after the process's end, as
// Linux says when nobody has the terminal open.
func (t *terminal) Read(b []byte) (int, error) { return t.out.read(b) }

// Write types b. It waits while the process does not read, and drops what
// nobody reads any more, as a terminal does.
func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.p.send(append(make([]byte, protocol.MessageHeader, protocol.MessageHeader+len(b)), b...)); err != nil {
		select {
		case <-t.out.closed:
			return 0, os.ErrClosed
		default:
		}
	}
	return len(b), nil
}

// Close ends a Read or Write that goes on.
func (t *terminal) Close() error {
	t.out.close()
	t.p.window.close()
	return nil
}

// Resize sets the size that programs inside see. It does not wait for the
// guest, and a later size replaces one that has not been sent.
func (t *terminal) Resize(rows, cols uint16) error {
	select {
	case <-t.p.done:
		return fmt.Errorf("terminal: %w", os.ErrClosed)
	default:
	}
	t.size.Lock()
	defer t.size.Unlock()
	t.size.rows, t.size.cols, t.size.pending = rows, cols, true
	if !t.size.sending {
		t.size.sending = true
		go t.sendSizes()
	}
	return nil
}

// sendSizes ends by itself: at the latest, writing fails when the process's
// stream is closed.
func (t *terminal) sendSizes() {
	for {
		t.size.Lock()
		rows, cols, pending := t.size.rows, t.size.cols, t.size.pending
		t.size.pending, t.size.sending = false, pending
		t.size.Unlock()
		if !pending {
			return
		}
		t.p.w.Resize(rows, cols) // an error is the end of all
	}
}

// screen is what a terminal has shown and nobody has read: at most screenSize
// bytes, beyond which the process has to wait.
type screen struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	ended   bool
	closed  chan struct{}
	once    sync.Once
}

const screenSize = 64 << 10

func newScreen() *screen {
	s := &screen{closed: make(chan struct{})}
	s.changed.L = &s.mu
	return s
}

func (s *screen) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// write adds b; after close it drops it.
func (s *screen) write(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) > 0 && len(s.buf)+len(b) > screenSize && !s.isClosed() {
		s.changed.Wait()
	}
	if !s.isClosed() {
		s.buf = append(s.buf, b...)
		s.changed.Broadcast()
	}
}

// read returns what is there, also after close.
func (s *screen) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 {
		switch {
		case s.isClosed():
			return 0, os.ErrClosed
		case s.ended:
			return 0, syscall.EIO
		}
		s.changed.Wait()
	}
	n := copy(b, s.buf)
	s.buf = s.buf[n:]
	if len(s.buf) == 0 {
		s.buf = nil
	}
	s.changed.Broadcast()
	return n, nil
}

func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed.Broadcast()
}

func (s *screen) close() {
	s.once.Do(func() { close(s.closed) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// window is how much of standard input may be sent.
type window struct {
	mu      sync.Mutex
	changed sync.Cond
	left    int
	closed  bool
}

func newWindow() *window {
	w := &window{left: protocol.StdinWindow}
	w.changed.L = &w.mu
	return w
}

// take returns how much of n may be sent now, at least one byte.
func (w *window) take(n int) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.left == 0 && !w.closed {
		w.changed.Wait()
	}
	if w.closed {
		return 0, os.ErrClosed
	}
	n = min(n, w.left, protocol.MaxData)
	w.left -= n
	return n, nil
}

func (w *window) give(n uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n == 0 || n > protocol.StdinWindow || w.left+int(n) > protocol.StdinWindow {
		return fmt.Errorf("%w: window of %d bytes", protocol.ErrProtocol, n)
	}
	w.left += int(n)
	w.changed.Broadcast()
	return nil
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}
