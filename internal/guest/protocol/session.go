package protocol

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"sync"
)

// Session is one byte stream that carries many streams. Its memory is bounded
// by MaxStreams times Window, and it keeps only what nobody has read yet.
type Session struct {
	conn io.ReadWriteCloser
	host bool
	peer Hello

	free     chan uint32  // host: numbers that Open may take
	accepted chan *Stream // guest: opened, to be fetched by Accept

	done  chan struct{} // closed with the end
	loops sync.WaitGroup

	mu      sync.Mutex
	work    sync.Cond // wakes the sender
	streams [MaxStreams + 1]*Stream
	ready   []*Stream // have something to send
	err     error     // why the session ended
}

func newSession(conn io.ReadWriteCloser, host bool, peer Hello) *Session {
	s := &Session{
		conn: conn, host: host, peer: peer, done: make(chan struct{}),
		accepted: make(chan *Stream, MaxStreams),
	}
	s.work.L = &s.mu
	if host {
		s.free = make(chan uint32, MaxStreams)
		for i := range uint32(MaxStreams) {
			s.free <- i + 1
		}
	}
	s.loops.Go(func() { s.fail(s.receive()) })
	s.loops.Go(func() { s.fail(s.send()) })
	return s
}

// Peer is what the other side said of itself.
func (s *Session) Peer() Hello { return s.peer }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err tells why the session has ended; nil while it has not.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the session and all its streams.
func (s *Session) Close() error {
	s.fail(ErrClosed)
	s.loops.Wait()
	return nil
}

// Open opens a stream, as the host. With MaxStreams open it waits until one is
// free.
func (s *Session) Open(ctx context.Context) (*Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var id uint32
	select {
	case id = <-s.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.done:
		return nil, s.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	st := s.newStream(id)
	st.opening = true
	st.queue()
	return st, nil
}

// Idle waits, as the host, until no stream is open on either side: nothing more
// comes from the guest. That the guest has all that was sent shows where the last
// to be closed was one that it closes only after us, as it does with OpPrepare.
// Nobody may open a stream meanwhile.
func (s *Session) Idle(ctx context.Context) error {
	var taken []uint32
	defer func() {
		for _, id := range taken {
			s.free <- id
		}
	}()
	for len(taken) < MaxStreams {
		select {
		case id := <-s.free:
			taken = append(taken, id)
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return s.Err()
		}
	}
	return nil
}

// Accept returns the next stream that the host opened, as the guest.
func (s *Session) Accept() (*Stream, error) {
	select {
	case st := <-s.accepted:
		return st, nil
	case <-s.done:
		return nil, s.Err()
	}
}

// fail ends the session; the first reason stays.
func (s *Session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	for _, st := range s.streams {
		if st != nil {
			st.wake()
			st.finish()
		}
	}
	s.work.Broadcast()
	close(s.done)
	s.mu.Unlock()
	s.conn.Close()
}

// send writes frames until the session ends. Streams take turns, one frame of
// data each.
func (s *Session) send() error {
	buf := make([]byte, 0, batch+2*(headerSize+MaxPayload))
	for {
		buf = buf[:0]
		s.mu.Lock()
		for len(s.ready) == 0 && s.err == nil {
			s.work.Wait()
		}
		if s.err != nil {
			s.mu.Unlock()
			return s.err
		}
		for len(s.ready) > 0 && len(buf) < batch {
			st := s.ready[0]
			s.ready = s.ready[1:]
			st.queued = false
			buf = st.appendFrames(buf)
		}
		s.mu.Unlock()
		if _, err := s.conn.Write(buf); err != nil {
			return ended(err)
		}
	}
}

// receive reads frames until the session ends. It never waits for anything but
// the next byte.
func (s *Session) receive() error {
	r := bufio.NewReaderSize(s.conn, batch)
	var b [headerSize]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return ended(err)
		}
		h, err := parseHeader(b)
		if err == nil {
			err = s.frame(r, h)
		}
		if err != nil {
			return err
		}
	}
}

func (s *Session) frame(r *bufio.Reader, h header) error {
	switch h.kind {
	case frameHello:
		return violation("a second hello")
	case frameOpen:
		return s.opened(h.stream)
	case frameData:
		return s.data(r, h)
	}
	var n uint32
	if h.kind == frameCredit {
		var b [4]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return ended(err)
		}
		n = binary.BigEndian.Uint32(b[:])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[h.stream]
	if st == nil || st.peerClosed {
		return violation("frame of type %d for stream %d, which is not open", h.kind, h.stream)
	}
	switch h.kind {
	case frameCredit:
		if n == 0 || n > Window || st.credit+int(n) > Window {
			return violation("credit of %d bytes for stream %d", n, h.stream)
		}
		st.credit += int(n)
		if len(st.out) > 0 {
			st.queue()
		}
	case frameEnd:
		if st.peerEnded {
			return violation("stream %d ended twice", h.stream)
		}
		st.peerEnded = true
		st.readable.Broadcast()
	case frameClose:
		st.peerClosed = true
		st.wake()
		st.finish()
		st.release()
	}
	return nil
}

func (s *Session) opened(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.host {
		return violation("the guest opens a stream")
	}
	if s.streams[id] != nil {
		return violation("stream %d is opened twice", id)
	}
	// There is room: each stream in the channel has a number of its own, which
	// is not free before Close was called on it.
	s.accepted <- s.newStream(id)
	return nil
}

// data stores one frame's payload with its stream.
func (s *Session) data(r *bufio.Reader, h header) error {
	s.mu.Lock()
	st := s.streams[h.stream]
	if st == nil || st.peerClosed || st.peerEnded {
		s.mu.Unlock()
		return violation("data for stream %d, which is not open", h.stream)
	}
	if h.length > st.owed {
		s.mu.Unlock()
		return violation("%d bytes for stream %d, where %d are allowed", h.length, h.stream, st.owed)
	}
	st.owed -= h.length
	s.mu.Unlock()
	for n := h.length; n > 0; {
		room := st.room(n)
		if room == nil { // closed: what still comes is dropped
			_, err := r.Discard(n)
			if err != nil {
				err = ended(err)
			}
			return err
		}
		_, err := io.ReadFull(r, room)
		if err != nil {
			room = nil
		}
		st.filled(len(room))
		if err != nil {
			return ended(err)
		}
		n -= len(room)
	}
	return nil
}
