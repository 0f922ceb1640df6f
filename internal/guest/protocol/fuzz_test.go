package protocol

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"time"
)

// hostile is a connection whose other side says only what was written down, and
// takes everything.
type hostile struct {
	said   *bytes.Reader
	opened chan struct{} // Read waits for it after the hello
	hello  int
}

func (h *hostile) Read(p []byte) (int, error) {
	if h.hello <= 0 {
		<-h.opened
		return h.said.Read(p)
	}
	n, err := h.said.Read(p[:min(len(p), h.hello)])
	h.hello -= n
	return n, err
}
func (h *hostile) Write(p []byte) (int, error) { return len(p), nil }
func (h *hostile) Close() error                { return nil }

// finish wants the session to have ended for one of the reasons that there are.
func finish(t *testing.T, s *Session) {
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the session does not end with its connection")
	}
	if err := s.Err(); !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrEnded) {
		t.Errorf("ended for %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	held := 0
	for _, st := range s.streams {
		if st != nil {
			for _, c := range st.chunks {
				held += c.w - c.r
			}
			if st.owed < 0 || st.owed > Window || st.credit < 0 || st.credit > Window {
				t.Errorf("stream %d: %d owed, %d credit", st.id, st.owed, st.credit)
			}
		}
	}
	if held > MaxStreams*Window {
		t.Errorf("%d bytes held", held)
	}
}

// FuzzHostSession gives a host what a hostile agent may say, with three streams
// open of which one is closed.
func FuzzHostSession(f *testing.F) {
	for _, b := range hostileFrames {
		if len(b) < 1000 {
			f.Add(b)
		}
	}
	reply := append(binaryReply(), appendHeader(nil, frameEnd, 1, 0)...)
	f.Add(append(reply, appendHeader(nil, frameClose, 1, 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		hello := helloOf(`{"magic":"bulkhead","version":2}`)
		conn := &hostile{said: bytes.NewReader(append(hello[:len(hello):len(hello)], b...)), opened: make(chan struct{}), hello: len(hello)}
		s, err := Host(context.Background(), conn)
		if err != nil {
			t.Fatal(err)
		}
		var streams []*Stream
		for range 3 {
			st, err := s.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, st)
		}
		streams[2].Close()
		close(conn.opened)
		finish(t, s)
		NewReader(streams[0]).Reply()
		for {
			if _, _, err := NewReader(streams[1]).Next(); err != nil {
				break
			}
		}
		s.Close()
	})
}

func binaryReply() []byte {
	var b bytes.Buffer
	NewWriter(&b).JSON(TypeReply, Reply{Processes: []int{1}})
	return append(appendHeader(nil, frameData, 1, b.Len()), b.Bytes()...)
}

// FuzzGuestSession gives a guest what a hostile host may say.
func FuzzGuestSession(f *testing.F) {
	for _, b := range hostileFrames {
		if len(b) < 1000 {
			f.Add(append(appendHeader(nil, frameOpen, 1, 0), b...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		hello := helloOf(`{"magic":"bulkhead","version":2}`)
		opened := make(chan struct{})
		close(opened)
		conn := &hostile{said: bytes.NewReader(append(hello[:len(hello):len(hello)], b...)), opened: opened}
		s, err := Guest(context.Background(), conn, Hello{})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				st, err := s.Accept()
				if err != nil {
					return
				}
				NewReader(st).Request()
				st.Close()
			}
		}()
		finish(t, s)
		<-done
		s.Close()
	})
}

// FuzzHello gives either side any beginning.
func FuzzHello(f *testing.F) {
	f.Add(helloOf(`{"magic":"bulkhead","version":2}`))
	f.Add(helloOf(`{"magic":"bulkhead","version":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err == nil && (h.Magic != magic || h.Version != Version) {
			t.Errorf("took %+v", h)
		}
		if err != nil && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrEnded) {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzMessages reads any messages, from either side.
func FuzzMessages(f *testing.F) {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.JSON(TypeRequest, Request{Op: OpCreate, Create: &Create{Files: map[string][]byte{"/a": nil}, Volumes: map[int]string{1: "v"}}})
	w.JSON(TypeReply, Reply{Error: &Error{Kind: "running", Message: "x"}})
	w.JSON(TypeRequest, Request{Op: OpUpdate, Resources: &workload.Resources{CPUs: 1.5}})
	w.JSON(TypeReply, Reply{Usage: &workload.Usage{Memory: 1, CPU: 2}, Described: Described{{PID: 1, Command: "x", State: "S"}}})
	w.JSON(TypeExit, map[string]int{"code": 1})
	w.Resize(1, 2)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		for r := NewReader(bytes.NewReader(b)); ; {
			kind, p, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Errorf("got %v", err)
				}
				return
			}
			if len(p) > maxMessage[kind] {
				t.Errorf("%d bytes for type %d", len(p), kind)
			}
			again := append([]byte{byte(kind), byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p))}, p...)
			NewReader(bytes.NewReader(again)).Request()
			NewReader(bytes.NewReader(again)).Reply()
			ParseExit(p)
			ParseNotice(p)
			ParseSize(p)
			ParseDescriptor(p)
		}
	})
}
