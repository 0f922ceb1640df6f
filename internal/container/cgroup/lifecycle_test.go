package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestJoinEveryHierarchy(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "join", nil)
		h := start(t, m, "sleep")
		h.line(t)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if f[1] == "" && lay.V2 == "" {
				continue
			}
			if f[2] != m.Path() {
				t.Errorf("hierarchy %q: in %s, want %s", f[1], f[2], m.Path())
			}
		}
		if pids, err := m.Pids(false); err != nil || !slices.Contains(pids, h.cmd.Process.Pid) {
			t.Errorf("Pids: %v, %v, want %d", pids, err, h.cmd.Process.Pid)
		}
		if yes, err := m.Populated(); !yes || err != nil {
			t.Errorf("Populated: %v, %v", yes, err)
		}
		// The thread that started it is gone from the cgroup, and this process was
		// never in it.
		if pids, _ := m.Pids(true); len(pids) != 1 {
			t.Errorf("members %v, want one", pids)
		}
	})
}

func TestJoinDescriptorsCloseOnExec(t *testing.T) {
	lay := native(t)
	m := create(t, lay, "cloexec", nil)
	tasks, dir, err := m.Join()
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) != len(lay.V1) || (dir == nil) != (lay.V2 == "") {
		t.Errorf("%d tasks files and %v for %d hierarchies", len(tasks), dir, len(lay.V1))
	}
	files := tasks
	if dir != nil {
		files = append(files, dir)
	}
	for _, f := range files {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("%s: not close-on-exec", f.Name())
		}
		f.Close()
	}
}

func TestWaitEmpty(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "wait", nil)
		h := start(t, m, "wait")
		h.line(t)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := m.WaitEmpty(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitEmpty with a process inside: %v", err)
		}
		done := make(chan error)
		go func() { done <- m.WaitEmpty(within(t)) }()
		h.in.Close()
		if err := <-done; err != nil {
			t.Errorf("WaitEmpty: %v", err)
		}
		if yes, err := m.Populated(); yes || err != nil {
			t.Errorf("Populated: %v, %v, want false", yes, err)
		}
	})
}

func TestDestroyWithProcessesFails(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "busy", nil)
		h := start(t, m, "sleep")
		h.line(t)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := m.Destroy(ctx); !errors.Is(err, ErrPopulated) {
			t.Errorf("Destroy: %v, want ErrPopulated", err)
		}
		if err := h.cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("Destroy touched the process: %v", err)
		}
	})
}

func TestDestroyNested(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "nested", nil)
		for _, dir := range m.dirs() {
			for _, sub := range []string{"/a/b/c/d", "/a/e", "/f"} {
				if err := os.MkdirAll(dir+sub, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(dir+strings.Repeat("/x", 60), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		inner := create(t, lay, "nested/a/b", nil)
		start(t, inner, "sleep").line(t)
		if pids, err := m.Pids(true); err != nil || len(pids) != 1 {
			t.Errorf("Pids(recursive): %v, %v", pids, err)
		}
		if pids, err := m.Pids(false); err != nil || len(pids) != 0 {
			t.Errorf("Pids: %v, %v", pids, err)
		}
		if err := m.Kill(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := m.Destroy(within(t)); err != nil {
			t.Fatal(err)
		}
		if m.Exists() {
			t.Error("still there")
		}
		if err := m.Destroy(within(t)); err != nil {
			t.Errorf("second Destroy: %v", err)
		}
	})
}

// TestDestroyDeep: a workload nests cgroups deeper than a path can be long, and is
// ended and taken away all the same.
func TestDestroyDeep(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "deep", nil)
		var deepest []int
		for _, dir := range m.dirs() {
			deepest = append(deepest, nest(t, dir, 18))
		}
		h := start(t, m, "sleep")
		h.line(t)
		pid := h.cmd.Process.Pid
		for _, at := range deepest {
			fd, err := unix.Openat(at, "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				err = writeFD(fd, strconv.Itoa(pid))
				unix.Close(fd)
			}
			if err != nil && !errors.Is(err, unix.ENOSPC) { // a cpuset without processors
				t.Fatalf("move the process: %v", err)
			}
		}
		if pids, err := m.Pids(true); err != nil || !slices.Contains(pids, pid) {
			t.Errorf("Pids: %v, %v; want %d among them", pids, err, pid)
		}
		if err := m.Kill(within(t)); err != nil {
			t.Fatalf("Kill: %v", err)
		}
		if !h.wait(t).Signaled() {
			t.Error("the process was not killed")
		}
		if err := m.Destroy(within(t)); err != nil || m.Exists() {
			t.Errorf("Destroy: %v, still there: %v", err, m.Exists())
		}
	})
}

