// Package boundarytest is the suite that every boundary must pass, so that a
// workload means the same behind each: run, signals, streams, terminals, exec,
// limits, cleaning up. A boundary's test provides a Harness and calls Run, and
// calls Main from TestMain.
//
// What runs inside is the command in boundarytest/program, at Harness.Program,
// or for a boundary that runs nothing real, something that answers alike.
package boundarytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Ability is something that a harness may lack.
type Ability string

// The abilities that tests ask for.
const (
	Terminals      Ability = "terminals"
	Files          Ability = "a root file system whose files can be read and written"
	ReadOnlyRoot   Ability = "a read-only root file system"
	Mounts         Ability = "mounts"
	VolumeOwners   Ability = "bind mounts that show the workload's owners"
	NoDevices      Ability = "mounts without devices"
	Users          Ability = "users"
	Hostnames      Ability = "host names"
	MemoryLimits   Ability = "memory limits"
	PidsLimits     Ability = "limits on processes"
	EnvOrder       Ability = "the order of the environment"
	Survivors      Ability = "processes that outlive another's want of memory"
	Descriptors    Ability = "descriptors of its own"
	Descendants    Ability = "processes that start others"
	DefaultSignals Ability = "default actions of signals"
	Networks       Ability = "network interfaces"
	CreatorDies    Ability = "an instance that outlives its creator"
)

// Harness is what a boundary's test provides.
type Harness struct {
	Boundary boundary.Boundary
	// Program is the path inside of a root file system that Prepare makes, and
	// NotExecutable that of a file there which is not executable.
	Program, NotExecutable string
	// Prepare makes ready what the engine would, for one workload, and removes
	// it when t ends. Streams are the suite's affair.
	Prepare func(t testing.TB, s workload.Spec) boundary.Prepared
	// Lacks names the abilities that are missing, and why.
	Lacks map[Ability]string
	// Leaks is what the leak guard watches.
	Leaks leakcheck.Options
}

// envCreator makes the test binary a process that creates an instance and dies.
const envCreator = "BOUNDARYTEST_CREATOR"

type creation struct {
	Spec     workload.Spec
	Prepared boundary.Prepared
}

// Main runs the tests of a package that calls Run. b makes the boundary.
func Main(m *testing.M, b func() boundary.Boundary) {
	text := os.Getenv(envCreator)
	if text == "" {
		os.Exit(m.Run())
	}
	var c creation
	err := json.Unmarshal([]byte(text), &c)
	var in boundary.Instance
	if err == nil {
		in, err = b().Create(context.Background(), c.Spec, c.Prepared)
	}
	if err == nil && os.Getenv(envCreator+"_START") != "" {
		err = in.Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.Boundary.Check(ctx); err != nil {
		t.Skipf("boundary %s: %v", h.Boundary.Name(), err)
	}
	// What is opened once and kept, such as the root of the cgroup file system,
	// is no leak: it is there before the first test.
	t.Run("first", func(t *testing.T) {
		r := &run{T: t, Harness: h}
		s := r.spec("exit", "0")
		if _, lacking := h.Lacks[MemoryLimits]; !lacking {
			limit := int64(64 << 20)
			s.Resources.Memory = &limit
		}
		r.complete(s)
		s = r.spec("pause")
		if m, ok := r.start(s, boundary.Stdio{}).(boundary.Measurer); ok {
			if _, err := m.Measure(r.ctx()); err != nil {
				r.Error(err)
			}
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, a := range tt.needs {
				if why, lacking := h.Lacks[a]; lacking {
					t.Skipf("this harness lacks %s: %s", a, why)
				}
			}
			leakcheck.Check(t, h.Leaks)
			tt.f(&run{T: t, Harness: h})
		})
	}
}

// test is one test of the suite.
type test struct {
	name  string
	f     func(*run)
	needs []Ability
}

var tests = []test{
	{"network namespace", testNetNS, nil},
	{"network interfaces", testInterfaces, []Ability{Networks}},
	{"exit codes", testExitCodes, nil},
	{"streams", testStreams, nil},
	{"many bytes", testManyBytes, nil},
	{"no streams", testNoStreams, nil},
	{"not found", testNotFound, nil},
	{"environment", testEnvironment, nil},
	{"working directory", testWorkingDirectory, nil},
	{"signals", testSignals, nil},
	{"kill", testKill, nil},
	{"exec", testExec, nil},
	{"exec errors", testExecErrors, nil},
	{"exec signal", testExecSignal, []Ability{DefaultSignals}},
	{"wait", testWait, nil},
	{"delete", testDelete, nil},
	{"open", testOpen, nil},
	{"creator dies", testCreatorDies, []Ability{CreatorDies}},
	{"pause", testPause, nil},
	{"processes", testProcesses, nil},
	{"exec group", testExecGroup, []Ability{Descendants}},
	{"describe", testDescribe, nil},
	{"measure", testMeasure, nil},
	{"update", testUpdate, nil},
	{"descendants", testDescendants, []Ability{Descendants}},
	{"terminal", testTerminal, []Ability{Terminals}},
	{"exec terminal", testExecTerminal, []Ability{Terminals}},
	{"hostname", testHostname, []Ability{Hostnames}},
	{"users", testUsers, []Ability{Users}},
	{"files", testFiles, []Ability{Files}},
	{"streams by name", testStreamsByName, []Ability{Files, Users}},
	{"read-only root", testReadOnlyRoot, []Ability{ReadOnlyRoot}},
	{"filter", testFilter, []Ability{Descendants}},
	{"mounts", testMounts, []Ability{Mounts, Files}},
	{"submounts", testSubmounts, []Ability{Mounts, Files, VolumeOwners}},
	{"archives", testArchives, []Ability{Files}},
	{"archives of mounts", testArchivesOfMounts, []Ability{Mounts, Files, VolumeOwners}},
	{"descriptors", testDescriptors, []Ability{Descriptors}},
	{"memory limit", testMemoryLimit, []Ability{MemoryLimits}},
	{"pids limit", testPidsLimit, []Ability{PidsLimits}},
}

// patience is how long one call, or one line of output, may take before the test
// fails. Only what hangs takes as long, also in machines that are emulated.
const patience = 2 * time.Minute

// run is one running test.
type run struct {
	*testing.T
	Harness
}

// ctx ends what hangs.
func (r *run) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.Cleanup(cancel)
	return ctx
}

