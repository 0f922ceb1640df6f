package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/logfile"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// envMain makes the test binary a supervisor.
const envMain = "SUPERVISOR_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(envMain) != "" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// pair returns a client of the supervisor and the caller's end.
func pair(t *testing.T) (c *client, caller *os.File) {
	t.Helper()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return newClient(ours), theirs
}

// much is more output than a queue and a socket's buffers hold together.
const much = 8 << 20

// read collects a caller's output and its last frame.
type read struct {
	out  bytes.Buffer
	exit *workload.Exit
	err  error
	done chan struct{}
}

func readAll(f *os.File) *read {
	r := &read{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for wr := wire.NewReader(f); ; {
			t, payload, err := wr.Next()
			switch {
			case err != nil:
				r.err = err
				return
			case t == wire.TypeStdout:
				r.out.Write(payload)
			case t == wire.TypeExit:
				r.exit = new(workload.Exit)
				r.err = wire.Decode(payload, r.exit)
				return
			}
		}
	}()
	return r
}

// within fails the test when c is not closed soon.
func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: nothing happened in 20 s", what)
	}
}

// TestSlowClientIsDropped attaches one client that reads and one that never
// does. The second is given up after its patience; the first gets every byte and
// the exit, and the output goes on meanwhile.
func TestSlowClientIsDropped(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{Wait: 5 * time.Second})
	s := &supervisor{}
	var output streams
	brisk, briskEnd := pair(t)
	slow, slowEnd := pair(t)
	slow.patience = 50 * time.Millisecond
	brisk.patience = time.Hour // however busy the machine is
	ended := make(chan struct{})
	sessions := map[*client]chan struct{}{}
	for _, c := range []*client{brisk, slow} {
		output.add(c)
		over := make(chan struct{})
		sessions[c] = over
		go func() {
			defer close(over)
			s.session(wire.NewReader(c.conn), c, &output, nil, ended)
			c.finish(10 * time.Second)
		}()
	}
	got := readAll(briskEnd)

	want := make([]byte, 0, much)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 0; len(want) < much; i++ {
			b := bytes.Repeat([]byte{byte(i)}, wire.MaxData)
			want = append(want, b...)
			output.forward(wire.TypeStdout, logfile.Stdout, nil, b)
		}
	}()
	within(t, "the session of the client that reads nothing", sessions[slow])
	within(t, "the output", written)
	slow.mu.Lock()
	if !errors.Is(slow.err, errSlow) || len(slow.queue) > 0 {
		t.Errorf("slow client: got %v with %d bytes queued, want %v and none", slow.err, len(slow.queue), errSlow)
	}
	slow.mu.Unlock()
	output.mu.Lock()
	if !slices.Equal(output.clients, []*client{brisk}) {
		t.Errorf("%d clients still get the output, want the one that reads", len(output.clients))
	}
	output.mu.Unlock()

	output.end(workload.Exit{Code: 7})
	close(ended)
	within(t, "the other client's session", sessions[brisk])
	within(t, "the other client's exit", got.done)
	if got.err != nil || got.exit == nil || got.exit.Code != 7 {
		t.Errorf("the client that reads: got %+v, %v, want exit 7", got.exit, got.err)
	}
	if !bytes.Equal(got.out.Bytes(), want) {
		t.Errorf("the client that reads: got %d bytes, want %d", got.out.Len(), len(want))
	}
	// What had arrived before is all that the dropped one sees: no exit.
	late := readAll(slowEnd)
	within(t, "the dropped client's connection", late.done)
	if late.exit != nil || late.err == nil || late.out.Len() >= much || !bytes.HasPrefix(want, late.out.Bytes()) {
		t.Errorf("dropped client: got %d bytes, exit %+v, %v, want the beginning and the end of the connection", late.out.Len(), late.exit, late.err)
	}
}

