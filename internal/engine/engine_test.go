package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestRun(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name           string
		args           []string
		in             string
		code, signal   int
		stdout, stderr string
	}{
		{"success", []string{"exit", "0"}, "", 0, 0, "", ""},
		{"failure", []string{"exit", "42"}, "", 42, 0, "", ""},
		{"signal", []string{"kill", "TERM"}, "", 143, 15, "", ""},
		{"output", []string{"both"}, "", 0, 0, "to stdout\n", "to stderr\n"},
		{"environment", []string{"env"}, "", 0, 0, "A=1\n", ""},
		{"input", []string{"cat"}, "some\x00 input\xff", 0, 0, "some\x00 input\xff", ""},
	}
	for _, tt := range tests {
		for _, remove := range []bool{false, true} {
			s := spec(tt.args...)
			s.AutoRemove = remove
			exit, out, errs := w.run(s, tt.in)
			if exit.Code != tt.code || exit.Signal != tt.signal || out != tt.stdout || errs != tt.stderr {
				t.Errorf("%s: got %+v, %q, %q", tt.name, exit, out, errs)
			}
			rs := w.list()
			if remove {
				if len(rs) != 0 {
					t.Errorf("%s: %d workloads are kept", tt.name, len(rs))
				}
				w.wantEmpty() // already when Wait returns
				continue
			}
			if len(rs) != 1 || rs[0].Status != workload.Exited || rs[0].Exit == nil || rs[0].Exit.Code != tt.code {
				t.Fatalf("%s: got record %+v", tt.name, rs)
			}
			var lout, lerr bytes.Buffer
			if err := w.Logs(ctx(t), rs[0].Spec.Name, LogOptions{Tail: -1}, &lout, &lerr); err != nil {
				t.Fatal(err)
			}
			if lout.String() != tt.stdout || lerr.String() != tt.stderr {
				t.Errorf("%s: log: got %q, %q", tt.name, lout.String(), lerr.String())
			}
			if err := w.Remove(ctx(t), rs[0].Spec.Name, false); err != nil {
				t.Fatal(err)
			}
			w.wantEmpty()
		}
	}
}

