package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// errEnough ends a reading.
var errEnough = errors.New("enough")

func event(n int) Event { return Event{Type: Workload, Action: "start", ID: fmt.Sprint(n)} }

// collect reads until there are n events.
func collect(ctx context.Context, l Log, o Options, n int) (ids []string, err error) {
	err = l.Read(ctx, o, func(e Event) error {
		ids = append(ids, e.ID)
		if len(ids) == n {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return ids, err
}

func TestReadBack(t *testing.T) {
	l := Log{Dir: t.TempDir()}
	start := time.Now()
	for n := range 10 {
		e := event(n)
		e.Time = start.Add(time.Duration(n) * time.Second)
		if err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "0 1 2 3 4 5 6 7 8 9"},
		{Options{Since: start.Add(8 * time.Second)}, "8 9"},
		{Options{Until: start.Add(time.Second)}, "0 1"},
		{Options{New: true}, ""},
	} {
		ids, err := collect(t.Context(), l, tt.o, -1)
		if got := strings.Join(ids, " "); err != nil || got != tt.want {
			t.Errorf("%+v: got %q, %v, want %q", tt.o, got, err, tt.want)
		}
	}
	if ids, err := collect(t.Context(), Log{Dir: t.TempDir()}, Options{}, -1); err != nil || len(ids) > 0 {
		t.Errorf("nothing: got %v, %v", ids, err)
	}
}

// TestManyWriters lets writers fill file after file while a reader follows: it
// gets every event once, whole, and each writer's in order.
func TestManyWriters(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	const writers, each = 4, 500
	l := Log{Dir: t.TempDir(), max: 20 << 10}
	var got []string
	done := make(chan error, 1)
	ready := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.Append(event(-1)); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := l.Read(ctx, Options{Follow: true}, func(e Event) error {
			if e.ID == "-1" {
				close(ready)
				return nil
			}
			if got = append(got, e.ID); len(got) == writers*each {
				return errEnough
			}
			return nil
		})
		done <- err
	}()
	<-ready
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				if err := l.Append(Event{Type: Workload, Action: "x", ID: fmt.Sprintf("%d-%d", w, n)}); err != nil {
					t.Error(err)
				}
				time.Sleep(100 * time.Microsecond) // two files hold what is written while the reader sleeps
			}
		})
	}
	wg.Wait()
	if err := <-done; !errors.Is(err, errEnough) {
		t.Fatalf("got %v after %d of %d", err, len(got), writers*each)
	}
	next := map[string]int{}
	for _, id := range got {
		w, n, _ := strings.Cut(id, "-")
		if fmt.Sprint(next[w]) != n {
			t.Fatalf("writer %s: got %s, want %d", w, n, next[w])
		}
		next[w]++
	}
}

// TestStalledReader has a reader that takes nothing: writers go on, the files
// stay bounded, and the reader goes on with what is left.
func TestStalledReader(t *testing.T) {
	l := Log{Dir: t.TempDir(), max: 10 << 10}
	stall, reading := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last string
	done := make(chan error, 1)
	if err := l.Append(event(0)); err != nil {
		t.Fatal(err)
	}
	go func() {
		first := true
		done <- l.Read(ctx, Options{Follow: true}, func(e Event) error {
			if first {
				first = false
				close(reading)
				<-stall
			}
			if last = e.ID; last == "1000" {
				return errEnough
			}
			return nil
		})
	}()
	<-reading
	for n := range 1000 {
		if err := l.Append(event(n + 1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{l.path(), l.old()} {
		if fi, err := os.Stat(name); err == nil && fi.Size() > l.max+maxLine {
			t.Errorf("%s has %d bytes", name, fi.Size())
		}
	}
	close(stall)
	if err := <-done; !errors.Is(err, errEnough) {
		t.Errorf("got %v after event %s", err, last)
	}
}

// TestStoppedWriter has a process that keeps the lock: others write all the same.
func TestStoppedWriter(t *testing.T) {
	l := Log{Dir: t.TempDir(), max: 8 << 10}
	for _, how := range []int{syscall.LOCK_SH, syscall.LOCK_EX} {
		if err := l.Append(event(1)); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(l.path())
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(f.Fd()), how); err != nil {
			t.Fatal(err)
		}
		for n := range 30 {
			if err := l.Append(event(n)); err != nil {
				t.Error(err)
			}
		}
		f.Close()
	}
}

func TestUntil(t *testing.T) {
	l := Log{Dir: t.TempDir()}
	if err := l.Append(event(1)); err != nil {
		t.Fatal(err)
	}
	ids, err := collect(t.Context(), l, Options{Follow: true, Until: time.Now().Add(50 * time.Millisecond)}, -1)
	if err != nil || len(ids) != 1 {
		t.Errorf("got %v, %v", ids, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := collect(ctx, l, Options{Follow: true}, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
}

// TestFull fills the disk: an event is lost, and what comes later is read.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	l := Log{Dir: dir}
	lost := 0
	for n := range 1000 {
		if err := l.Append(event(n)); errors.Is(err, syscall.ENOSPC) {
			lost++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	ids, err := collect(t.Context(), l, Options{}, -1)
	if err != nil || lost == 0 || len(ids) != 1000-lost {
		t.Errorf("%d lost, %d read, %v", lost, len(ids), err)
	}
}

func TestLongEvent(t *testing.T) {
	e := Event{Type: Workload, Action: "start", ID: strings.Repeat("i", 5000), Attributes: map[string]string{"name": "n"}}
	for n := range 100 {
		e.Attributes[fmt.Sprintf("label%d", n)] = strings.Repeat("\x01", 1000)
	}
	b, err := e.line()
	if err != nil || len(b) > maxLine || bytes.Count(b, []byte{'\n'}) != 1 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

// TestManyLabels records what happens to a workload whose image has labels without
// end: what says which workload it is stays, and it costs no more than to sort them.
func TestManyLabels(t *testing.T) {
	e := Event{Time: time.Unix(1, 0), Type: Workload, Action: "die", ID: "i", Attributes: map[string]string{"name": "web", "exitCode": "1", "long": strings.Repeat("<", 1000)}}
	e.Labels = map[string]string{"name": "another"}
	for n := range 50_000 {
		e.Labels[fmt.Sprint(n)] = ""
	}
	b, err := e.line()
	if err != nil || len(b) > maxLine {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, ok := parse(b[:len(b)-1])
	if !ok || got.Attributes["name"] != "web" || got.Attributes["exitCode"] != "1" || len(got.Attributes["long"]) != maxValue {
		t.Errorf("got %.500q", b)
	}
	if _, ok := got.Attributes["0"]; !ok || len(b) < maxLine-20 {
		t.Errorf("%d bytes: there is room for more labels", len(b))
	}

	e = Event{Type: Image, Action: strings.Repeat("<", maxID), ID: strings.Repeat("<", maxID)}
	if b, err := e.line(); err == nil {
		t.Errorf("nothing can be left out: %d bytes, no error", len(b))
	}
}

func FuzzParse(f *testing.F) {
	b, _ := Event{Time: time.Unix(1, 0), Type: Workload, Action: "start", ID: "x"}.line()
	f.Add(b)
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, ok := parse(line); ok && (e.Type == "" || e.Time.IsZero()) {
			t.Errorf("took %+v", e)
		}
	})
}
