package meter

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

func TestSummary(t *testing.T) {
	var took []time.Duration
	for i := range 200 {
		took = append(took, time.Duration(200-i)*time.Millisecond)
	}
	r, err := summary(took)
	if err != nil {
		t.Fatal(err)
	}
	if r.Count != 200 || r.P50 != 0.1 || r.P99 != 0.198 || r.Seconds != 20.1 || r.Rate() != 200/20.1 {
		t.Errorf("200 requests of 1 to 200 ms: %+v, %v a second", r, r.Rate())
	}
	if _, err := summary(make([]time.Duration, 3)); err == nil {
		t.Error("requests that took no time")
	}
}

func TestVictim(t *testing.T) {
	var out bytes.Buffer
	if err := Victim(strings.NewReader("go\ngo\n"), &out, t.TempDir(), 5*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(out.String(), "\n")
	if len(lines) != 4 || lines[0] != "ready\n" || lines[3] != "" || lines[1] == lines[2] {
		t.Fatalf("it says %q", lines)
	}
	for _, l := range lines[1:3] {
		r, err := DecodeRequests([]byte(l))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := r.Encode(); err != nil || string(again) != l {
			t.Errorf("%s was read and written as %s, %v", l, again, err)
		}
	}
	if err := Victim(strings.NewReader("stop\n"), io.Discard, t.TempDir(), time.Millisecond); err == nil {
		t.Error("an order that there is not")
	}
}

// TestAggressorFails: what could not begin says why, and does not say that it has begun.
func TestAggressorFails(t *testing.T) {
	for _, kind := range []string{"memory", "dirty", "inodes"} {
		var out bytes.Buffer
		if err := Aggress(kind, strings.NewReader(""), &out, "/does/not/exist", time.Second); err != nil {
			t.Fatal(err)
		}
		w, err := DecodeWork(out.Bytes())
		if err != nil || !strings.Contains(w.Error, "no such file") || w.Done != 0 {
			t.Errorf("%s: %+v, %v", kind, w, err)
		}
	}
	// One that fails in the midst of its work has begun, and tells that, too.
	failing := aggressor{kind: "idle", prepare: func(*rig) (func() (int, int, error), error) {
		turns := 0
		return func() (int, int, error) {
			if turns++; turns > 3 {
				return 0, 1, errors.New("no more")
			}
			return 2, 0, nil
		}, nil
	}}
	begun := 0
	w := failing.work("", nil, time.Now().Add(time.Minute), func() error { begun++; return nil })
	if begun != 1 || w.Done != 6 || w.Refused != 1 || w.Error != "no more" {
		t.Errorf("begun %d times: %+v", begun, w)
	}
}

// TestForks makes as many processes as it may, and leaves none.
func TestForks(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	turn, err := forks(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, refused, err := turn(); err != nil || n != maxChildren || refused != 0 {
		t.Errorf("%d processes, refused %d times: %v", n, refused, err)
	}
}

func TestMalformedLines(t *testing.T) {
	for _, b := range []string{
		"", "ready", `{"count":0,"seconds":1,"p50":1,"p99":1}`, `{"count":1,"seconds":-1,"p50":1,"p99":1}`, `{"count":1,"seconds":1,"p50":2,"p99":1}`,
		`{"count":1,"seconds":1,"p50":1,"p99":1,"more":1}`, `{"count":1048577,"seconds":1,"p50":1,"p99":1}`, strings.Repeat(" ", maxLine+1),
	} {
		if r, err := DecodeRequests([]byte(b)); !errors.Is(err, report.ErrMalformed) {
			t.Errorf("%.50q: %+v, %v", b, r, err)
		}
	}
	long, err := json.Marshal(Work{Kind: "cpu", Error: strings.Repeat("x", maxText+1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{
		"", "begun", `{"kind":"sleep","unit":"","done":1,"seconds":1}`, `{"kind":"cpu","unit":"","done":-1,"seconds":1}`, `{"kind":"cpu","unit":"\u001b","done":1,"seconds":1}`, string(long),
	} {
		if w, err := DecodeWork([]byte(b)); !errors.Is(err, report.ErrMalformed) {
			t.Errorf("%.50q: %+v, %v", b, w, err)
		}
	}
}
