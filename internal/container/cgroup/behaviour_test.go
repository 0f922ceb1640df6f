package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// memory limits memory and, where it is accounted, swap to n bytes.
func memory(t *testing.T, lay *Layout, n int64) *specs.LinuxResources {
	t.Helper()
	needs(t, lay, "memory", "memory")
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
	if f, err := Probe(Options{Layout: lay}); err == nil && f.Swap {
		r.Memory.Swap = &n
	}
	return r
}

func TestOOMKill(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "oom", memory(t, lay, 48<<20))
		if killed, err := m.OOMKilled(); killed || err != nil {
			t.Fatalf("OOMKilled before anything ran: %v, %v", killed, err)
		}
		if s := start(t, m, "eat").wait(t); !s.Signaled() || s.Signal() != syscall.SIGKILL {
			t.Fatalf("a process eating 256 MB in a cgroup of 48 MB: %v, want SIGKILL", s)
		}
		if killed, err := m.OOMKilled(); !killed || err != nil {
			t.Errorf("OOMKilled: %v, %v, want true", killed, err)
		}
		s, err := m.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.Memory.Limit != 48<<20 || s.OOMKills == 0 || s.Memory.Peak < 40<<20 {
			t.Errorf("stats after the kill: %+v", s)
		}
	})
}

func TestOOMKillInChildIsReported(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "outer", memory(t, lay, 48<<20))
		inner := create(t, lay, "outer/inner", nil)
		start(t, inner, "eat").wait(t)
		if killed, err := m.OOMKilled(); !killed || err != nil {
			t.Errorf("OOMKilled of the parent: %v, %v, want true", killed, err)
		}
	})
}

func TestEnoughMemoryIsNoOOM(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "enough", memory(t, lay, 512<<20))
		h := start(t, m, "eat")
		if got := h.line(t); got != "ate it all" {
			t.Errorf("helper said %q", got)
		}
		h.wait(t)
		if killed, err := m.OOMKilled(); killed || err != nil {
			t.Errorf("OOMKilled: %v, %v", killed, err)
		}
	})
}

func TestCPUQuota(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		needs(t, lay, "cpu", "cpu")
		const quota, period = 20 * time.Millisecond, 100 * time.Millisecond
		m := create(t, lay, "cpu", &specs.LinuxResources{CPU: &specs.LinuxCPU{
			Quota: ptr(quota.Microseconds()), Period: ptr(uint64(period.Microseconds())),
		}})
		start(t, m, "spin").line(t)
		var s Stats
		eventually(t, "ten throttled periods", func() bool {
			var err error
			if s, err = m.Stats(); err != nil {
				t.Fatal(err)
			}
			return s.CPU.Throttled >= 10
		})
		if s.CPU.ThrottledTime == 0 {
			t.Errorf("throttled %d times for no time", s.CPU.Throttled)
		}
		// The kernel hands out slices of 5 ms to each processor, which may be used
		// up a period later.
		if most := time.Duration(s.CPU.Periods+2) * quota; s.CPU.Usage > most+most/10 {
			t.Errorf("used %v in %d periods of %v", s.CPU.Usage, s.CPU.Periods, quota)
		}
	})
}

func TestPidsLimit(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		needs(t, lay, "pids", "pids")
		m := create(t, lay, "pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}})
		h := start(t, m, "forks")
		var n int
		var why string
		if _, err := fmt.Sscan(h.line(t), &n, &why); err != nil || why != "EAGAIN" || n >= 60 || n < 30 {
			t.Errorf("forked %d times, then %s; want fewer than 60, then EAGAIN", n, why)
		}
		s, err := m.Stats()
		if err != nil || s.Pids.Limit != 60 {
			t.Errorf("pids stats: %+v, %v", s.Pids, err)
		}
	})
}