func (r *run) process(args ...string) workload.Process {
	return workload.Process{
		Args: append([]string{r.Program}, args...), Cwd: "/", Env: []string{"PATH=/bin", "A=one", "B=two words"},
	}
}

func (r *run) spec(args ...string) workload.Spec {
	return workload.Spec{
		ID: workload.NewID(), Name: "test", Created: time.Now(), Boundary: r.Boundary.Name(),
		Hostname: "inside", Network: "none", Process: r.process(args...),
	}
}

// output collects a stream. The pipe is read to its end before text returns.
type output struct {
	w    *os.File
	buf  bytes.Buffer
	done chan struct{}
}

func (r *run) output() *output {
	p, w, err := blockingPipe()
	if err != nil {
		r.Fatal(err)
	}
	o := &output{w: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		io.Copy(&o.buf, p)
		p.Close()
	}()
	r.Cleanup(func() { o.w.Close() })
	return o
}

// blockingPipe returns a pipe whose ends are in blocking mode, as programs expect.
func blockingPipe() (p, w *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// started gives up our end, which the process has by now.
func (o *output) started() { o.w.Close() }

func (o *output) text() string {
	o.w.Close()
	<-o.done
	return o.buf.String()
}

// lines returns a stream to read while the process runs.
func (r *run) lines() (read func() string, w *os.File) {
	p, w, err := blockingPipe()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { p.Close(); w.Close() })
	return func() string {
		r.Helper()
		return r.line(p)
	}, w
}

// line reads one line, byte by byte, so that nothing after it is lost.
func (r *run) line(f io.Reader) string {
	r.Helper()
	got := make(chan string, 1)
	go func() {
		var line []byte
		var b [1]byte
		for {
			if _, err := io.ReadFull(f, b[:]); err != nil {
				got <- fmt.Sprintf("%s[%v]", line, err)
				return
			}
			if b[0] == '\n' {
				got <- string(bytes.TrimRight(line, "\r"))
				return
			}
			line = append(line, b[0])
		}
	}()
	select {
	case s := <-got:
		return s
	case <-time.After(patience):
		r.Fatal("no output in time")
		return ""
	}
}

// create makes an instance that is deleted when the test ends.
func (r *run) create(s workload.Spec, io boundary.Stdio) boundary.Instance {
	r.Helper()
	p := r.Prepare(r, s)
	p.Stdio = io
	in, err := r.Boundary.Create(r.ctx(), s, p)
	if err != nil {
		r.Fatalf("create: %v", err)
	}
	r.Cleanup(func() {
		if err := in.Delete(context.Background()); err != nil {
			r.Errorf("delete: %v", err)
		}
	})
	return in
}

func (r *run) start(s workload.Spec, io boundary.Stdio) boundary.Instance {
	r.Helper()
	in := r.create(s, io)
	if err := in.Start(r.ctx()); err != nil {
		r.Fatalf("start: %v", err)
	}
	return in
}

func (r *run) wait(p boundary.Process) workload.Exit {
	r.Helper()
	exit, err := p.Wait(r.ctx())
	if err != nil {
		r.Fatalf("wait: %v", err)
	}
	return exit
}

// complete runs a workload to its end.
func (r *run) complete(s workload.Spec) (exit workload.Exit, stdout, stderr string) {
	r.Helper()
	out, errs := r.output(), r.output()
	in := r.start(s, boundary.Stdio{Out: out.w, Err: errs.w})
	out.started()
	errs.started()
	exit = r.wait(in)
	if err := in.Delete(r.ctx()); err != nil {
		r.Errorf("delete: %v", err)
	}
	return exit, out.text(), errs.text()
}

// want runs a workload that must succeed and checks its standard output.
func (r *run) want(s workload.Spec, stdout string) {
	r.Helper()
	exit, out, errs := r.complete(s)
	if exit.Code != 0 || out != stdout {
		r.Errorf("%v: got status %d, %q (and %q), want 0, %q", s.Process.Args[1:], exit.Code, out, errs, stdout)
	}
}

// exec runs a process in in to its end.
func (r *run) exec(in boundary.Instance, p workload.Process) (exit workload.Exit, stdout string) {
	r.Helper()
	out := r.output()
	proc, err := in.Exec(r.ctx(), p, boundary.Stdio{Out: out.w, Err: out.w})
	if err != nil {
		r.Fatalf("exec %v: %v", p.Args, err)
	}
	out.started()
	exit = r.wait(proc)
	return exit, out.text()
}

// creator lets another process create, and with start set start, an instance,
// and die.
func (r *run) creator(s workload.Spec, p boundary.Prepared, start bool) {
	r.Helper()
	b, err := json.Marshal(creation{s, p})
	if err != nil {
		r.Fatal(err)
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envCreator+"="+string(b))
	if start {
		cmd.Env = append(cmd.Env, envCreator+"_START=1")
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		r.Fatalf("creator: %v: %s", err, out)
	}
}
