package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
)

func TestMain(m *testing.M) {
	nettest.Isolate()
	os.Exit(m.Run())
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestCall(t *testing.T) {
	l := listen(t)
	go serve(l) //nolint:errcheck // it ends with its listener
	var out bytes.Buffer
	if err := run([]string{"call", l.Addr().String(), "-stream", "50ms", "-ask", "50ms"}, &out); err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Bytes < piece || r.Nanoseconds < int64(50*time.Millisecond) || r.Trips < 1 || r.P50 <= 0 || r.P99 < r.P50 {
		t.Errorf("got %+v", r)
	}
}

// TestLostBytes has a server that did not get all.
func TestLostBytes(t *testing.T) {
	l := listen(t)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(io.Discard, c) //nolint:errcheck // what counts is the wrong answer
		c.Write(make([]byte, 8))
	}()
	if _, err := call(l.Addr().String(), time.Millisecond, time.Millisecond); err == nil || !strings.Contains(err.Error(), "arrived") {
		t.Errorf("got %v, want that not all arrived", err)
	}
}

func TestUnknownKind(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go ours.Write([]byte{'x'}) //nolint:errcheck // the other end judges
	if err := answer(theirs); err == nil || !strings.Contains(err.Error(), "x") {
		t.Errorf("got %v", err)
	}
}

func TestQuantile(t *testing.T) {
	times := make([]time.Duration, 200)
	for i := range times {
		times[i] = time.Duration(200 - i)
	}
	for q, want := range map[float64]time.Duration{0.5: 100, 0.99: 198, 0: 1, 1: 200} {
		if got := quantile(times, q); got != want {
			t.Errorf("quantile %v = %d, want %d", q, got, want)
		}
	}
}