func TestKillForkBomb(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		needs(t, lay, "pids", "pids")
		m := create(t, lay, "bomb", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(100))}})
		start(t, m, "bomb").line(t)
		eventually(t, "the limit", func() bool {
			s, err := m.Stats()
			return err == nil && s.Pids.Current >= 90
		})
		if err := m.Kill(within(t)); err != nil {
			t.Fatal(err)
		}
		if pids, err := m.Pids(true); err != nil || len(pids) > 0 {
			t.Errorf("left after Kill: %v, %v", pids, err)
		}
	})
}

func TestCpuset(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		needs(t, lay, "cpuset", "cpuset")
		m := create(t, lay, "cpuset", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}})
		if got := start(t, m, "status", "Cpus_allowed_list").line(t); got != "0" {
			t.Errorf("processors seen inside: %q, want 0", got)
		}
		for _, c := range []specs.LinuxCPU{{Cpus: "8000"}, {Mems: "800"}, {Cpus: "0-8191"}} {
			bad, err := New(root+"/cpuset-bad", &specs.LinuxResources{CPU: &c}, Options{Layout: lay})
			if err != nil {
				t.Fatal(err)
			}
			var inv *InvalidError
			if err := bad.Create(); !errors.As(err, &inv) {
				t.Errorf("cpuset %+v: %v, want that it is not available", c, err)
			}
			if bad.Exists() {
				t.Errorf("cpuset %+v left a directory", c)
			}
		}
	})
}

// deviceNodes makes nodes for the memory devices, named major-minor.
func deviceNodes(t *testing.T, minors ...int) (dir string, node func(minor int) string) {
	t.Helper()
	dir = t.TempDir()
	node = func(minor int) string { return filepath.Join(dir, fmt.Sprintf("1-%d", minor)) }
	for _, n := range minors {
		if err := syscall.Mknod(node(n), syscall.S_IFCHR|0o666, 1<<8|n); err != nil {
			t.Skipf("cannot make device nodes in %s: %v", dir, err)
		}
		if fd, err := syscall.Open(node(n), syscall.O_RDONLY, 0); err != nil {
			t.Skipf("device nodes in %s do not work: %v", dir, err)
		} else {
			syscall.Close(fd)
		}
	}
	return dir, node
}

// deviceLayouts are the machine's layouts and, if v1 has the devices
// controller, one in which the eBPF program has to do it.
func deviceLayouts(t *testing.T, f func(t *testing.T, lay *Layout)) {
	eachLayout(t, f)
	lay := native(t)
	if _, ok := lay.onV1("devices"); !ok || lay.V2 == "" {
		return
	}
	bpf := &Layout{Mode: lay.Mode, V2: lay.V2, V2Controllers: lay.V2Controllers}
	for _, h := range lay.V1 {
		if h.Name != "devices" {
			bpf.V1 = append(bpf.V1, h)
		}
	}
	t.Run("bpf", func(t *testing.T) { f(t, bpf) })
}

func char(allow bool, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: ptr(int64(1)), Minor: &minor, Access: access}
}

func checkDevices(t *testing.T, m *Manager, want map[string]string) {
	t.Helper()
	args := sortedKeys(want)
	h := start(t, m, "devices", args...)
	for _, a := range args {
		if got := h.line(t); got != a+" "+want[a] {
			t.Errorf("got %q, want %q", got, a+" "+want[a])
		}
	}
}

