package dns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
)

// kill ends a process the hard way and waits for its end.
func kill(t *testing.T, pid int) {
	t.Helper()
	f, err := pidfd.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := pidfd.Wait(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	unix.Wait4(pid, nil, 0, nil)
}

func gone(t *testing.T, pid int) {
	t.Helper()
	f, err := pidfd.Open(pid)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := pidfd.Wait(ctx, f); err != nil {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	unix.Wait4(pid, nil, unix.WNOHANG, nil)
}

func TestEnsure(t *testing.T) {
	p := populated(t)
	newFake(t, first)
	answers := func() {
		t.Helper()
		if got := p.ask(db4, "web", a).addresses(); len(got) != 1 || got[0] != web4 {
			t.Errorf("a workload: %v", got)
		}
		if got := p.ask(db4, "fine.example", a).addresses(); len(got) != 1 {
			t.Errorf("a name of the world: %v", got)
		}
	}
	one := p.start(ports(first)...)
	answers()
	if again := p.start(ports(first)...); again != one {
		t.Errorf("a running one was replaced: %+v, then %+v", one, again)
	}
	if found, err := dns.Find(p.cfg.Dir); err != nil || found != one {
		t.Errorf("found %+v, %v, want %+v", found, err, one)
	}
	// The resolver dies, and with it the dialer.
	kill(t, one.PID)
	gone(t, one.Dialer)
	if found, err := dns.Find(p.cfg.Dir); !errors.Is(err, dns.ErrNotRunning) {
		t.Errorf("found %+v, %v", found, err)
	}
	two := p.start(ports(first)...)
	answers()
	// The dialer dies: workloads are still known.
	kill(t, two.Dialer)
	if got := p.ask(db4, "web", a).addresses(); len(got) != 1 {
		t.Errorf("a workload, without a dialer: %v", got)
	}
	if got := p.ask(db4, "fine.example", a); got.RCode != 2 {
		t.Errorf("a name of the world, without a dialer: %v", got.RCode)
	}
	if _, err := dns.Find(p.cfg.Dir); !errors.Is(err, dns.ErrNotRunning) {
		t.Errorf("found without a dialer: %v", err)
	}
	three := p.start(ports(first)...)
	answers()
	gone(t, two.PID)
	// Another upstream server is another Config.
	four := p.start(ports(first, third)...)
	if four.PID == three.PID {
		t.Error("a name server with other upstream servers was left alone")
	}
	gone(t, three.PID)
	gone(t, three.Dialer)
	answers()
	if err := dns.Stop(t.Context(), p.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	gone(t, four.PID)
	gone(t, four.Dialer)
	if left, err := os.ReadDir(p.cfg.Dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := dns.Stop(t.Context(), p.cfg.Dir); err != nil {
		t.Error("stop where none runs:", err)
	}
}

// TestRecordOfAnother has a record whose process ID is somebody else's by now.
func TestRecordOfAnother(t *testing.T) {
	p := populated(t)
	s := p.start()
	time.Sleep(50 * time.Millisecond) // a few clock ticks, by which processes are told apart
	innocent := exec.Command("sleep", "1000")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		innocent.Process.Kill()
		innocent.Wait()
	}()
	record := filepath.Join(p.cfg.Dir, "dns.json")
	good, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	theirs := bytes.ReplaceAll(good, fmt.Appendf(nil, `"pid":%d`, s.PID), fmt.Appendf(nil, `"pid":%d`, innocent.Process.Pid))
	if bytes.Equal(good, theirs) {
		t.Fatalf("the record holds %s", good)
	}
	if err := os.WriteFile(record, theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dns.Find(p.cfg.Dir); !errors.Is(err, dns.ErrNotRunning) {
		t.Errorf("found somebody else: %v", err)
	}
	if err := dns.Stop(t.Context(), p.cfg.Dir); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(innocent.Process.Pid, 0); err != nil {
		t.Error("somebody else was killed:", err)
	}
	var old map[string]any
	if err := json.Unmarshal(good, &old); err != nil {
		t.Fatal(err)
	}
	old["boot"] = "another"
	other, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": {}, "half": good[:len(good)/2], "no object": []byte("7"), "of another boot": other, "large": bytes.Repeat([]byte(" "), 1<<20)} {
		if err := os.WriteFile(record, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := dns.Find(p.cfg.Dir); !errors.Is(err, dns.ErrNotRunning) {
			t.Errorf("with a record that is %s: %v", name, err)
		}
	}
	// Nobody knows it now, so the address is taken; which is said.
	if _, err := dns.Ensure(t.Context(), p.cfg); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "10.77.0.1:53") {
		t.Errorf("start beside an unknown one: %v", err)
	}
	if err := os.WriteFile(record, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dns.Stop(t.Context(), p.cfg.Dir); err != nil {
		t.Error(err)
	}
	gone(t, s.PID)
}

func TestStartNamesWhatIsWrong(t *testing.T) {
	p := populated(t)
	open := t.TempDir()
	if err := os.Chmod(open, 0o700); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "bulkhead-dns")
	if err := os.WriteFile(broken, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*dns.Config)
		want   string
	}{
		{func(c *dns.Config) { c.LeaseDir = "/does/not/exist" }, "/does/not/exist"},
		{func(c *dns.Config) { c.LeaseDir = open }, "mode 0700"},
		{func(c *dns.Config) { c.Program = "/does/not/exist" }, "/does/not/exist"},
		{func(c *dns.Config) { c.Program = broken }, "exec format error"},
		{func(c *dns.Config) { c.Program = "/bin/false" }, "no such file"}, // it is not static
		{func(c *dns.Config) { c.Program = "/bin/busybox" }, "ended before it answered: \"bulkhead-dns: applet not found"},
		{func(c *dns.Config) { c.Listen = nil }, "1 to 4 addresses"},
		{func(c *dns.Config) { c.Device = "nope0" }, "no such device"},
		{func(c *dns.Config) { c.IDBase = 0 }, "user ID 0"},
		{func(c *dns.Config) { c.Upstream = ports("0.0.0.0:53") }, "no upstream server"},
		{func(c *dns.Config) { c.Upstream = ports(first, first, first, first) }, "at most 3"},
		{func(c *dns.Config) { c.Cgroups = []string{"/sys/fs/cgroup/does-not-exist"} }, "does-not-exist"},
		{func(c *dns.Config) { c.Dir = "/does/not/exist" }, "/does/not/exist"},
	} {
		cfg := p.cfg
		c.change(&cfg)
		s, err := dns.Ensure(t.Context(), cfg)
		if err == nil {
			dns.Stop(t.Context(), cfg.Dir)
			t.Errorf("%+v was started: %+v", cfg, s)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "network lab") {
			t.Errorf("got %q, want %q in it", err, c.want)
		}
	}
	p.start()
}

func TestInNamespaceOfItsOwn(t *testing.T) {
	p := newPlace(t)
	p.lease(db4, "w2", "db")
	// The test's own namespace has nothing to do with the network any more: a
	// third one has the interface.
	ns, here := newNamespace(t), namespace(t)
	p.ip("link", "set", "gw0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()))
	in := &place{t: t, ns: ns}
	in.inside(func() {
		p.ip("link", "set", "gw0", "up")
		p.ip("addr", "add", gateway4.String()+"/16", "dev", "gw0")
		p.ip("addr", "add", gateway6.String()+"/64", "dev", "gw0", "nodad")
	})
	defer in.inside(func() { p.ip("link", "set", "gw0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), here.Fd())) })
	newFake(t, first)
	p.cfg.Device = ""
	called := 0
	p.cfg.NetNS = func() (*os.File, error) {
		called++
		return os.Open(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()))
	}
	s := p.start(ports(first)...)
	if again := p.start(ports(first)...); called != 1 || again != s {
		t.Errorf("started %d times: %v, %v", called, s, again)
	}
	for _, name := range []string{"db", "fine.example"} {
		if got := p.ask(db4, name, a).addresses(); len(got) != 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestJoinsItsCgroup(t *testing.T) {
	p := populated(t)
	dir := "/sys/fs/cgroup/pids/bulkhead-dns-test"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir = "/sys/fs/cgroup/bulkhead-dns-test"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("cannot make a cgroup:", err)
	}
	p.cfg.Cgroups = []string{dir}
	s := p.start(ports(first)...)
	for _, pid := range []int{s.PID, s.Dialer} {
		if got := read(t, fmt.Sprintf("/proc/%d/cgroup", pid)); !strings.Contains(got, "/bulkhead-dns-test") {
			t.Errorf("its cgroups: %s", got)
		}
	}
	if err := dns.Stop(t.Context(), p.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	for range 50 { // the last process leaves a moment after it is reaped
		if os.Remove(dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the cgroup is still in use")
}

// crasher is set in a process that starts a name server and is killed at it.
const crasher = "BULKHEAD_DNS_CRASHER"

// TestStarterIsKilled kills whoever starts a name server, at every moment.
func TestStarterIsKilled(t *testing.T) {
	if config := os.Getenv(crasher); config != "" {
		var cfg dns.Config
		if err := json.Unmarshal([]byte(config), &cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := dns.Ensure(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	p := populated(t)
	newFake(t, first)
	p.cfg.Upstream = ports(first)
	b, err := json.Marshal(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestStarterIsKilled$")
		cmd.Env = append(os.Environ(), crasher+"="+string(b))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i*3) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		s := p.start(ports(first)...)
		if got := p.ask(db4, "web", a).addresses(); len(got) != 1 {
			t.Errorf("after %d ms: %v", i*3, got)
		}
		if err := dns.Stop(t.Context(), p.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		gone(t, s.PID)
		gone(t, s.Dialer)
	}
	if left, err := filepath.Glob(filepath.Join(p.cfg.Dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