// nest makes directories in one another, with names as long as possible, and returns
// the last one, open. What the test leaves of them goes after it.
func nest(t *testing.T, dir string, n int) int {
	t.Helper()
	fds := make([]int, 1, n+1)
	var err error
	if fds[0], err = unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 250)
	t.Cleanup(func() {
		for _, fd := range slices.Backward(fds) {
			_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
			unix.Close(fd)
		}
	})
	for range n {
		at := fds[len(fds)-1]
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds[n]
}

func TestConcurrentCreate(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		r := &specs.LinuxResources{}
		if _, ok := lay.onV1("pids"); ok || lay.onV2("pids") {
			r.Pids = &specs.LinuxPids{Limit: ptr(int64(10))}
		}
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				for range 3 {
					m, err := New(fmt.Sprintf("%s/many/%d/workload", root, i), r, Options{Layout: lay})
					if err != nil {
						t.Error(err)
						return
					}
					if err := m.Create(); err != nil {
						t.Errorf("Create %d: %v", i, err)
					}
					if err := m.Destroy(within(t)); err != nil {
						t.Errorf("Destroy %d: %v", i, err)
					}
					// This pulls the common parent away from under the others.
					m.RemoveEmptyParents(root)
				}
			})
		}
		all.Wait()
		for _, mount := range append(mounts(lay), lay.V2) {
			if mount != "" && exists(mount+root, "many") {
				t.Errorf("%s%s/many is left", mount, root)
			}
		}
	})
}

// TestCreateFailingLeavesNothing breaks off after each hierarchy.
func TestCreateFailingLeavesNothing(t *testing.T) {
	lay := native(t)
	for i := range len(lay.V1) + 1 {
		broken := &Layout{Mode: ModeV1, V1: slices.Clone(lay.V1[:i])}
		broken.V1 = append(broken.V1, Hierarchy{Name: "broken", Controllers: []string{"broken"}, Mount: t.TempDir() + "/absent"})
		m, err := New(root+"/half/way", nil, Options{Layout: broken})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Create(); err == nil {
			t.Fatal("Create: no error")
		}
		if left := leftovers(lay); len(left) > 0 {
			t.Errorf("after breaking off behind %d hierarchies: %v", i, left)
		}
	}
}

func TestCreateRefusesUsedCgroup(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "used", nil)
		again, err := New(m.Path(), nil, Options{Layout: lay})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Create(); err != nil {
			t.Errorf("Create of an empty one: %v", err)
		}
		if err := m.Freeze(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := again.Create(); !errors.Is(err, ErrFrozen) {
			t.Errorf("Create of a frozen one: %v, want ErrFrozen", err)
		}
		below, err := New(m.Path()+"/below", nil, Options{Layout: lay})
		if err != nil {
			t.Fatal(err)
		}
		if err := below.Create(); !errors.Is(err, ErrFrozen) || below.Exists() {
			t.Errorf("Create below a frozen one: %v, it exists: %v; want ErrFrozen", err, below.Exists())
		}
		if err := m.Thaw(); err != nil {
			t.Fatal(err)
		}
		start(t, m, "sleep").line(t)
		if err := again.Create(); !errors.Is(err, ErrPopulated) {
			t.Errorf("Create of a populated one: %v, want ErrPopulated", err)
		}
		if !m.Exists() {
			t.Error("the refused Create removed it")
		}
	})
}

func TestLoad(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		o := Options{Layout: lay}
		if _, err := Load(root+"/absent", o); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Load of nothing: %v", err)
		}
		m := create(t, lay, "load", nil)
		loaded, err := Load(m.Path(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(loaded.Paths()), fmt.Sprint(m.Paths()); got != want {
			t.Errorf("Paths %s, want %s", got, want)
		}
		h := start(t, loaded, "sleep")
		h.line(t)
		if err := loaded.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if s := h.wait(t); !s.Signaled() || s.Signal() != syscall.SIGTERM {
			t.Errorf("after Signal: %v", s)
		}
		if err := loaded.Destroy(within(t)); err != nil || m.Exists() {
			t.Errorf("Destroy: %v, exists %v", err, m.Exists())
		}
		if _, err := m.Stats(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stats of a removed one: %v", err)
		}
		for _, f := range []func() error{
			func() error { return m.Kill(within(t)) },
			func() error { return m.WaitEmpty(within(t)) },
			func() error { _, err := m.Pids(true); return err },
			func() error { _, err := m.Frozen(); return err },
			func() error { _, err := m.OOMKilled(); return err },
		} {
			if err := f(); err != nil {
				t.Errorf("on a removed cgroup: %v", err)
			}
		}
	})
}

