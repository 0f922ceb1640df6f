package protocol

import (
	"encoding/binary"
	"io"
	"sync"
)

// Stream is one of a session's streams. Close gives its number back, and must
// be called in the end whatever else happened.
type Stream struct {
	s    *Session
	id   uint32
	done chan struct{} // see Done

	// All below is under s.mu, but for the part of filling that is being filled.
	readable sync.Cond
	writable sync.Cond
	finished bool // done is closed

	chunks  []*chunk // received, in order
	filling *chunk   // the last of them, while receive reads into it
	owed    int      // bytes that the other side may still send
	eaten   int      // bytes that were read since credit was given back

	out     []byte // of the Write that goes on
	writing bool
	credit  int // bytes that we may still send

	// What there is to send beside out and the credit for eaten, and what was.
	opening, ending, closing, closed bool
	endSent                          bool
	queued                           bool // in s.ready

	peerEnded, peerClosed bool
}

// chunk is a piece of memory for received bytes; those from r to w are unread.
type chunk struct {
	b    [MaxPayload]byte
	r, w int
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func freeChunk(c *chunk) {
	c.r, c.w = 0, 0
	chunks.Put(c)
}

// newStream adds a stream. s.mu is held.
func (s *Session) newStream(id uint32) *Stream {
	st := &Stream{s: s, id: id, done: make(chan struct{}), owed: Window, credit: Window}
	st.readable.L, st.writable.L = &s.mu, &s.mu
	s.streams[id] = st
	return st
}

// Done is closed when either side has closed the stream, or the session has
// ended. What was received before can still be read, unless this side closed.
func (st *Stream) Done() <-chan struct{} { return st.done }

// Read reads what the other side wrote. The error is io.EOF after its
// CloseWrite, ErrReset after its Close alone.
func (st *Stream) Read(p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if st.closing {
			return 0, ErrClosed
		}
		if n := st.take(p); n > 0 {
			st.eaten += n
			if st.eaten >= giveBack && !st.peerEnded && !st.peerClosed {
				st.queue()
			}
			return n, nil
		}
		switch {
		case st.peerEnded:
			return 0, io.EOF
		case st.peerClosed:
			return 0, ErrReset
		case s.err != nil:
			return 0, s.err
		}
		st.readable.Wait()
	}
}

// take moves unread bytes to p.
func (st *Stream) take(p []byte) (n int) {
	for n < len(p) && len(st.chunks) > 0 {
		c := st.chunks[0]
		k := copy(p[n:], c.b[c.r:c.w])
		c.r += k
		n += k
		if c.r < c.w {
			break
		}
		if c == st.filling {
			break // it gets more
		}
		st.chunks[0] = nil
		st.chunks = st.chunks[1:]
		freeChunk(c)
	}
	return n
}

// room returns memory for at most n bytes that arrive, nil if nobody wants
// them. Small frames share a chunk, so a stream takes little more memory than
// the bytes that it holds.
func (st *Stream) room(n int) []byte {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.closing {
		return nil
	}
	var c *chunk
	if k := len(st.chunks); k > 0 {
		c = st.chunks[k-1]
	}
	if c == nil || c.w == len(c.b) {
		c = chunks.Get().(*chunk)
		st.chunks = append(st.chunks, c)
	}
	st.filling = c
	return c.b[c.w:min(c.w+n, len(c.b))]
}

// filled tells that n bytes were put where room said.
func (st *Stream) filled(n int) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	c := st.filling
	st.filling = nil
	if st.closing {
		freeChunk(c) // Close left it to us
		return
	}
	c.w += n
	st.readable.Broadcast()
}

// Write sends p. It returns when p may be used again, which is before it has
// arrived.
func (st *Stream) Write(p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for st.writing && st.writeError() == nil {
		st.writable.Wait()
	}
	if err := st.writeError(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	st.writing, st.out = true, p
	if st.credit > 0 {
		st.queue()
	}
	for len(st.out) > 0 && st.writeError() == nil {
		st.writable.Wait()
	}
	var err error
	n := len(p) - len(st.out)
	if n < len(p) {
		err = st.writeError()
	}
	st.writing, st.out = false, nil
	st.writable.Broadcast()
	return n, err
}

func (st *Stream) writeError() error {
	switch {
	case st.closing, st.ending:
		return ErrClosed
	case st.peerClosed:
		return ErrReset
	}
	return st.s.err
}

// CloseWrite tells the other side that no more comes. A Write that goes on in
// another goroutine is cut off.
func (st *Stream) CloseWrite() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if err := st.writeError(); err != nil {
		return err
	}
	st.ending = true
	st.writable.Broadcast()
	st.queue()
	return nil
}

// Close drops what is unread, ends a Read or Write that goes on, and tells the
// other side. What Write has taken before is still sent. It does not wait.
func (st *Stream) Close() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.closing {
		return nil
	}
	st.closing = true
	for _, c := range st.chunks {
		if c != st.filling {
			freeChunk(c)
		}
	}
	st.chunks = nil
	st.wake()
	st.finish()
	st.queue()
	return nil
}

// wake, finish, queue, release and appendFrames want s.mu held.

func (st *Stream) wake() {
	st.readable.Broadcast()
	st.writable.Broadcast()
}

func (st *Stream) finish() {
	if !st.finished {
		st.finished = true
		close(st.done)
	}
}

// queue lets the sender come by.
func (st *Stream) queue() {
	if !st.queued && !st.closed {
		st.queued = true
		st.s.ready = append(st.s.ready, st)
		st.s.work.Signal()
	}
}

// release frees the number when both sides have closed.
func (st *Stream) release() {
	if !st.closed || !st.peerClosed || st.s.streams[st.id] != st {
		return
	}
	st.s.streams[st.id] = nil
	if st.s.host {
		st.s.free <- st.id // there is room for every number
	}
}

// appendFrames adds what there is to send, with at most one frame of data, and
// queues the stream again if that was not all.
func (st *Stream) appendFrames(b []byte) []byte {
	if st.opening {
		st.opening = false
		b = appendHeader(b, frameOpen, st.id, 0)
	}
	if n := min(len(st.out), st.credit, MaxPayload); n > 0 && !st.ending && !st.closing {
		b = append(appendHeader(b, frameData, st.id, n), st.out[:n]...)
		st.credit -= n
		st.out = st.out[n:]
		if len(st.out) == 0 {
			st.writable.Broadcast()
		} else if st.credit > 0 {
			st.queue()
		}
	}
	if st.eaten >= giveBack && !st.closing && !st.peerEnded && !st.peerClosed {
		b = appendHeader(b, frameCredit, st.id, 4)
		b = binary.BigEndian.AppendUint32(b, uint32(st.eaten))
		st.owed += st.eaten
		st.eaten = 0
	}
	if st.ending && !st.endSent && !st.closing {
		st.endSent = true
		b = appendHeader(b, frameEnd, st.id, 0)
	}
	if st.closing && !st.closed {
		st.closed = true
		if st.ending && !st.endSent {
			st.endSent = true
			b = appendHeader(b, frameEnd, st.id, 0)
		}
		b = appendHeader(b, frameClose, st.id, 0)
		st.release()
	}
	return b
}
