package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/warm"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// warmBoundary is the fake with something that can be made before there is a
// workload: an instance of the holder's, which gives way to the workload's.
type warmBoundary struct {
	*fake.Boundary
	mu    sync.Mutex
	waits boundary.Instance
}

func (b *warmBoundary) Needs(s workload.Spec) boundary.Needs {
	n := b.Boundary.Needs(s)
	n.Root = boundary.Disk
	return n
}

func (b *warmBoundary) Warm(ctx context.Context, s workload.Spec, p boundary.Prepared, _ string) (boundary.Warm, error) {
	s.ID, s.Process = workload.ID(filepath.Base(p.Dir)), process("pause")
	p.Files = nil
	in, err := b.Boundary.Create(ctx, s, p)
	return &warmed{b, in, make(chan struct{})}, err
}

func (b *warmBoundary) take() boundary.Instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := b.waits
	b.waits = nil
	return in
}

func (b *warmBoundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	if b.waits != nil && !strings.HasPrefix(filepath.Base(p.Cgroup), "warm-") {
		return nil, errors.New("what waits is elsewhere")
	}
	for _, name := range []string{p.Machine.Kernel, p.Machine.Initramfs} {
		if _, err := os.Stat(name); name != "" && err != nil {
			return nil, err
		}
	}
	in, err := b.Boundary.Create(ctx, s, p)
	if err == nil { // it is not as it was when it was made
		err = os.WriteFile(p.Machine.Data, []byte("written to"), 0o600)
	}
	if waits := b.take(); waits != nil {
		err = errors.Join(err, waits.Delete(ctx))
	}
	return in, err
}

// warmed is what warmBoundary has made.
type warmed struct {
	b    *warmBoundary
	in   boundary.Instance
	done chan struct{}
}

func (w *warmed) Boundary() boundary.Boundary {
	w.b.waits = w.in
	return w.b
}
func (w *warmed) Done() <-chan struct{} { return w.done }
func (w *warmed) Discard(ctx context.Context) error {
	w.b.take()
	return w.in.Delete(ctx)
}

// machines says what the fake's are made from. What an image is made of is in a
// file beside the state, so that it can change. They boot the default kernel of the
// store there, if there is one.
type machines struct{ dir string }

func (machines) Disk(context.Context, workload.Image) (workload.Disk, func(), error) {
	return workload.Disk{Path: "/image"}, func() {}, nil
}
func (machines) DataDisk(_ context.Context, path string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}
func (m machines) Start(ctx context.Context, _ workload.VM, to *boundary.Machine) error {
	if _, err := os.Stat(filepath.Join(m.dir, "kernels")); err != nil {
		return nil // it boots nothing
	}
	s, err := kernel.Open(m.dir)
	if err != nil {
		return err
	}
	k, err := s.Resolve(ctx, "", kernel.Wanted{Agent: filepath.Join(m.dir, "agent"), Modules: []string{}}, nil)
	to.Kernel, to.Initramfs = k.Image, k.Initramfs
	return err
}
func (m machines) Started(workload.VM, *boundary.Machine) {
	f, err := os.OpenFile(filepath.Join(m.dir, "started"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.WriteString(".")
		f.Close()
	}
	if err != nil {
		panic(err)
	}
}
func (machines) Template(context.Context, workload.Spec, boundary.Prepared) error {
	return nil
}
func (m machines) WarmTemplate(ctx context.Context, s workload.Spec, p boundary.Prepared) (string, error) {
	return m.WarmKey(ctx, s, p)
}
func (m machines) WarmKey(_ context.Context, s workload.Spec, p boundary.Prepared) (string, error) {
	if fi, err := os.Stat(p.Machine.Data); err != nil || fi.Size() > 0 || len(s.Mounts) > 0 {
		return "", err
	}
	kernel, _ := os.ReadFile(filepath.Join(m.dir, "kernel"))
	sum := sha256.Sum256([]byte(s.Image.Digest + strconv.FormatBool(s.KeepStdin) + string(kernel)))
	return hex.EncodeToString(sum[:]), nil
}

// leftWarm names what waits, or is left of what did.
func (w *world) leftWarm() (left []string) {
	found, _ := filepath.Glob(filepath.Join(w.dir, "root/run/warm/*"))
	for _, f := range found {
		if base := filepath.Base(f); base != "lock" && base != "making" {
			left = append(left, f)
		}
	}
	return left
}

func newWarmWorld(t *testing.T) *world {
	t.Setenv(envWarm, "1")
	return newWorld(t)
}

func warmSpec(args ...string) workload.Spec {
	s := spec(args...)
	s.Image = workload.Image{Reference: "example.com/image:1", Digest: "sha256:1"}
	return s
}

const ofWarm = "example.com/image:1"

// warm makes count wait.
func (w *world) warm(count int) (key string) {
	w.t.Helper()
	key, err := w.Warm(ctx(w.t), warmSpec("echo"), ofWarm, count)
	if err != nil {
		w.t.Fatal(err)
	}
	w.wantWaiting(count)
	return key
}

// wantWaiting waits until so many do, and no more are to come.
func (w *world) wantWaiting(count int) {
	w.t.Helper()
	var n int
	w.until("as many wait as should", func() bool {
		n = 0
		pools, err := WarmPools(w.layout.Run)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range pools {
			n += p.Waiting
		}
		return n == count
	})
}

// until looks again and again, for a limited time.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// cool ends what waits.
func (w *world) cool() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.Cool(ctx(w.t), ofWarm); err != nil {
		w.t.Fatal(err)
	}
	w.until("nothing waits", func() bool { return len(w.leftWarm()) == 0 })
}

