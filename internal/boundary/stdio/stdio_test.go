package stdio

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
)

// TestPipes follows what a process writes to each of its pipes.
func TestPipes(t *testing.T) {
	const head = 4
	e, err := New(Wanted{In: true, Out: true, Err: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	theirs := dup(t, e.Theirs())
	e.Begun(nil)
	var mu sync.Mutex
	var got [2][]byte
	e.Pump(head, 8, func(stream int, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if len(b) <= head || len(b) > head+8 {
			t.Errorf("%d bytes at once, with %d in front", len(b), head)
		}
		got[stream] = append(got[stream], b[head:]...)
		return nil
	})
	if _, err := e.In().Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	e.In().Close()
	if b, err := io.ReadAll(theirs.In); string(b) != "question" || err != nil {
		t.Errorf("the process read %q, %v", b, err)
	}
	theirs.Out.WriteString("an answer that takes several pieces")
	theirs.Err.WriteString("a complaint")
	e.Drain() // while their ends are open
	if string(got[Out]) != "an answer that takes several pieces" || string(got[Err]) != "a complaint" {
		t.Errorf("got %q", got)
	}
	if _, err := theirs.Out.WriteString("more"); err == nil {
		t.Error("the pipe was still open after Drain")
	}
}

// TestUnwanted asks for fewer pipes, and closes one that nobody wants any more.
func TestUnwanted(t *testing.T) {
	e, err := New(Wanted{Out: true, Joined: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s := e.Theirs()
	if s.In != nil || s.Out == nil || s.Err != s.Out {
		t.Errorf("the process gets %+v, want one pipe as both outputs", s)
	}
	if e.In() != nil {
		t.Error("there is an input")
	}
	theirs := dup(t, s)
	e.Begun(nil)
	e.CloseOutput(Err)
	e.CloseOutput(Out)
	if _, err := theirs.Out.WriteString("x"); err == nil {
		t.Error("the pipe was still open after CloseOutput")
	}

	if e, err = New(Wanted{Terminal: true, In: true, Out: true, Err: true}); err != nil {
		t.Fatal(err)
	}
	if s := e.Theirs(); s != (boundary.Stdio{}) {
		t.Errorf("a process with a terminal gets pipes: %+v", s)
	}
}

// TestNobodyHears ends the reading where nobody takes what is read: the process
// that writes on sees it.
func TestNobodyHears(t *testing.T) {
	e, err := New(Wanted{Out: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	theirs := dup(t, e.Theirs())
	e.Begun(nil)
	e.Pump(0, 8, func(int, []byte) error { return errors.New("gone") })
	theirs.Out.WriteString("x")
	e.Wait()
	if _, err := theirs.Out.WriteString("y"); err == nil {
		t.Error("the pipe was still open")
	}
}

// TestSurvivorsWriteOn reads the last output of a process that left others
// behind, which write as much again whenever some of it has been read.
func TestSurvivorsWriteOn(t *testing.T) {
	const piece = 32 << 10
	e, err := New(Wanted{Out: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	w := dup(t, e.Theirs()).Out
	e.Begun(nil)
	if _, err := w.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := e.out[Out].(*os.File).SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err) // or the first read takes the last words, and rest is not asked
	}
	got, times := 0, 0
	e.Pump(0, piece, func(_ int, b []byte) error {
		if got += len(b); got > 4*MaxRest {
			return errors.New("it would never end")
		}
		if times++; times == 1 && string(b) != "last words" {
			t.Errorf("got %q first", b)
		}
		_, err := w.Write(bytes.Repeat([]byte{'y'}, piece))
		return err
	})
	e.Wait()
	if got < MaxRest || got > MaxRest+piece {
		t.Errorf("%d bytes were read, want about as much as a pipe may hold, %d", got, MaxRest)
	}
}

// dup is the process that has inherited s.
func dup(t *testing.T, s boundary.Stdio) boundary.Stdio {
	var d boundary.Stdio
	for _, f := range []struct {
		from *os.File
		to   **os.File
	}{{s.In, &d.In}, {s.Out, &d.Out}, {s.Err, &d.Err}} {
		if f.from == nil {
			continue
		}
		fd, err := unix.FcntlInt(f.from.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		*f.to = os.NewFile(uintptr(fd), f.from.Name())
		t.Cleanup(func() { (*f.to).Close() })
	}
	return d
}