func TestDevices(t *testing.T) {
	const null, zero, full = 3, 5, 7
	deviceLayouts(t, func(t *testing.T, lay *Layout) {
		_, node := deviceNodes(t, null, zero, full)
		t.Run("deny all but", func(t *testing.T) {
			m := create(t, lay, "devices", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Access: "rwm"}, char(true, null, "rwm"), char(true, zero, "r"),
			}})
			checkDevices(t, m, map[string]string{
				"rw:" + node(null): "ok", "m:" + node(null): "ok",
				"r:" + node(zero): "ok", "w:" + node(zero): "EPERM", "rw:" + node(zero): "EPERM", "m:" + node(zero): "EPERM",
				"r:" + node(full): "EPERM", "m:" + node(full): "EPERM",
			})
			// Changing the rules replaces them.
			if err := m.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Access: "rwm"}, char(true, null, "rwm"), char(true, full, "rw"),
			}}); err != nil {
				t.Fatal(err)
			}
			checkDevices(t, m, map[string]string{
				"rw:" + node(null): "ok", "r:" + node(zero): "EPERM", "rw:" + node(full): "ok", "m:" + node(full): "EPERM",
			})
		})
		t.Run("allow all but", func(t *testing.T) {
			m := create(t, lay, "devices", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Allow: true, Type: "a"}, char(false, zero, "r"), char(false, full, ""),
			}})
			checkDevices(t, m, map[string]string{
				"rw:" + node(null): "ok",
				"r:" + node(zero):  "EPERM", "rw:" + node(zero): "EPERM", "w:" + node(zero): "ok",
				"r:" + node(full): "EPERM", "w:" + node(full): "EPERM",
			})
		})
		t.Run("no rules", func(t *testing.T) {
			m := create(t, lay, "devices", nil)
			checkDevices(t, m, map[string]string{"rw:" + node(zero): "ok", "m:" + node(full): "ok"})
		})
	})
}

func TestFreeze(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		m := create(t, lay, "freeze", nil)
		start(t, m, "spin").line(t)
		usage := func() time.Duration {
			s, err := m.Stats()
			if err != nil {
				t.Fatal(err)
			}
			return s.CPU.Usage
		}
		if frozen, err := m.Frozen(); frozen || err != nil {
			t.Fatalf("Frozen: %v, %v, want false", frozen, err)
		}
		if err := m.Freeze(within(t)); err != nil {
			t.Fatal(err)
		}
		if frozen, err := m.Frozen(); !frozen || err != nil {
			t.Fatalf("Frozen: %v, %v, want true", frozen, err)
		}
		before := usage()
		time.Sleep(100 * time.Millisecond)
		// A frozen v2 task may still be accounted the tick in which it stopped.
		if after := usage(); after-before > 20*time.Millisecond {
			t.Errorf("frozen processes used %v", after-before)
		}
		if err := m.Thaw(); err != nil {
			t.Fatal(err)
		}
		before = usage()
		eventually(t, "running on", func() bool { return usage() > before+50*time.Millisecond })
		if err := m.Freeze(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := m.Kill(within(t)); err != nil {
			t.Errorf("kill while frozen: %v", err)
		}
	})
}

