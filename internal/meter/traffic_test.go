package meter

import (
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

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
	go Serve(l, t.Output()) //nolint:errcheck // it ends with its listener
	sent, err := Call(l.Addr().String(), 50*time.Millisecond, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	b, err := sent.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeTraffic(b)
	if err != nil || *got != *sent {
		t.Errorf("%+v was written as %s and read as %+v, %v", sent, b, got, err)
	}
}

func TestMalformedTraffic(t *testing.T) {
	for _, s := range []string{
		"", "{}", `{"rate":1,"trips":1,"p50":1,"p99":1,"more":1}`, `{"rate":0,"trips":1,"p50":1,"p99":1}`, `{"rate":-1,"trips":1,"p50":1,"p99":1}`,
		`{"rate":1,"trips":0,"p50":1,"p99":1}`, `{"rate":1,"trips":1,"p50":0,"p99":1}`, `{"rate":1,"trips":1,"p50":2,"p99":1}`,
		`{"rate":1,"trips":1,"p50":1,"p99":1}` + strings.Repeat(" ", 5000),
	} {
		if got, err := DecodeTraffic([]byte(s)); !errors.Is(err, report.ErrMalformed) {
			t.Errorf("%.80s: %+v, %v", s, got, err)
		}
	}
}

// FuzzTraffic: a line is refused as malformed, or has figures that a call can have, and
// means the same when it is written anew.
func FuzzTraffic(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"rate":1e9,"trips":20000,"p50":0.00002,"p99":0.0001}` + "\n", `{"rate":1e308,"trips":1,"p50":5e-324,"p99":1e308}`,
		`{"rate":1e309,"trips":1,"p50":1,"p99":1}`, `{"rate":1,"trips":1,"trips":2,"p50":1,"p99":1}`, `{"rate":NaN,"trips":1,"p50":1,"p99":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeTraffic(b)
		if err != nil {
			if !errors.Is(err, report.ErrMalformed) || got != nil {
				t.Errorf("%+v, and another error: %v", got, err)
			}
			return
		}
		for _, n := range []float64{got.Rate, got.P50, got.P99, float64(got.Trips)} {
			if !(n > 0) || math.IsInf(n, 0) {
				t.Errorf("no call has %v: %+v", n, *got)
			}
		}
		if got.P99 < got.P50 {
			t.Errorf("99 of 100 are faster than 50: %+v", *got)
		}
		line, err := got.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeTraffic(line); err != nil || *again != *got {
			t.Errorf("%+v was written as %s and read as %+v, %v", *got, line, again, err)
		}
	})
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
	if _, err := Call(l.Addr().String(), time.Millisecond, time.Millisecond); err == nil || !strings.Contains(err.Error(), "arrived") {
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
