package protocol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair makes both ends of a session over a pipe.
func pair(t testing.TB) (host, guest *Session) {
	t.Helper()
	a, b := net.Pipe()
	type result struct {
		s   *Session
		err error
	}
	made := make(chan result)
	go func() {
		s, err := Guest(context.Background(), b, Hello{Kernel: "6.1.0-28-amd64", Agent: "v1"})
		made <- result{s, err}
	}()
	host, err := Host(context.Background(), a)
	g := <-made
	if err != nil || g.err != nil {
		t.Fatal(err, g.err)
	}
	t.Cleanup(func() {
		host.Close()
		g.s.Close()
	})
	return host, g.s
}

func open(t testing.TB, host, guest *Session) (h, g *Stream) {
	t.Helper()
	h, err := host.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if g, err = guest.Accept(); err != nil {
		t.Fatal(err)
	}
	return h, g
}

func TestGreeting(t *testing.T) {
	host, guest := pair(t)
	if got := host.Peer(); got.Kernel != "6.1.0-28-amd64" || got.Agent != "v1" {
		t.Errorf("got %+v", got)
	}
	if got := guest.Peer(); got.Version != Version {
		t.Errorf("got %+v", got)
	}
}

// raw makes a host or guest whose other side is written by hand.
func raw(t *testing.T, begin func(context.Context, io.ReadWriteCloser) (*Session, error)) (net.Conn, func() (*Session, error)) {
	t.Helper()
	a, b := net.Pipe()
	var s *Session
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, err = begin(context.Background(), a)
	}()
	t.Cleanup(func() {
		b.Close()
		<-done
		if s != nil {
			s.Close()
		}
	})
	return b, func() (*Session, error) {
		<-done
		return s, err
	}
}

func helloOf(text string) []byte {
	return append(appendHeader(nil, frameHello, 0, len(text)), text...)
}