// TestFreezeGivesUp freezes a cgroup in which a process never stops, and that
// without a deadline. The files are no kernel's.
func TestFreezeGivesUp(t *testing.T) {
	defer func(d time.Duration) { killTime = d }(killTime)
	killTime = 50 * time.Millisecond
	m := &Manager{path: "/stubborn", v2: t.TempDir()}
	for name, content := range map[string]string{"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 0\n"} {
		if err := os.WriteFile(filepath.Join(m.v2, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := m.Freeze(context.Background())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "a process does not stop") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(m.v2, "cgroup.freeze")); err != nil || string(b) != "0" {
		t.Errorf("afterwards cgroup.freeze has %q, %v: want it thawed", b, err)
	}
}

// TestFreezeOfTheDying freezes a cgroup whose last process ends meanwhile: Linux 6.18
// then does not say that it is frozen. The files are no kernel's.
func TestFreezeOfTheDying(t *testing.T) {
	m := &Manager{path: "/dying", v2: t.TempDir()}
	for name, content := range map[string]string{"cgroup.freeze": "0", "cgroup.events": "populated 0\nfrozen 0\n"} {
		if err := os.WriteFile(filepath.Join(m.v2, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := m.Freeze(ctx); err != nil {
		t.Error(err)
	}
}

// disk returns a whole block device with a size, and a file on it.
func disk(t *testing.T) (major, minor int64, file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "data")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile(file, os.O_RDWR, 0); err == nil {
		f.Sync()
		f.Close()
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	link := fmt.Sprintf("/sys/dev/block/%d:%d", st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&^0xff)
	real, err := filepath.EvalSymlinks(link)
	if err != nil {
		return 0, 0, ""
	}
	if _, err := os.Stat(real + "/partition"); err == nil {
		real = filepath.Dir(real)
	}
	text, err := os.ReadFile(real + "/dev")
	if err != nil {
		return 0, 0, ""
	}
	fmt.Sscanf(string(text), "%d:%d", &major, &minor)
	return major, minor, file
}

func TestIOThrottle(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		needs(t, lay, "blkio", "io")
		major, minor, file := disk(t)
		if file == "" {
			t.Skip("the temporary directory is not on a block device")
		}
		rate := func(n uint64) []specs.LinuxThrottleDevice {
			return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: major, Minor: minor}, Rate: n}}
		}
		m := create(t, lay, "io", &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: rate(100 << 20), ThrottleWriteIOPSDevice: rate(5000),
		}})
		read := func() string {
			if dir := m.dirOn("blkio"); dir != "" {
				a, _ := readFile(dir, "blkio.throttle.read_bps_device")
				b, _ := readFile(dir, "blkio.throttle.write_iops_device")
				return a + b
			}
			s, _ := readFile(m.v2, "io.max")
			return s
		}
		if got := read(); !strings.Contains(got, "104857600") || !strings.Contains(got, "5000") {
			t.Errorf("in force: %q", got)
		}
		h := start(t, m, "read", file)
		if got := h.line(t); got != "1048576" {
			t.Skipf("no direct reads here: %s", got)
		}
		h.wait(t)
		s, err := m.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.IO.ReadBytes < 1<<20 || s.IO.ReadOps == 0 {
			t.Errorf("after reading 1 MB: %+v", s.IO)
		}
		if err := m.Set(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(0)}}); err != nil {
			t.Fatal(err)
		}
		if got := read(); strings.Contains(got, "104857600") {
			t.Errorf("after a rate of 0: %q", got)
		}
	})
}

func TestIOThrottleOfNoDevice(t *testing.T) {
	eachLayout(t, func(t *testing.T, lay *Layout) {
		needs(t, lay, "blkio", "io")
		m, err := New(root+"/deep/er/io", &specs.LinuxResources{
			Pids: &specs.LinuxPids{Limit: ptr(int64(10))},
			BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
				{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 4095, Minor: 1048575}, Rate: 1},
			}},
		}, Options{Layout: lay})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Create(); !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), "io read rate") {
			t.Errorf("Create: %v, want that there is no such device", err)
		}
		for _, mount := range append(mounts(lay), lay.V2) {
			if mount != "" && exists(mount+root, "deep") {
				t.Errorf("%s%s/deep is left", mount, root)
			}
		}
	})
}

// TestBufferedWritesAreCharged writes through the page cache, and has somebody
// outside push the pages to the disk.
func TestBufferedWritesAreCharged(t *testing.T) {
	lay := native(t)
	if !lay.onV2("io") || !lay.onV2("memory") {
		t.Skipf("in mode %s nothing tells who dirtied a page (docs/limits.md)", lay.Mode)
	}
	major, _, file := disk(t)
	if file == "" || major == 0 {
		t.Skip("the temporary directory is not on a block device")
	}
	m := create(t, lay, "buffered", nil)
	h := start(t, m, "write", file+".buffered")
	if got := h.line(t); got != "written" {
		t.Fatal(got)
	}
	f, err := os.Open(file + ".buffered")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Stats(); err != nil || s.IO.WriteBytes < 4<<20 {
		t.Errorf("after writing 4 MB: %+v, %v", s.IO, err)
	}
}
