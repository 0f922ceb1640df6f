package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
)

// actEnv lets the test binary be the program itself, and with a value other than
// "1" in an environment that confine makes before.
const actEnv = "BULKHEAD_TEST_ACT_AS_METER"

func TestMain(m *testing.M) {
	if how := os.Getenv(actEnv); how != "" {
		if how != "1" {
			confine(how)
		}
		main()
	}
	nettest.Isolate()
	os.Exit(m.Run())
}

func program(how string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	// The race detector would have each of many processes sleep for a second.
	cmd.Env = append(os.Environ(), actEnv+"="+how, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

func measured(t *testing.T, how, dir string, attr *syscall.SysProcAttr, groups ...string) *meter.Result {
	t.Helper()
	cmd := program(how, append([]string{"measure", "-time", "2ms", "-dir", dir}, groups...)...)
	cmd.Path = "/proc/self/exe" // whoever may look into the directory that it lies in
	cmd.SysProcAttr = attr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r, err := meter.Decode(out)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

// answers are how the features answered, by name.
func answers(r *meter.Result) map[string]string {
	m := map[string]string{}
	for _, f := range r.Features {
		m[f.Name] = f.Errno
	}
	return m
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestHelloAndExit(t *testing.T) {
	for name, want := range map[string]string{"hello": "hello\n", "exit": ""} {
		if out, err := program("1", name).Output(); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestIdle ends it by signals, where it is process 1, too: signals that such a
// process does not wait for are dropped.
func TestIdle(t *testing.T) {
	for _, flags := range []uintptr{0, syscall.CLONE_NEWPID} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			if flags != 0 {
				needsRoot(t)
			}
			cmd := program("1", "idle")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(out)
			line, err := r.ReadString('\n')
			if err != nil || line != "idle\n" {
				t.Errorf("it says %q, %v", line, err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("it says %q more, %v", rest, err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("flags %#x, after %v: %v", flags, sig, err)
			}
		}
	}
}

// TestMeasure leaves nothing behind, and answers all that is asked.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Files: true})
	r := measured(t, "1", dir, nil, "calls", "files", "work", "features")
	if len(r.Figures) != len(meter.IDs()) || len(r.Features) != len(meter.FeatureNames()) || r.Facts.Release == "" {
		t.Errorf("%d figures, %d features, %+v", len(r.Figures), len(r.Features), r.Facts)
	}
	for _, f := range r.Figures {
		if f.Error != "" {
			t.Errorf("%s: %s", f.ID, f.Error)
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err == nil {
		err = filepath.WalkDir("/sys/fs/cgroup", func(path string, _ fs.DirEntry, err error) error {
			if strings.HasPrefix(filepath.Base(path), "bulkhead-meter-") {
				t.Errorf("%s was left behind", path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil // somebody else's, gone meanwhile
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if facts := measured(t, "1", dir, nil); len(facts.Figures)+len(facts.Features) != 0 || facts.Facts.Release != r.Facts.Release {
		t.Errorf("without a group: %+v", facts)
	}
}

// TestFilterIsSeen puts a seccomp filter around the program: the features behind
// the calls that it answers are gone, whatever they were before.
func TestFilterIsSeen(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	free, filtered := answers(measured(t, "1", dir, nil, "features")), answers(measured(t, "filter", dir, nil, "features"))
	for name, want := range map[string]string{"io_uring": "ENOTBLK", "bpf": "ENOTBLK", "landlock": "ENOTBLK", "statx": "SIGSYS"} {
		if filtered[name] != want || free[name] == want {
			t.Errorf("%s: %q with the filter and %q without, want %q with it", name, filtered[name], free[name], want)
		}
	}
	for _, name := range []string{"pidfd_open", "memfd with seals", "inotify"} {
		if filtered[name] != "" || free[name] != "" {
			t.Errorf("%s: %q with the filter and %q without", name, filtered[name], free[name])
		}
	}
}

// TestUserIsSeen runs the program as a user without capabilities.
func TestUserIsSeen(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	root := answers(measured(t, "1", dir, nil, "features"))
	user := answers(measured(t, "1", dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, "features"))
	for _, name := range []string{"chroot", "setuid to another user", "setting the clock", "AF_PACKET", "raw ICMP", "mount", "kernel modules"} {
		if user[name] == "" {
			t.Errorf("%s: works for a user", name)
		}
	}
	for _, name := range []string{"chroot", "setuid to another user"} {
		if root[name] != "" || user[name] != "EPERM" {
			t.Errorf("%s: %q for root, %q for a user", name, root[name], user[name])
		}
	}
}

// TestBare has neither /proc nor /dev nor a root that can be written to.
func TestBare(t *testing.T) {
	needsRoot(t)
	r := measured(t, "bare", t.TempDir(), &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}, "calls", "files", "features")
	for _, f := range r.Figures {
		if strings.HasPrefix(f.ID, "calls.") != (f.Error == "") {
			t.Errorf("%s: %d samples, %q", f.ID, len(f.Samples), f.Error)
		}
	}
	if got := answers(r); got["pidfd_open"] != "" || got["device nodes"] != "EROFS" || r.Facts.Release == "" || r.Facts.BootID != "" {
		t.Errorf("got %q, %+v", got, r.Facts)
	}
}

func TestServeAndCall(t *testing.T) {
	cmd := program("1", "serve", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }() //nolint:errcheck // it was killed
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	result, err := here("call", strings.TrimSpace(address), "-stream", "5ms", "-talk", "5ms")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meter.DecodeTraffic(result); err != nil {
		t.Error(err)
	}
}

// TestNeighbours has a victim take rounds beside an aggressor of each kind: both say
// what they did, and leave nothing.
func TestNeighbours(t *testing.T) {
	dir := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Files: true})
	victim := newPartner(t, "victim", "-time", "20ms", "-dir", dir)
	if got := victim.line(); got != meter.Ready {
		t.Fatalf("the victim says %q", got)
	}
	seen := map[meter.Requests]bool{}
	for _, kind := range meter.AggressorKinds() {
		aggressor := newPartner(t, "aggress", "-dir", dir, kind)
		if got := aggressor.line(); got != meter.Begun {
			t.Errorf("%s says %q", kind, got)
		}
		if _, err := io.WriteString(victim.in, meter.Go+"\n"); err != nil {
			t.Fatal(err)
		}
		r, err := meter.DecodeRequests([]byte(victim.line()))
		if err != nil {
			t.Fatal(err)
		}
		if seen[*r] || r.Seconds < 0.02 {
			t.Errorf("beside %s: %+v, after %v", kind, r, seen)
		}
		seen[*r] = true
		aggressor.in.Close()
		w, err := meter.DecodeWork([]byte(aggressor.line()))
		if err != nil {
			t.Fatal(err)
		}
		if w.Kind != kind || w.Done <= 0 || w.Error != "" || !w.Told || w.Seconds < r.Seconds {
			t.Errorf("%s: %+v, beside %v seconds of requests", kind, w, r.Seconds)
		}
		aggressor.end()
	}
	victim.in.Close()
	victim.end()
}

// partner is the program, with which one talks.
type partner struct {
	*testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newPartner(t *testing.T, args ...string) *partner {
	t.Helper()
	cmd := program("1", args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) //nolint:errcheck // it has ended, if the test has not failed
	return &partner{t, cmd, in, bufio.NewReader(out)}
}

func (p *partner) line() string {
	p.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.Fatalf("after %q: %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

func (p *partner) end() {
	p.Helper()
	if rest, err := io.ReadAll(p.out); err != nil || len(rest) > 0 {
		p.Errorf("it says %q more, %v", rest, err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.Error(err)
	}
}

// TestAggressorAlone ends on its own where nobody ends it, and tells so.
func TestAggressorAlone(t *testing.T) {
	p := newPartner(t, "aggress", "-most", "1ms", "-dir", t.TempDir(), "forks")
	if got := p.line(); got != meter.Begun {
		t.Fatalf("it says %q", got)
	}
	if w, err := meter.DecodeWork([]byte(p.line())); err != nil || w.Told || w.Done <= 0 {
		t.Errorf("%+v, %v", w, err)
	}
	p.in.Close()
	p.end()
}

// here is run, in this process.
func here(args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	if run(args, strings.NewReader(""), &out, &errs) != 0 {
		return nil, errors.New(errs.String())
	}
	return out.Bytes(), nil
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		nil, {"unknown"}, {"measure", "-time", "0s"}, {"measure", "-time", "1h"}, {"measure", "unknown"}, {"measure", "-unknown"},
		{"feature"}, {"feature", "unknown"}, {"serve"}, {"serve", "nowhere"}, {"call"}, {"call", "127.0.0.1:1"}, {"call", "-stream", "1s"}, {"call", "x", "y"},
		{"victim", "x"}, {"victim", "-time", "0s"}, {"victim", "-dir", "/does/not/exist"}, {"aggress"}, {"aggress", "unknown"}, {"aggress", "-most", "1h", "cpu"},
	} {
		if out, err := here(args...); err == nil || err.Error() == "" {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
}