// TestBytes sends many bytes through input, output and log, with a slow reader.
func TestBytes(t *testing.T) {
	w := newWorld(t)
	const n = 5<<20 + 12345
	want := make([]byte, n)
	for i := range want {
		want[i] = byte(i*7 + i>>8)
	}
	s := spec("cat")
	s.KeepStdin = true
	var out slowBuffer
	session, err := w.Run(ctx(t), s, &Streams{In: bytes.NewReader(want), Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("output differs: %d bytes of %d", out.Len(), n)
	}
	var log bytes.Buffer
	if err := w.Logs(ctx(t), session.Record.Spec.Name, LogOptions{Tail: -1}, &log, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(log.Bytes(), want) {
		t.Errorf("log differs: %d bytes of %d", log.Len(), n)
	}
}

type slowBuffer struct{ bytes.Buffer }

func (b *slowBuffer) Write(p []byte) (int, error) {
	if b.Len()%10 == 0 {
		time.Sleep(time.Millisecond)
	}
	return b.Buffer.Write(p)
}

func TestLifecycle(t *testing.T) {
	w := newWorld(t)
	s := spec("wait-signal", "USR1")
	s.Name = "one"
	r, err := w.Create(ctx(t), s)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != workload.Created || r.IDCount != 65536 {
		t.Errorf("created: got %+v", r)
	}
	if _, err := w.Create(ctx(t), s); !errors.Is(err, workload.ErrNameTaken) {
		t.Errorf("the name again: got %v", err)
	}
	for _, err := range []error{
		w.Kill(ctx(t), "one", syscall.SIGTERM), w.Pause(ctx(t), "one"),
		second(w.Attach(ctx(t), "one", nil)), second(w.Exec(ctx(t), "one", process("env"), nil)),
		second(w.Wait(ctx(t), "one")),
	} {
		if !errors.Is(err, workload.ErrNotRunning) {
			t.Errorf("before the start: got %v, want ErrNotRunning", err)
		}
	}
	for range 2 { // it can be started again
		if _, err := w.Start(ctx(t), "one", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Start(ctx(t), "one", nil); !errors.Is(err, workload.ErrRunning) {
			t.Errorf("start while running: got %v", err)
		}
		if err := w.Remove(ctx(t), "one", false); !errors.Is(err, workload.ErrRunning) {
			t.Errorf("remove while running: got %v", err)
		}
		w.want("one", workload.Running)
		w.reopen() // another command's start disturbs nothing
		if err := w.Pause(ctx(t), "one"); err != nil {
			t.Error(err)
		}
		w.want("one", workload.Paused)
		if err := w.Pause(ctx(t), "one"); err == nil {
			t.Error("paused twice")
		}
		if _, err := w.Exec(ctx(t), "one", process("env"), nil); !errors.Is(err, workload.ErrNotRunning) {
			t.Errorf("exec while paused: got %v", err)
		}
		if err := w.Unpause(ctx(t), "one"); err != nil {
			t.Error(err)
		}
		if p, err := w.Processes(ctx(t), "one"); err != nil || len(p) != 1 {
			t.Errorf("processes: got %v, %v", p, err)
		}
		if err := w.Kill(ctx(t), "one", syscall.SIGUSR1); err != nil {
			t.Error(err)
		}
		if exit, err := w.Wait(ctx(t), "one"); err != nil || exit.Code != 7 {
			t.Errorf("wait: got %+v, %v", exit, err)
		}
		w.want("one", workload.Exited)
	}
	var log bytes.Buffer
	if err := w.Logs(ctx(t), "one", LogOptions{Tail: -1}, &log, nil); err != nil {
		t.Error(err)
	}
	if want := strings.Repeat("ready\nsignal 10\n", 2); log.String() != want {
		t.Errorf("log: got %q, want %q", log.String(), want)
	}
	if err := w.Remove(ctx(t), r.Spec.ID.Short(), false); err != nil {
		t.Error(err)
	}
	w.wantEmpty()
}

func second[T any](_ T, err error) error { return err }

func (w *world) want(ref string, status workload.Status) *Record {
	w.t.Helper()
	r, err := w.Inspect(ctx(w.t), ref)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Status != status {
		w.t.Errorf("%s: got status %s, want %s", ref, r.Status, status)
	}
	return r
}

func TestStop(t *testing.T) {
	w := newWorld(t)
	long, none := 20*time.Second, time.Duration(0)
	tests := []struct {
		name   string
		args   []string
		signal string
		wait   *time.Duration
		paused bool
		code   int
	}{
		{"gently", []string{"wait-signal", "TERM"}, "", &long, false, 7},
		{"its own signal", []string{"wait-signal", "USR2"}, "SIGUSR2", &long, false, 7},
		{"paused", []string{"wait-signal", "TERM"}, "", &long, true, 7},
		{"by force", []string{"pause"}, "", &none, false, 137},
		{"by force after a time", []string{"pause"}, "", nil, false, 137},
	}
	for _, tt := range tests {
		s := spec(tt.args...)
		s.Name, s.StopSignal, s.StopTimeout = "s", tt.signal, 50*time.Millisecond
		session, err := w.Run(ctx(t), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		session.Close()
		if tt.paused {
			if err := w.Pause(ctx(t), "s"); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Stop(ctx(t), "s", tt.wait); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if r := w.want("s", workload.Exited); r.Exit == nil || r.Exit.Code != tt.code {
			t.Errorf("%s: got %+v, want code %d", tt.name, r.Exit, tt.code)
		}
		if err := w.Stop(ctx(t), "s", tt.wait); err != nil {
			t.Errorf("%s: again: %v", tt.name, err)
		}
		if err := w.Remove(ctx(t), "s", true); err != nil {
			t.Error(err)
		}
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	s := spec("pause")
	s.Name, s.AutoRemove = "e", true
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	session, err := w.Exec(ctx(t), "e", process("cat"), &Streams{In: strings.NewReader("through"), Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 || out.String() != "through" {
		t.Errorf("cat: got %+v, %v, %q", exit, err, out.String())
	}
	for args, want := range map[string]error{
		fake.NotExecutable: workload.ErrNotExecutable, "/nowhere": workload.ErrCommandNotFound,
	} {
		p := workload.Process{Args: []string{args}}
		if _, err := w.Exec(ctx(t), "e", p, &Streams{}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", args, err, want)
		}
	}
	// A signal reaches the executed process and no other.
	session, err = w.Exec(ctx(t), "e", process("wait-signal", "INT"), &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 7 {
		t.Errorf("signal: got %+v, %v", exit, err)
	}
	// One that runs when the workload ends, ends.
	session, err = w.Exec(ctx(t), "e", process("pause"), &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx(t), "e", true); err != nil {
		t.Error(err)
	}
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 137 {
		t.Errorf("at the workload's end: got %+v, %v", exit, err)
	}
	w.wantEmpty()
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	s := spec("terminal")
	s.Process.Terminal, s.KeepStdin, s.Name = true, true, "t"
	in, typed := io.Pipe()
	out, shown := io.Pipe()
	session, err := w.Run(ctx(t), s, &Streams{In: in, Out: shown, Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	expect("24 80\n")
	if err := session.Resize(50, 132); err != nil {
		t.Error(err)
	}
	expect("50 132\n")
	go typed.Write([]byte("x"))
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 {
		t.Errorf("got %+v, %v", exit, err)
	}
	typed.Close()
}

func TestDetachAndAttach(t *testing.T) {
	w := newWorld(t)
	s := spec("cat")
	s.KeepStdin, s.Name = true, "d"
	keys, err := ParseDetachKeys("ctrl-p,ctrl-q")
	if err != nil {
		t.Fatal(err)
	}
	in, typed := io.Pipe()
	session, err := w.Run(ctx(t), s, &Streams{In: in, Out: io.Discard, DetachKeys: keys})
	if err != nil {
		t.Fatal(err)
	}
	typed.Write([]byte("a\x10b\x10\x11"))
	if _, err := session.Wait(ctx(t)); !errors.Is(err, ErrDetached) {
		t.Errorf("got %v, want ErrDetached", err)
	}
	w.want("d", workload.Running)
	var log bytes.Buffer
	for log.String() != "a\x10b" { // it has been read and written by then
		log.Reset()
		if err := w.Logs(ctx(t), "d", LogOptions{Tail: -1}, &log, nil); err != nil {
			t.Fatal(err)
		}
	}
	// Two clients: both see the output, and the end of one's input is the end.
	var a, b bytes.Buffer
	in, typed = io.Pipe()
	one, err := w.Attach(ctx(t), "d", &Streams{In: in, Out: &a})
	if err != nil {
		t.Fatal(err)
	}
	two, err := w.Attach(ctx(t), "d", &Streams{Out: &b})
	if err != nil {
		t.Fatal(err)
	}
	typed.Write([]byte("both"))
	typed.Close()
	for _, s := range []*Session{one, two} {
		if exit, err := s.Wait(ctx(t)); err != nil || exit.Code != 0 {
			t.Errorf("got %+v, %v", exit, err)
		}
	}
	if a.String() != "both" || b.String() != "both" {
		t.Errorf("got %q and %q", a.String(), b.String())
	}
	log.Reset()
	if err := w.Logs(ctx(t), "d", LogOptions{Tail: -1}, &log, nil); err != nil || log.String() != "a\x10bboth" {
		t.Errorf("log: got %q, %v", log.String(), err)
	}
}

// TestDeadClient leaves a client that reads nothing, and expects the others to
// be served and the workload to end.
func TestDeadClient(t *testing.T) {
	w := newWorld(t)
	s := spec("bytes", "4000000")
	s.Name = "slow"
	block := make(chan struct{})
	session, err := w.Run(ctx(t), s, &Streams{Out: blocked(block)})
	if err != nil {
		t.Fatal(err)
	}
	// The foreground client holds the workload up ...
	if r := w.want("slow", workload.Running); r.Exit != nil {
		t.Errorf("ended: %+v", r.Exit)
	}
	// ... but not its end by force, and not the record of it.
	now := time.Duration(0)
	if err := w.Stop(ctx(t), "slow", &now); err != nil {
		t.Error(err)
	}
	w.want("slow", workload.Exited)
	if err := w.Remove(ctx(t), "slow", false); err != nil {
		t.Error(err)
	}
	close(block)
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 137 {
		t.Errorf("got %+v, %v", exit, err)
	}
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) {
	<-b
	return len(p), nil
}

func TestErrors(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name   string
		change func(*workload.Spec)
		want   error
		text   string
	}{
		{"command not found", func(s *workload.Spec) { s.Process.Args = []string{"/nowhere"} }, workload.ErrCommandNotFound, "/nowhere"},
		{"not executable", func(s *workload.Spec) { s.Process.Args = []string{fake.NotExecutable} }, workload.ErrNotExecutable, fake.NotExecutable},
		{"no such boundary", func(s *workload.Spec) { s.Boundary = "vm" }, workload.ErrUnsupported, "vm"},
		{"bad name", func(s *workload.Spec) { s.Name = "../x" }, nil, "../x"},
		{"bad ID", func(s *workload.Spec) { s.ID = "../x" }, nil, "../x"},
		{"name like an ID", func(s *workload.Spec) { s.Name = strings.Repeat("a", 64) }, nil, "looks like an ID"},
	}
	for _, tt := range tests {
		s := spec("exit", "0")
		tt.change(&s)
		_, err := w.Run(ctx(t), s, &Streams{})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		w.wantEmpty()
	}
	for _, ref := range []string{"", "nobody", "../../etc", strings.Repeat("a", 64), "ffff"} {
		if _, err := w.Inspect(ctx(t), ref); !errors.Is(err, workload.ErrNotFound) {
			t.Errorf("inspect %q: got %v", ref, err)
		}
	}
	failing := errors.New("no such image")
	w.cfg.Images = images{err: failing}
	if _, err := w.Run(ctx(t), spec("exit", "0"), nil); !errors.Is(err, failing) {
		t.Errorf("image source: got %v", err)
	}
	w.wantEmpty()
	// A workload that cannot be started stays as it was.
	w.reopen()
	s := spec()
	s.Process.Args, s.Name = []string{"/nowhere"}, "never"
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(ctx(t), "never", nil); !errors.Is(err, workload.ErrCommandNotFound) {
		t.Errorf("start: got %v", err)
	}
	w.want("never", workload.Created)
}

// TestRemovedMeanwhile puts every operation into the moment in which a workload
// was found by its name and then removed by another command: its lock is gone.
func TestRemovedMeanwhile(t *testing.T) {
	w := newWorld(t)
	s := spec("exit", "0")
	s.Name = "brief"
	r, err := w.Create(ctx(t), s)
	if err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(r.Dir, "lock")
	if err := os.Rename(lock, lock+".away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(lock+".away", lock)
	check := func(op string, err error) {
		t.Helper()
		if want := `no such workload: "brief"`; !errors.Is(err, workload.ErrNotFound) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", op, err, want)
		}
	}
	_, err = w.Start(ctx(t), "brief", nil)
	check("start", err)
	_, err = w.Exec(ctx(t), "brief", process("echo"), nil)
	check("exec", err)
	_, err = w.Attach(ctx(t), "brief", nil)
	check("attach", err)
	_, err = w.Wait(ctx(t), "brief")
	check("wait", err)
	_, err = w.Processes(ctx(t), "brief")
	check("processes", err)
	check("kill", w.Kill(ctx(t), "brief", syscall.SIGTERM))
	check("pause", w.Pause(ctx(t), "brief"))
	check("unpause", w.Unpause(ctx(t), "brief"))
	check("remove", w.Remove(ctx(t), "brief", false))
	if err := w.Stop(ctx(t), "brief", nil); err != nil {
		t.Errorf("stop: got %v, want nil: it does not run", err)
	}

	// A little earlier: its record is gone too.
	record := filepath.Join(r.Dir, "state.json")
	if err := os.Rename(record, record+".away"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Inspect(ctx(t), "brief")
	check("inspect", err)
	check("stop", w.Stop(ctx(t), "brief", nil))
	check("logs", w.Logs(ctx(t), "brief", LogOptions{Tail: -1}, io.Discard, io.Discard))
	if err := os.Rename(record+".away", record); err != nil {
		t.Fatal(err)
	}
}

// TestRangeOfAnotherRoot lets another state root have taken a workload's range
// since a reboot cleared the machine's record.
func TestRangeOfAnotherRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's state roots hand out the same IDs")
	}
	w := newWorld(t)
	s := spec("exit", "0")
	s.Name = "old"
	r, err := w.Create(ctx(t), s)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(r.Dir, "..", "..", "idrange", fmt.Sprint(r.IDBase))
	link := filepath.Join("/run/bulkhead/idrange", fmt.Sprint(r.IDBase))
	if to, err := os.Readlink(link); err != nil || to != filepath.Clean(own) {
		t.Fatalf("the machine's record: got %q, %v, want %q", to, err, filepath.Clean(own))
	}
	other := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(ctx(t), "old", nil); !errors.Is(err, idrange.ErrTaken) || !strings.Contains(err.Error(), other) {
		t.Errorf("got %v, want ErrTaken and %s", err, other)
	}
	w.want("old", workload.Created)
	if err := os.Remove(other); err != nil { // the other workload is removed
		t.Fatal(err)
	}
	session, err := w.Start(ctx(t), "old", &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 {
		t.Errorf("got %+v, %v", exit, err)
	}
	if to, err := os.Readlink(link); err != nil || to != filepath.Clean(own) {
		t.Errorf("the machine's record: got %q, %v, want %q", to, err, filepath.Clean(own))
	}
	if err := w.Remove(ctx(t), "old", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the removal: got %v, want no record", err)
	}
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	ids := []workload.ID{
		workload.ID("aab" + strings.Repeat("0", 61)), workload.ID("aac" + strings.Repeat("0", 61)),
	}
	for i, name := range []string{"first", "aab0"} {
		s := spec("exit", "0")
		s.ID, s.Name = ids[i], name
		if _, err := w.Create(ctx(t), s); err != nil {
			t.Fatal(err)
		}
	}
	for ref, want := range map[string]workload.ID{
		"first": ids[0], string(ids[0]): ids[0], "aab": ids[0], "aab00": ids[0],
		"aab0": ids[1], // a name before a prefix
	} {
		r, err := w.Inspect(ctx(t), ref)
		if err != nil || r.Spec.ID != want {
			t.Errorf("%s: got %+v, %v", ref, r, err)
		}
	}
	if _, err := w.Inspect(ctx(t), "aa"); !errors.Is(err, workload.ErrAmbiguous) {
		t.Errorf("aa: got %v", err)
	}
}

func TestRootMode(t *testing.T) {
	w := newWorld(t)
	for _, d := range []string{w.layout.Root, w.layout.Run} {
		fi, err := os.Stat(d)
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: got %v, %v", d, fi.Mode(), err)
		}
	}
}