// TestForegroundClientIsWaitedFor lets the client that a process was started for
// read nothing for longer than its patience.
func TestForegroundClientIsWaitedFor(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{Wait: 5 * time.Second})
	c, end := pair(t)
	c.foreground, c.patience = true, time.Millisecond
	sent := make(chan error, 1)
	go func() {
		b := make([]byte, wire.MaxData)
		for n := 0; n < much; n += len(b) {
			if err := c.send(wire.TypeStdout, b); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.exit(workload.Exit{Code: 3})
	}()
	select {
	case err := <-sent:
		t.Errorf("nobody waited for the foreground client: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	got := readAll(end)
	within(t, "the output", got.done)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if got.out.Len() != much || got.exit == nil || got.exit.Code != 3 {
		t.Errorf("got %d bytes, exit %+v, %v, want %d and exit 3", got.out.Len(), got.exit, got.err, much)
	}
	c.finish(10 * time.Second)
}

// TestOtherVersion asks a supervisor in another version of the protocol: it does
// nothing, and says what to do instead.
func TestOtherVersion(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{Wait: 5 * time.Second})
	for _, version := range []int{0, wire.Version + 1} {
		for _, op := range []wire.Op{wire.OpStop, wire.OpSignal, wire.OpExec, wire.OpAttach, wire.OpWait, "of the future"} {
			ours, theirs, err := wire.Pair()
			if err != nil {
				t.Fatal(err)
			}
			// No instance: whatever it did would crash here.
			s := &supervisor{idle: time.NewTimer(time.Hour)}
			served := make(chan struct{})
			go func() {
				defer close(served)
				s.serve(ours)
			}()
			b, err := wire.AppendJSON(nil, wire.TypeRequest, &wire.Request{Version: version, Op: op})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := theirs.Write(b); err != nil {
				t.Fatal(err)
			}
			var reply wire.Reply
			r := wire.NewReader(theirs)
			if err := r.Message(wire.TypeReply, &reply); err != nil {
				t.Fatalf("version %d, %s: %v", version, op, err)
			}
			text := fmt.Sprintf("protocol version %d, the command %d; to stop the workload send SIGTERM to process %d", wire.Version, version, os.Getpid())
			if reply.Error == nil || !errors.Is(reply.Error, workload.ErrUnsupported) || !strings.Contains(reply.Error.Message, text) {
				t.Errorf("version %d, %s: got %+v, want %q", version, op, reply.Error, text)
			}
			if _, _, err := r.Next(); err != io.EOF {
				t.Errorf("version %d, %s: after the reply: got %v, want the end", version, op, err)
			}
			within(t, "the refusal", served)
			s.idle.Stop()
			theirs.Close()
		}
	}
}

// TestStartOfOtherVersion has a supervisor started by a command of another
// version: it ends at once, and its standard error, which the command shows,
// says why.
func TestStartOfOtherVersion(t *testing.T) {
	lock, err := os.Create(t.TempDir() + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envMain+"=1")
	cmd.ExtraFiles = []*os.File{lock, theirs}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	b, err := wire.AppendJSON(nil, wire.TypeRequest, &wire.Request{Version: wire.Version + 1, Op: wire.OpStart, Start: &wire.Start{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(b); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if want := fmt.Sprintf("version %d: want start, version %d\n", wire.Version+1, wire.Version); !strings.HasSuffix(stderr.String(), want) {
		t.Errorf("got %q, want %q", stderr.String(), want)
	}
	if _, _, err := wire.NewReader(ours).Next(); err != io.EOF {
		t.Errorf("got %v, want no reply", err)
	}
}

// TestInputStaysOpen: the end of a client's input is not that of a process which was
// started without one.
func TestInputStaysOpen(t *testing.T) {
	for _, open := range []bool{true, false} {
		s, err := newStreams(false, true)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.open = open
		if err := s.closeInput(); err != nil {
			t.Error(err)
		}
		if err := s.write([]byte("x")); (err == nil) != open {
			t.Errorf("open %v: writing after a client's end: %v", open, err)
		}
	}
}