func inWarm(r *Record) bool { return strings.HasPrefix(filepath.Base(r.Cgroup), "warm-") }

// TestWarm: a workload gets the supervisor that has waited, is in nothing different
// from others, and another takes the place of what it took.
func TestWarm(t *testing.T) {
	w := newWarmWorld(t)
	key := w.warm(1)
	pool := warm.Of(w.layout.Run, key)
	holders, err := pool.Holders()
	if err != nil || len(holders) != 1 {
		t.Fatalf("%v, %v", holders, err)
	}
	s := warmSpec("pause")
	s.Name = "taken"
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	r := w.want("taken", workload.Running)
	if filepath.Base(r.Cgroup) != warm.Owner(holders[0].ID) {
		t.Errorf("it runs in %s", r.Cgroup)
	}
	title, err := os.ReadFile("/proc/" + strconv.Itoa(r.SupervisorPID) + "/cmdline")
	if want := "\x00" + r.Spec.ID.Short() + "\x00"; err != nil || !strings.HasSuffix(string(title), want) {
		t.Errorf("its supervisor is called %q, %v, want %q", title, err, want)
	}
	for fd, want := range map[string]string{"2": filepath.Join(r.RunDir, "stderr"), "0": os.DevNull} {
		if to, err := os.Readlink("/proc/" + strconv.Itoa(r.SupervisorPID) + "/fd/" + fd); to != want {
			t.Errorf("its descriptor %s is %s, %v, want %s", fd, to, err, want)
		}
	}
	owner, err := os.Readlink(filepath.Join(w.layout.Root, "idrange", strconv.FormatUint(uint64(r.IDBase), 10)))
	if owner != string(r.Spec.ID) || err != nil {
		t.Errorf("its range of IDs belongs to %q, %v", owner, err)
	}
	w.wantWaiting(1)
	if names, _ := os.ReadDir(filepath.Join(w.layout.Root, "idrange")); len(names) != 3 { // a lock, and two
		t.Errorf("ranges of IDs: %v", names)
	}
	now := time.Duration(0)
	if err := w.Stop(ctx(t), "taken", &now); err != nil {
		t.Fatal(err)
	}
	w.want("taken", workload.Exited)
	// Started again, it has a disk of its own that somebody wrote to.
	if _, err := w.Start(ctx(t), "taken", nil); err != nil {
		t.Fatal(err)
	}
	if again := w.want("taken", workload.Running); again.SupervisorPID == r.SupervisorPID || again.Cgroup != r.Cgroup || again.IDBase != r.IDBase {
		t.Errorf("started again: %+v", again)
	}
	w.wantWaiting(1)
	if err := w.Remove(ctx(t), "taken", true); err != nil {
		t.Fatal(err)
	}
	w.cool()
	w.wantEmpty()
	if len(w.said) > 0 {
		t.Errorf("warnings: %q", w.said)
	}
}

