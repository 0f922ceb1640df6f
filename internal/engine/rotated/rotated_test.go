package rotated

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// log is one that a test writes by hand.
type log struct {
	t    *testing.T
	path string
	most int
}

func newLog(t *testing.T, most int) *log {
	return &log{t: t, path: filepath.Join(t.TempDir(), "log"), most: most}
}

func (l *log) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// add appends text to the newest file.
func (l *log) add(text string) {
	l.t.Helper()
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	l.check(err)
	_, err = f.WriteString(text)
	l.check(errors.Join(err, f.Close()))
}

// rotate renames the files, and makes no new one yet.
func (l *log) rotate() {
	l.t.Helper()
	if l.most == 1 {
		l.check(os.Remove(l.path))
		return
	}
	for i := l.most - 1; i > 0; i-- {
		if err := os.Rename(Name(l.path, i-1), Name(l.path, i)); !errors.Is(err, os.ErrNotExist) {
			l.check(err)
		}
	}
}

// want drains f and compares the lines.
func (l *log) want(f *Files, want ...string) {
	l.t.Helper()
	var got []string
	l.check(f.Drain(func(line []byte) error {
		got = append(got, string(line))
		return nil
	}))
	if !slices.Equal(got, want) {
		l.t.Errorf("got %q, want %q", got, want)
	}
}

const longest = 32

// TestDrain reads on over renamings: none is noticed in time, and none costs a
// line as long as the file is still there.
func TestDrain(t *testing.T) {
	for most := 1; most <= 4; most++ {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			l := newLog(t, most)
			f, err := Open(l.path, most, longest)
			l.check(err)
			defer f.Close()
			l.want(f)
			l.add("one\ntw")
			l.want(f, "one")
			l.add("o\n" + strings.Repeat("x", longest) + "\n" + strings.Repeat("y", 3*longest) + "\nthree\n")
			l.want(f, "two", "three")
			l.rotate()
			l.want(f)
			l.add("four\n")
			l.want(f, "four")
			var all []string
			for i := range most {
				if i > 0 {
					l.rotate()
				}
				l.add(fmt.Sprintf("a%d\nb%d\n", i, i))
				all = append(all, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
			}
			l.want(f, all...)
			// One that is gone is missed, and nothing else.
			for i := range most + 1 {
				l.rotate()
				l.add(fmt.Sprintf("c%d\n", i))
			}
			all = nil
			for i := range most {
				all = append(all, fmt.Sprintf("c%d", i+1))
			}
			l.want(f, all...)
			l.want(f)
		})
	}
}

// TestOpen begins with what there is, looks ahead, and begins at the end.
func TestOpen(t *testing.T) {
	l := newLog(t, 3)
	for _, text := range []string{"1\n", "2\n2\n", "3\n", "4\n"} {
		l.add(text)
		l.rotate()
	}
	end, err := OpenEnd(l.path, 3, longest)
	l.check(err)
	defer end.Close()
	l.want(end)
	l.add("5\n")
	l.want(end, "5")
	f, err := Open(l.path, 3, longest)
	l.check(err)
	defer f.Close()
	n := 0
	l.check(f.Preview(func([]byte) error { n++; return nil }))
	if n != 3 {
		t.Errorf("%d lines ahead, want 3", n)
	}
	l.want(f, "3", "4", "5")

	enough := errors.New("enough")
	g, err := Open(l.path, 3, longest)
	l.check(err)
	defer g.Close()
	if err := g.Drain(func([]byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

// TestWatch tells of what is written and renamed, and ends with its context.
func TestWatch(t *testing.T) {
	testWatch(t, func() {}, func() {})
}

// TestUnreported has no inotify instance to be had.
func TestUnreported(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(r syscall.Rlimit) func() {
		return func() {
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
				t.Error(err)
			}
		}
	}
	testWatch(t, set(syscall.Rlimit{Cur: 0, Max: before.Max}), set(before))
}

func testWatch(t *testing.T, before, after func()) {
	l := newLog(t, 2)
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	before()
	w, err := NewWatch(ctx, filepath.Dir(l.path), Written)
	_, missing := NewWatch(ctx, l.path+".nowhere", Written)
	after()
	l.check(err)
	defer w.Close()
	for _, change := range []func(){func() { l.add("1\n") }, func() { l.add("2\n") }, l.rotate} {
		change()
		l.check(w.Wait())
	}
	time.AfterFunc(10*time.Millisecond, func() { cancel(over) })
	for err = nil; err == nil; {
		err = w.Wait()
	}
	if !errors.Is(err, over) {
		t.Errorf("got %v", err)
	}
	if !errors.Is(missing, os.ErrNotExist) {
		t.Errorf("of a directory that is not there: %v", missing)
	}
}