// TestSupervisorAndWorkload is the engine's layout.
func TestSupervisorAndWorkload(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		work := create(t, lay, "id/workload", memory(t, lay, 64<<20))
		super := create(t, lay, "id/supervisor", nil)
		start(t, super, "sleep").line(t)
		start(t, work, "sleep").line(t)
		if pids, err := work.Pids(true); err != nil || len(pids) != 1 {
			t.Errorf("workload has %v, %v", pids, err)
		}
		s, err := work.Stats()
		if err != nil || s.Memory.Limit != 64<<20 {
			t.Errorf("workload: %+v, %v", s.Memory, err)
		}
		if s, err = super.Stats(); err != nil || s.Memory.Limit != Unlimited || s.Memory.Current == 0 {
			t.Errorf("supervisor: %+v, %v", s.Memory, err)
		}
		both, err := Load(root+"/id", Options{Layout: lay})
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Kill(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := both.Destroy(within(t)); err != nil || work.Exists() || super.Exists() {
			t.Errorf("Destroy: %v; workload %v supervisor %v", err, work.Exists(), super.Exists())
		}
	})
}

// TestInternalProcesses puts a process where v2 allows none.
func TestInternalProcesses(t *testing.T) {
	lay := native(t)
	if !lay.onV2("memory") {
		t.Skipf("in mode %s memory is not on v2", lay.Mode)
	}
	// No controllers are needed for the outer one, so that the inner one has to
	// enable them in it.
	outer := create(t, lay, "internal", nil)
	start(t, outer, "sleep").line(t)
	inner, err := New(root+"/internal/inner", memory(t, lay, 64<<20), Options{Layout: lay})
	if err != nil {
		t.Fatal(err)
	}
	var missing *MissingError
	if err := inner.Create(); !errors.As(err, &missing) || missing.Controller != "memory" || !strings.Contains(err.Error(), "processes") {
		t.Errorf("Create below a cgroup with processes: %v", err)
	}
	if inner.Exists() {
		t.Error("a directory is left")
	}
}

func TestSet(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		r := memory(t, lay, 64<<20)
		needs(t, lay, "cpu", "cpu")
		r.CPU = &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Shares: ptr(uint64(1024))}
		m := create(t, lay, "set", r)
		set := func(r specs.LinuxResources) {
			t.Helper()
			if err := m.Set(&r); err != nil {
				t.Errorf("Set: %v", err)
			}
		}
		// Up needs swap raised first, down memory lowered first.
		for _, n := range []int64{128 << 20, 32 << 20} {
			set(*memory(t, lay, n))
			if s, err := m.Stats(); err != nil || s.Memory.Limit != uint64(n) {
				t.Errorf("memory limit %d, %v, want %d", s.Memory.Limit, err, n)
			}
		}
		bandwidth := func() string {
			if dir := m.dirOn("cpu"); dir != "" {
				q, _ := readFile(dir, "cpu.cfs_quota_us")
				p, _ := readFile(dir, "cpu.cfs_period_us")
				return strings.Join(strings.Fields(q+p), " ")
			}
			s, _ := readFile(m.v2, "cpu.max")
			return strings.TrimSpace(s)
		}
		set(specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(200000))}})
		if got := bandwidth(); got != "50000 200000" {
			t.Errorf("after setting the period alone: %q", got)
		}
		set(specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(30000))}})
		if got := bandwidth(); got != "30000 200000" {
			t.Errorf("after setting the quota alone: %q", got)
		}
		if f, _ := Probe(Options{Layout: lay}); f.Swap {
			set(specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(96 << 20))}})
			if s, err := m.Stats(); err != nil || s.Memory.SwapLimit != 96<<20 || s.Memory.Limit != 32<<20 {
				t.Errorf("after setting swap alone: %+v, %v", s.Memory, err)
			}
		}
		set(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}})
		if s, err := m.Stats(); err != nil || s.Memory.Limit != Unlimited {
			t.Errorf("after lifting the limit: %+v, %v", s.Memory, err)
		}
		if err := m.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-7))}}); err == nil {
			t.Error("Set of a negative limit: no error")
		}
	})
}