// TestWarmStart: what was created and never ran is started in what waits, too, and
// stays as it was where it cannot be.
func TestWarmStart(t *testing.T) {
	w := newWarmWorld(t)
	w.warm(1)
	for name, program := range map[string]string{"good": "pause", "bad": "nothing"} {
		s := warmSpec(program)
		s.Name = name
		if name == "bad" {
			s.Process.Args = []string{"/no/such/program"}
		}
		before, err := w.Create(ctx(t), s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Start(ctx(t), name, nil)
		after, ierr := w.Inspect(ctx(t), name)
		if ierr != nil {
			t.Fatal(ierr)
		}
		switch {
		case name == "good" && (err != nil || !inWarm(after) || after.IDBase == before.IDBase):
			t.Errorf("%v: %+v", err, after)
		case name == "bad" && (!errors.Is(err, workload.ErrCommandNotFound) || inWarm(after) || after.IDBase != before.IDBase || after.Status != workload.Created):
			t.Errorf("%v: %+v", err, after)
		}
		if err := w.Remove(ctx(t), name, true); err != nil {
			t.Fatal(err)
		}
		w.warm(1)
	}
	w.cool()
}

// TestWarmMany: of many that start at the same time each holder serves one.
func TestWarmMany(t *testing.T) {
	w := newWarmWorld(t)
	w.warm(2)
	const many = 6
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			s := warmSpec("pause")
			s.Name = "many-" + strconv.Itoa(i)
			if _, err := w.Run(context.Background(), s, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen, taken := map[string]bool{}, 0
	for _, r := range w.list() {
		for _, mine := range []string{r.Cgroup, strconv.Itoa(r.SupervisorPID), strconv.FormatUint(uint64(r.IDBase), 10)} {
			if seen[mine] {
				t.Errorf("two have %s", mine)
			}
			seen[mine] = true
		}
		if inWarm(r) {
			taken++
		}
	}
	if len(w.list()) != many || taken < 2 {
		t.Errorf("%d run, %d of them in what waited", len(w.list()), taken)
	}
	w.wantWaiting(2)
	w.cool()
	if len(w.said) > 0 {
		t.Errorf("warnings: %q", w.said)
	}
}

// TestWarmCount: there are as many as are wanted, for what is wanted.
func TestWarmCount(t *testing.T) {
	w := newWarmWorld(t)
	first := w.warm(3)
	if again := w.warm(1); again != first {
		t.Errorf("the same has the key %s, then %s", first, again)
	}
	// Another kernel: what waited with the old one is of no use.
	if err := os.WriteFile(filepath.Join(w.dir, "kernel"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := warmSpec("echo", "hello")
	s.Name = "outdated"
	if exit, out, _ := w.run(s, ""); exit.Code != 0 || out != "hello\n" {
		t.Errorf("%+v, %q", exit, out)
	}
	if r := w.want("outdated", workload.Exited); inWarm(r) {
		t.Errorf("it ran in what is outdated: %s", r.Cgroup)
	}
	if key := w.warm(2); key == first {
		t.Error("with another kernel the key is the same")
	}
	if _, err := os.Lstat(warm.Of(w.layout.Run, first).Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old ones are there: %v", err)
	}
	// What is not the same does not get it.
	s.Name, s.Image.Digest = "other", "sha256:2"
	w.run(s, "")
	if r := w.want("other", workload.Exited); inWarm(r) {
		t.Errorf("another image ran in %s", r.Cgroup)
	}
	s = warmSpec("echo")
	s.VM.NoTemplate = true
	if _, err := w.Warm(ctx(t), s, "x", 1); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("without templates: %v", err)
	}
	w.cool()
	if names, err := os.ReadDir(filepath.Join(w.dir, "world")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestWarmDead: a holder that was killed is not claimed, and nothing is left of it.
// One that does not answer holds nobody up for long.
func TestWarmDead(t *testing.T) {
	w := newWarmWorld(t)
	pool := warm.Of(w.layout.Run, w.warm(2))
	holders, err := pool.Holders()
	if err != nil {
		t.Fatal(err)
	}
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		pid := w.pidOf(holders[i])
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the killed one is dead", func() bool {
		all, err := pool.Holders()
		return err == nil && slices.ContainsFunc(all, func(h warm.Holder) bool { return !h.Lives })
	})
	if exit, out, _ := w.run(warmSpec("echo", "hello"), ""); exit.Code != 0 || out != "hello\n" {
		t.Errorf("%+v, %q", exit, out)
	}
	for _, r := range w.list() {
		if inWarm(r) {
			t.Errorf("it ran in %s", r.Cgroup)
		}
	}
	if err := syscall.Kill(w.pidOf(holders[1]), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.reopen() // sweeps up
	w.warm(2)
	w.cool()
}

// pidOf is the process of a holder that waits.
func (w *world) pidOf(h warm.Holder) int {
	w.t.Helper()
	f, err := wire.Dial(h.Dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	pid, err := wire.Peer(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return pid
}

// TestWarmClient: what connects and asks for something else, says nothing, or goes
// away in the middle, leaves the holder to the next.
func TestWarmClient(t *testing.T) {
	w := newWarmWorld(t)
	pool := warm.Of(w.layout.Run, w.warm(1))
	holders, err := pool.Holders()
	if err != nil {
		t.Fatal(err)
	}
	for name, say := range map[string]func(f *os.File, c *conn){
		"goes away": func(*os.File, *conn) {},
		"garbage":   func(f *os.File, _ *conn) { f.Write([]byte("GET / HTTP/1.0\r\n\r\n")) },
		"another request": func(_ *os.File, c *conn) {
			if _, err := c.ask(ctx(t), &wire.Request{Version: wire.Version, Op: wire.OpStop}); !errors.Is(err, workload.ErrNotRunning) {
				t.Errorf("stop: %v", err)
			}
		},
		"another version": func(_ *os.File, c *conn) {
			if _, err := c.ask(ctx(t), &wire.Request{Version: wire.Version + 1, Op: wire.OpClaim}); !errors.Is(err, workload.ErrUnsupported) {
				t.Errorf("another version: %v", err)
			}
		},
		"claims and goes": func(_ *os.File, c *conn) {
			if _, err := c.ask(ctx(t), &wire.Request{Version: wire.Version, Op: wire.OpClaim}); err != nil {
				t.Errorf("claim: %v", err)
			}
		},
		"one descriptor": func(f *os.File, c *conn) {
			if _, err := c.ask(ctx(t), &wire.Request{Version: wire.Version, Op: wire.OpClaim}); err != nil {
				t.Errorf("claim: %v", err)
			}
			if err := wire.SendFile(f, f); err != nil {
				t.Error(err)
			}
		},
		"no descriptor": func(f *os.File, c *conn) {
			if _, err := c.ask(ctx(t), &wire.Request{Version: wire.Version, Op: wire.OpClaim}); err != nil {
				t.Errorf("claim: %v", err)
			}
			f.Write([]byte("xx"))
		},
	} {
		f, err := wire.Dial(holders[0].Dir)
		if err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		say(f, newConn(f))
		f.Close()
	}
	// They are served one after the other, and one that says nothing is waited for
	// longer than a command waits for its turn.
	f, err := wire.Dial(holders[0].Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newConn(f).ask(ctx(t), &wire.Request{Version: wire.Version + 1, Op: wire.OpClaim}); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("another version, in the end: %v", err)
	}
	f.Close()
	s := warmSpec("pause")
	s.Name = "after"
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	if r := w.want("after", workload.Running); filepath.Base(r.Cgroup) != warm.Owner(holders[0].ID) {
		t.Errorf("it runs in %s", r.Cgroup)
	}
	w.cool()
}

// TestWarmUpdate: what runs a program that has been replaced is not taken, and ends
// when it is asked for again.
func TestWarmUpdate(t *testing.T) {
	w := newWarmWorld(t)
	program := filepath.Join(t.TempDir(), "supervisor")
	install := func() {
		t.Helper()
		b, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(program+".new", b, 0o755)
		}
		if err == nil {
			err = os.Rename(program+".new", program)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	install()
	w.cfg.Supervisor = program
	pool := warm.Of(w.layout.Run, w.warm(1))
	old, err := pool.Holders()
	if err != nil {
		t.Fatal(err)
	}
	install()
	s := warmSpec("echo", "hello")
	s.Name = "updated"
	if exit, out, _ := w.run(s, ""); exit.Code != 0 || out != "hello\n" {
		t.Errorf("%+v, %q", exit, out)
	}
	if r := w.want("updated", workload.Exited); inWarm(r) {
		t.Errorf("it ran in %s", r.Cgroup)
	}
	w.warm(1)
	if exists(old[0].Dir) {
		t.Error("the old one waits on")
	}
	w.cool()
}

// TestWarmTaken: what a command has claimed is nobody else's, and does not count
// any more; it ends with a command that does not go on.
func TestWarmTaken(t *testing.T) {
	w := newWarmWorld(t)
	pool := warm.Of(w.layout.Run, w.warm(1))
	holders, err := pool.Holders()
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.Dial(holders[0].Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := newConn(f)
	if _, err := c.ask(ctx(t), &wire.Request{Version: wire.Version, Op: wire.OpClaim}); err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, f2 := range []*os.File{lock, theirs} {
		if err := wire.SendFile(f, f2); err != nil {
			t.Fatal(err)
		}
	}
	theirs.Close()
	var reply wire.Reply
	if err := c.r.Message(wire.TypeReply, &reply); err != nil || reply.State == nil {
		t.Fatalf("%+v, %v", reply, err)
	}
	if a, err := w.askHolder(ctx(t), holders[0], wire.OpClaim); a != nil || err != nil {
		t.Errorf("another gets it, too: %v, %v", a, err)
	}
	w.wantWaiting(0)
	if err := w.refill(ctx(t), pool, true); err != nil {
		t.Fatal(err)
	}
	w.wantWaiting(1)
	ours.Close()
	w.until("it ends", func() bool { return !exists(holders[0].Dir) })
	w.wantWaiting(1)
	w.cool()
}

// TestWarmCrash ends commands and holders with SIGKILL after each step of what they
// do. The next command must find nothing of what was not finished, and start what it
// is asked for.
func TestWarmCrash(t *testing.T) {
	w := newWarmWorld(t)
	once := warmSpec("both")
	once.Name, once.AutoRemove = "victim", true
	do := []command{{Op: "warm", Spec: warmSpec("echo"), Ref: ofWarm}, {Op: "run", Spec: once}}
	list := filepath.Join(t.TempDir(), "steps")
	for _, c := range do {
		if _, out := w.child(c, envSteps+"="+list); strings.Contains(out, "workload") {
			t.Fatalf("%s: %s", c.Op, out)
		}
	}
	w.cool()
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	steps := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Sort(steps)
	steps = slices.Compact(steps)
	for _, want := range []string{"supervisor: warm: waits", "supervisor: warm: claimed", "command: claim: claimed", "supervisor: warm: over"} {
		if !slices.Contains(steps, want) {
			t.Fatalf("no step %q in %q", want, steps)
		}
	}
	for _, step := range steps {
		crashed := filepath.Join(t.TempDir(), "crashed")
		var said []string
		for _, c := range do {
			_, out := w.child(c, envCrash+"="+step, envCrashed+"="+crashed)
			said = append(said, out)
		}
		w.until(fmt.Sprintf("%s: %q", step, said), func() bool { return exists(crashed) })
		w.reopen()
		// Those that wait by now, or will, would end at the same step.
		w.cool()
		w.until("no supervisor of before", func() bool { return !w.supervised() })
		w.warm(1)
		s := warmSpec("echo", "hello")
		if exit, out, _ := w.run(s, ""); exit.Code != 0 || out != "hello\n" {
			t.Errorf("%s: then %+v, %q", step, exit, out)
		}
		for _, r := range w.list() {
			if err := w.Remove(ctx(t), string(r.Spec.ID), true); err != nil && !errors.Is(err, workload.ErrNotFound) {
				t.Errorf("%s: %v", step, err)
			}
		}
		w.cool()
		var left []string
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			w.reopen() // who was killed may still be ending
			if left = w.left(); len(left) == 0 && !w.supervised() {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: left behind: %q", step, left)
			}
		}
	}
}

// supervised tells whether a supervisor of this world runs: one that has not begun
// yet would find a place in the next pool.
func (w *world) supervised() bool {
	found, _ := filepath.Glob("/proc/[0-9]*/environ")
	return slices.ContainsFunc(found, func(name string) bool {
		b, _ := os.ReadFile(name) // it has ended, else
		return strings.Contains(string(b), envRole+"=supervisor\x00"+envWorld+"="+filepath.Join(w.dir, "world")+"\x00")
	})
}

// TestMachineStarted: whoever prepares machines hears of each that was started, and of
// none that was only made or could not be.
func TestMachineStarted(t *testing.T) {
	w := newWarmWorld(t)
	want := func(when string, want int) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(w.dir, "started"))
		if len(got) != want || err != nil && want > 0 {
			t.Errorf("%s: %d, %v, want %d", when, len(got), err, want)
		}
	}
	one := warmSpec("pause")
	one.Name = "one"
	if _, err := w.Create(ctx(t), one); err != nil {
		t.Fatal(err)
	}
	bad := warmSpec()
	bad.Process.Args = []string{"/nonexistent"}
	if _, err := w.Run(ctx(t), bad, nil); !errors.Is(err, workload.ErrCommandNotFound) {
		t.Errorf("got %v", err)
	}
	want("created", 0)
	if _, err := w.Start(ctx(t), "one", nil); err != nil {
		t.Fatal(err)
	}
	want("started", 1)
	key := w.warm(1)
	want("one waits", 1)
	if _, err := w.Run(ctx(t), warmSpec("pause"), nil); err != nil {
		t.Fatal(err)
	}
	want("it was taken", 2)
	if err := w.EndWarm(ctx(t), key); err != nil {
		t.Fatal(err)
	}
}