func TestGreetingOfStrangers(t *testing.T) {
	for name, tt := range map[string]struct {
		say  []byte
		want error
	}{
		"another version": {helloOf(`{"magic":"bulkhead","version":99}`), ErrVersion},
		"another program": {helloOf(`{"magic":"qemu-ga","version":2}`), ErrProtocol},
		"no JSON":         {helloOf(`hello`), ErrProtocol},
		"escapes":         {helloOf(`{"magic":"bulkhead","version":2,"kernel":"\u001b[2J"}`), ErrProtocol},
		"a long name":     {helloOf(`{"magic":"bulkhead","version":2,"agent":"` + strings.Repeat("x", 200) + `"}`), ErrProtocol},
		"a console":       {[]byte("[    0.000000] Linux version 6.1\n"), ErrProtocol},
		"another frame":   {appendHeader(nil, frameOpen, 1, 0), ErrProtocol},
		"an end":          {nil, ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			conn, result := raw(t, Host)
			conn.Write(tt.say)
			if tt.want != ErrVersion {
				conn.Close()
			} else if h, err := readHello(conn); err != nil || h.Version != Version {
				t.Errorf("our version is not told: %+v, %v", h, err)
			}
			if _, err := result(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestGreetingInVain(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := Host(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestStreamsCarryBytes(t *testing.T) {
	host, guest := pair(t)
	const streams, length = 20, 700_000
	var all sync.WaitGroup
	for i := range streams {
		h, g := open(t, host, guest)
		text := bytes.Repeat([]byte(fmt.Sprintf("%07d", i)), length/7)
		for _, way := range [][2]*Stream{{h, g}, {g, h}} {
			all.Go(func() {
				for rest := text; len(rest) > 0; { // in pieces of odd lengths
					n := min(len(rest), 1+len(rest)/3)
					if _, err := way[0].Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
				if err := way[0].CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				got, err := io.ReadAll(way[1])
				if err != nil || !bytes.Equal(got, text) {
					t.Errorf("stream %d: %d bytes of %d, %v", i, len(got), len(text), err)
				}
			})
		}
	}
	all.Wait()
}

// TestSlowReader holds back one stream and no other.
func TestSlowReader(t *testing.T) {
	host, guest := pair(t)
	slow, sender := open(t, host, guest)
	sent := make(chan int, 1)
	go func() {
		n, _ := sender.Write(make([]byte, 4*Window))
		sent <- n
	}()
	for range 3 {
		h, g := open(t, host, guest)
		go func() { g.Write([]byte("x")); g.Close() }()
		if n, err := io.ReadFull(h, make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("beside a slow reader: %d, %v", n, err)
		}
		h.Close()
	}
	for full := false; !full; time.Sleep(time.Millisecond) { // until the window is
		host.mu.Lock()
		full = slow.owed == 0
		host.mu.Unlock()
	}
	select {
	case n := <-sent:
		t.Errorf("%d bytes were sent although nobody reads", n)
	default:
	}
	host.mu.Lock()
	held := 0
	for _, c := range slow.chunks {
		held += len(c.b)
	}
	host.mu.Unlock()
	if held > Window+2*MaxPayload {
		t.Errorf("%d bytes of memory are held, more than the window", held)
	}
	slow.Close()
	if n := <-sent; n != Window {
		t.Errorf("after close: %d bytes sent, want %d", n, Window)
	}
}

// TestSmallFrames fills a window byte by byte: memory must not grow with the
// number of frames.
func TestSmallFrames(t *testing.T) {
	conn, result := raw(t, Host)
	go func() {
		conn.Write(helloOf(`{"magic":"bulkhead","version":2}`))
		readHello(conn)
		io.Copy(io.Discard, conn)
	}()
	s, err := result()
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	const n = 50_000
	frame := append(appendHeader(nil, frameData, 1, 1), 'x')
	conn.Write(bytes.Repeat(frame, n))
	if _, err := io.ReadFull(st, make([]byte, n/2)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := len(st.chunks); got > n/MaxPayload+1 {
		t.Errorf("%d chunks for %d bytes", got, n)
	}
}

func TestEndings(t *testing.T) {
	host, guest := pair(t)
	read := func(st *Stream) (string, error) {
		b, err := io.ReadAll(st)
		return string(b), err
	}
	h, g := open(t, host, guest)
	g.Write([]byte("bye"))
	g.CloseWrite()
	g.Close()
	if text, err := read(h); text != "bye" || err != nil {
		t.Errorf("after an end: %q, %v", text, err)
	}
	<-h.Done()
	if _, err := h.Write([]byte("x")); !errors.Is(err, ErrReset) {
		t.Errorf("write to a closed stream: %v", err)
	}
	h.Close()

	h, g = open(t, host, guest)
	g.Write([]byte("half"))
	g.Close()
	if text, err := read(h); text != "half" || !errors.Is(err, ErrReset) {
		t.Errorf("after a reset: %q, %v", text, err)
	}
	h.Close()

	h, g = open(t, host, guest)
	got := make(chan error)
	go func() {
		_, err := g.Read(make([]byte, 1))
		got <- err
	}()
	go func() {
		_, err := h.Read(make([]byte, 1))
		got <- err
	}()
	h.Close()
	for _, err := range []error{<-got, <-got} {
		if !errors.Is(err, ErrReset) && !errors.Is(err, ErrClosed) {
			t.Errorf("a read while the stream closes: %v", err)
		}
	}
	g.Close()

	h, g = open(t, host, guest)
	guest.Close()
	<-host.Done()
	if _, err := read(h); !errors.Is(err, ErrEnded) {
		t.Errorf("after the session: %v", err)
	}
	if _, err := host.Open(context.Background()); !errors.Is(err, ErrEnded) {
		t.Errorf("open after the session: %v", err)
	}
	if _, err := g.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("write after the session: %v", err)
	}
}

// TestManyStreams opens all there may be, and waits for one more.
func TestManyStreams(t *testing.T) {
	host, guest := pair(t)
	var mine, theirs []*Stream
	for range MaxStreams {
		h, g := open(t, host, guest)
		mine, theirs = append(mine, h), append(theirs, g)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := host.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	// It is free when both have closed it.
	mine[7].Close()
	theirs[7].Close()
	h, g := open(t, host, guest)
	go g.Write([]byte("x"))
	if _, err := io.ReadFull(h, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for i := range mine {
		mine[i].Close()
		theirs[i].Close()
	}
	h.Close()
	g.Close()
	for range 5 * MaxStreams { // numbers are used again and again
		h, g := open(t, host, guest)
		go g.Close()
		h.Close()
	}
}

// frames of a hostile guest, each of which must end the host's session. Stream
// 1 is open.
var hostileFrames = map[string][]byte{
	"unknown type":       {99, 0, 0, 0, 0, 0, 0, 1},
	"type zero":          {0, 0, 0, 0, 0, 0, 0, 1},
	"reserved byte":      {byte(frameData), 1, 0, 1, 0, 0, 0, 1, 'x'},
	"long":               appendHeader(nil, frameData, 1, MaxPayload+1),
	"empty data":         appendHeader(nil, frameData, 1, 0),
	"data of none":       append(appendHeader(nil, frameData, 2, 1), 'x'),
	"stream zero":        append(appendHeader(nil, frameData, 0, 1), 'x'),
	"stream 1025":        append(appendHeader(nil, frameData, MaxStreams+1, 1), 'x'),
	"stream 2^32-1":      append(appendHeader(nil, frameData, 1<<32-1, 1), 'x'),
	"open":               appendHeader(nil, frameOpen, 2, 0),
	"second hello":       helloOf(`{"magic":"bulkhead","version":2}`),
	"credit of nothing":  append(appendHeader(nil, frameCredit, 1, 4), 0, 0, 0, 0),
	"credit undeserved":  append(appendHeader(nil, frameCredit, 1, 4), 0, 0, 0, 1),
	"credit without end": append(appendHeader(nil, frameCredit, 1, 4), 0xff, 0xff, 0xff, 0xff),
	"short credit":       append(appendHeader(nil, frameCredit, 1, 2), 0, 1),
	"two ends":           append(appendHeader(nil, frameEnd, 1, 0), appendHeader(nil, frameEnd, 1, 0)...),
	"two closes":         append(appendHeader(nil, frameClose, 1, 0), appendHeader(nil, frameClose, 1, 0)...),
	"data after end":     append(append(appendHeader(nil, frameEnd, 1, 0), appendHeader(nil, frameData, 1, 1)...), 'x'),
	"data after close":   append(append(appendHeader(nil, frameClose, 1, 0), appendHeader(nil, frameData, 1, 1)...), 'x'),
	"too much":           bytes.Repeat(append(appendHeader(nil, frameData, 1, MaxPayload), make([]byte, MaxPayload)...), Window/MaxPayload+1),
}

func TestHostileFrames(t *testing.T) {
	for name, frames := range hostileFrames {
		t.Run(name, func(t *testing.T) {
			conn, result := raw(t, Host)
			go func() {
				conn.Write(helloOf(`{"magic":"bulkhead","version":2}`))
				readHello(conn)
				io.Copy(io.Discard, conn)
			}()
			s, err := result()
			if err != nil {
				t.Fatal(err)
			}
			st, err := s.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			go conn.Write(frames)
			<-s.Done()
			if err := s.Err(); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v", err)
			}
			if _, err := io.ReadAll(st); err == nil && name != "two ends" && name != "data after end" {
				t.Error("the stream ended well")
			}
		})
	}
}

// TestBlockedConnection has a guest that reads nothing: what waits for it can
// be given up.
func TestBlockedConnection(t *testing.T) {
	conn, result := raw(t, Host)
	go func() {
		conn.Write(helloOf(`{"magic":"bulkhead","version":2}`))
		readHello(conn)
	}()
	s, err := result()
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error)
	go func() {
		_, err := st.Write(make([]byte, 2*Window))
		wrote <- err
	}()
	time.Sleep(10 * time.Millisecond)
	st.Close()
	if err := <-wrote; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	s.Close()
}

func BenchmarkStream(b *testing.B) {
	host, guest := pair(b)
	h, g := open(b, host, guest)
	buf := make([]byte, MaxPayload)
	go func() {
		for {
			if _, err := g.Write(buf); err != nil {
				return
			}
		}
	}()
	in := make([]byte, MaxPayload)
	b.SetBytes(MaxPayload)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.ReadFull(h, in); err != nil {
			b.Fatal(err)
		}
	}
}

// TestIdle: a host whose streams are all closed on both sides can go away, and
// another can go on with the guest as if nothing had been said.
func TestIdle(t *testing.T) {
	host, guest := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	st, err := host.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := guest.Accept()
	if err != nil {
		t.Fatal(err)
	}
	idle := make(chan error, 1)
	go func() { idle <- host.Idle(ctx) }()
	st.Close()
	<-theirs.Done()
	select {
	case err := <-idle:
		t.Fatalf("idle while the guest has a stream open: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	theirs.Close()
	if err := <-idle; err != nil {
		t.Error(err)
	}
	// Every number is free again.
	for range MaxStreams {
		if _, err := host.Open(ctx); err != nil {
			t.Fatal(err)
		}
	}
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if err := host.Idle(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	go func() { idle <- host.Idle(ctx) }()
	guest.Close()
	if err := <-idle; !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
}
