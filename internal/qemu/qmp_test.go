package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// TestDiskSlots puts a file into an empty slot and takes it out, more than once.
func TestDiskSlots(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		t.Run(string(machine), func(t *testing.T) {
			cfg := config(t, code{}.stack().print("up").hang())
			cfg.Machine = machine
			cfg.Disks = []Disk{{Serial: "image0", ReadOnly: true}, {Serial: "image1", ReadOnly: true, File: image(t, "x")}, {Serial: "data"}}
			m := start(t, cfg)
			console(t, m, "up")
			ctx := context.Background()
			for _, serial := range []string{"image0", "data", "image0"} {
				name := image(t, serial)
				flags, mode := os.O_RDWR, unix.O_RDWR
				if serial != "data" {
					flags, mode = os.O_RDONLY, unix.O_RDONLY
				}
				f, err := os.OpenFile(name, flags, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.InsertDisk(ctx, serial, f); err != nil {
					t.Fatal(err)
				}
				if err := m.InsertDisk(ctx, serial, f); err == nil {
					t.Error("two disks in one slot")
				}
				f.Close()
				if modes := accessModes(t, m, name); len(modes) == 0 || modes[0] != mode {
					t.Errorf("%s: QEMU has it open as %v, want mode %d", serial, modes, mode)
				}
				if got := backing(t, m, serial); !strings.HasPrefix(got, "/dev/fdset/") {
					t.Errorf("%s is backed by %q", serial, got)
				}
				if err := m.EjectDisk(ctx, serial); err != nil {
					t.Fatal(err)
				}
				if modes := accessModes(t, m, name); len(modes) != 0 {
					t.Errorf("%s: QEMU still has it open: %v", serial, modes)
				}
			}
			if err := m.EjectDisk(ctx, "image0"); err != nil {
				t.Errorf("eject from an empty slot: %v", err)
			}
			if err := m.InsertDisk(ctx, "nothing", os.Stdin); err == nil {
				t.Error("a disk without a slot")
			}
			// What was there from the start can go, too.
			if err := m.EjectDisk(ctx, "image1"); err != nil {
				t.Error(err)
			}
			if modes := accessModes(t, m, cfg.Disks[1].File); len(modes) > 1 {
				t.Errorf("image1: QEMU still has it open: %v", modes)
			}
		})
	}
}

// backing asks QEMU for the file behind a device.
func backing(t *testing.T, m *Machine, serial string) string {
	t.Helper()
	b, err := m.qmp.do(context.Background(), "query-block", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Qdev     string
		Inserted struct{ File string }
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if strings.Contains(d.Qdev, deviceID(serial)) {
			return d.Inserted.File
		}
	}
	t.Fatalf("no device %s in %s", serial, b)
	return ""
}

func TestStopContQuit(t *testing.T) {
	m := start(t, config(t, code{}.print(".").flood()))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	console(t, m, ".")
	if err := m.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	total := func() int64 { m.console.mu.Lock(); defer m.console.mu.Unlock(); return m.console.total }
	if running, err := processorsRun(ctx, m); err != nil || running {
		t.Errorf("after stop: running %v, %v", running, err)
	}
	time.Sleep(50 * time.Millisecond) // what is under way arrives
	before := total()
	time.Sleep(50 * time.Millisecond)
	if after := total(); after != before {
		t.Errorf("a stopped guest wrote %d bytes", after-before)
	}
	if err := m.Cont(ctx); err != nil {
		t.Fatal(err)
	}
	if running, err := processorsRun(ctx, m); err != nil || !running {
		t.Errorf("after cont: running %v, %v", running, err)
	}
	for total() == before && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := m.qmp.do(ctx, "quit", nil); err != nil && !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
	if ws, err := wait(ctx, m); err != nil || ws != 0 {
		t.Errorf("ended with %v, %v", ws, err)
	}
}

// hostileQMP answers commands as a QEMU that is taken over could.
func hostileQMP(t *testing.T, answer func(line string, w *os.File)) *qmp {
	t.Helper()
	leakcheck.Check(t, leakcheck.Options{})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "theirs")
	q := newQMP(os.NewFile(uintptr(fds[0]), "ours"), func(string, json.RawMessage) {})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(theirs); s.Scan(); {
			answer(s.Text(), theirs)
		}
	}()
	t.Cleanup(func() { q.close(); theirs.Close(); <-done })
	return q
}

func TestHostileQMP(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(line string, w *os.File)
		want   string
		last   bool // nothing is read after it
	}{
		"no JSON":        {func(_ string, w *os.File) { fmt.Fprintln(w, "hello") }, "control socket", true},
		"endless line":   {func(_ string, w *os.File) { w.WriteString(strings.Repeat("x", 2*maxReply)) }, "more than", true},
		"another's ID":   {func(_ string, w *os.File) { fmt.Fprintln(w, `{"return":{},"id":"99"}`) }, "deadline", false},
		"silence":        {func(string, *os.File) {}, "deadline", false},
		"end":            {func(_ string, w *os.File) { w.Close() }, ErrGone.Error(), true},
		"escape in text": {func(_ string, w *os.File) { fmt.Fprintln(w, `{"error":{"class":"x","desc":"\u001b[2J"},"id":"1"}`) }, `\x1b[2J`, false},
		"two greetings":  {func(_ string, w *os.File) { fmt.Fprintln(w, `{"QMP":{}}`+"\n"+`{"QMP":{}}`+"\n"+`{"QMP":{}}`) }, "deadline", false},
	} {
		t.Run(name, func(t *testing.T) {
			q := hostileQMP(t, tt.answer)
			limit := 300 * time.Millisecond
			if tt.last { // which comes, on a slow machine later
				limit = time.Minute
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if _, err := q.do(ctx, "stop", nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if !tt.last {
				return
			}
			<-q.done
			if _, err := q.sock.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
				t.Errorf("nobody reads the socket, and it is open: %v", err)
			}
		})
	}
}

// TestLongRefusal: what a QEMU that is taken over says goes into records and onto
// terminals, and is short there.
func TestLongRefusal(t *testing.T) {
	q := hostileQMP(t, func(_ string, w *os.File) {
		fmt.Fprintf(w, `{"error":{"class":"x","desc":%q},"id":"1"}`+"\n", strings.Repeat("é", 100<<10))
	})
	_, err := q.do(t.Context(), "stop", nil)
	if err == nil || len(err.Error()) > maxLine+100 || !strings.HasPrefix(err.Error(), "QEMU: stop: éé") || !utf8.ValidString(err.Error()) {
		t.Errorf("%d bytes, %.100q", len(err.Error()), err)
	}
}

// TestQMPThatDoesNotRead fills the socket: the command ends with its context.
func TestQMPThatDoesNotRead(t *testing.T) {
	block := make(chan struct{})
	q := hostileQMP(t, func(string, *os.File) { <-block })
	defer close(block)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := q.do(ctx, "stop", strings.Repeat("x", 4<<20))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
}

// TestQMPWhoseCallersGo: a caller whose context ends while a command is sent takes
// nothing from the next.
func TestQMPWhoseCallersGo(t *testing.T) {
	q := hostileQMP(t, func(string, *os.File) {})
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		q.send(ctx, []byte("{}\n"), nil) //nolint:errcheck // it may be too late, or not
		cancel()
		runtime.Gosched()
		if err := q.send(t.Context(), []byte("{}\n"), nil); err != nil {
			t.Fatal(err)
		}
	}
}