func TestNoAccess(t *testing.T) {
	lay := native(t)
	create(t, lay, "noaccess", nil)
	h := startAs(t, 65534, "unprivileged", root+"/noaccess/mine")
	if got := h.line(t); !strings.HasPrefix(got, "true ") || !strings.Contains(got, "no cgroup access") {
		t.Errorf("an unprivileged Create says %q", got)
	}
}

func TestInsideReturnsErrors(t *testing.T) {
	lay := native(t)
	m := create(t, lay, "inside", nil)
	want := errors.New("no")
	if err := m.Inside(func(int) error { return want }); err != want {
		t.Errorf("Inside: %v", err)
	}
	if err := m.WaitEmpty(within(t)); err != nil {
		t.Errorf("the thread stayed: %v", err)
	}
}

// TestInsideLeaves: after Inside this process is no member any more, for whoever
// kills the cgroup's members next.
func TestInsideLeaves(t *testing.T) {
	m := create(t, native(t), "leaves", nil)
	for range 300 {
		if err := m.Inside(func(int) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if pids, err := m.Pids(true); err != nil || len(pids) > 0 {
			t.Fatalf("members %v, %v, after the thread is said to be gone; this process is %d", pids, err, os.Getpid())
		}
	}
}

func TestRemoveEmptyParents(t *testing.T) {
	lay := native(t)
	a := create(t, lay, "p/q/a", nil)
	b := create(t, lay, "p/b", nil)
	if err := a.Destroy(within(t)); err != nil {
		t.Fatal(err)
	}
	a.RemoveEmptyParents("/elsewhere")
	a.RemoveEmptyParents(root[:5])
	if q, err := Load(root+"/p/q", Options{}); err != nil || !q.Exists() {
		t.Errorf("removed though top is no parent: %v", err)
	}
	a.RemoveEmptyParents(root)
	if _, err := Load(root+"/p/q", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("q is left: %v", err)
	}
	if !b.Exists() {
		t.Error("b is gone")
	}
}

func TestHugePageLimit(t *testing.T) {
	lay := native(t)
	needs(t, lay, "hugetlb", "hugetlb")
	sizes := hugePageSizes()
	if len(sizes) == 0 {
		t.Skip("no huge pages here")
	}
	m := create(t, lay, "huge/deep", &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: sizes[0], Limit: 1 << 30}}})
	dir, file := m.v2, "hugetlb."+sizes[0]+".max"
	if d := m.dirOn("hugetlb"); d != "" {
		dir, file = d, "hugetlb."+sizes[0]+".limit_in_bytes"
	}
	if n, err := readNumber(dir, file); err != nil || n != 1<<30 {
		t.Errorf("%s: %d, %v", file, n, err)
	}
}

func TestUnified(t *testing.T) {
	lay := native(t)
	if lay.V2 == "" {
		t.Skip("no v2 hierarchy is mounted")
	}
	m := create(t, lay, "unified", &specs.LinuxResources{Unified: map[string]string{"cgroup.max.descendants": "2"}})
	for i := range 3 {
		err := syscall.Mkdir(fmt.Sprintf("%s/%d", m.v2, i), 0o755)
		if (err != nil) != (i == 2) {
			t.Errorf("child %d: %v", i, err)
		}
	}
}

func TestReadEvents(t *testing.T) {
	// A watch whose context is over does not hang, whatever the file says.
	lay := native(t)
	if lay.V2 == "" {
		t.Skip("no v2 hierarchy is mounted")
	}
	m := create(t, lay, "events", nil)
	start(t, m, "sleep").line(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- waitEvent(ctx, m.v2, "populated 0") }()
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("waitEvent: %v", err)
	}
}

// TestWaitEndsWithTheCgroup removes a cgroup under somebody who relies on the
// kernel's report by then.
func TestWaitEndsWithTheCgroup(t *testing.T) {
	lay := native(t)
	if lay.V2 == "" {
		t.Skip("no v2 hierarchy is mounted")
	}
	m := create(t, lay, "vanish", nil)
	done := make(chan error)
	go func() { done <- waitEvent(within(t), m.v2, "populated 1") }()
	time.Sleep(200 * time.Millisecond)
	if err := m.Destroy(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("waitEvent: %v", err)
	}
}
