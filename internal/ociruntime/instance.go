package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/orphan"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// instance is one workload.
type instance struct {
	runtime Runtime
	id      workload.ID
	dir     string
	spec    workload.Spec
	oci     *specs.Spec
	cgroup  *cgroup.Manager
	helpers *cgroup.Manager // where commands run
	// idBase is the first host ID of the workload's range, idCount its length.
	idBase, idCount uint32

	alive sync.RWMutex // of stage: held by whoever uses it
	stage *container.Stage
	logs  atomic.Uint64

	// entering is held while a thread of ours is in the cgroup to start a command
	// there: who kills the cgroup would kill this process. over says that none may be
	// started any more.
	entering sync.RWMutex
	over     bool

	// pausing is held by commands, which would stop with the workload, and Pause,
	// which waits for them; paused and pending are its.
	pausing sync.RWMutex
	paused  bool
	pending []func(context.Context) error // signals for when it goes on

	first    *orphan.Process
	ended    boundary.Ending
	terminal boundary.Terminal // nil without one

	// leaving is held while a command may leave a process behind that is not in
	// others yet. Who holds it for itself alone can tell strays.
	leaving sync.RWMutex

	mu       sync.Mutex // of others and commands
	others   []*orphan.Process
	commands map[int]bool // the runtime's processes that this one waits for

	*boundary.Tree // its files; nil for one that Open found
	root           *os.File
}

var _ boundary.NetNS = (*instance)(nil)

// Create makes the workload up to, not including, its first instruction.
func (r Runtime) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	specifying := trace.Step(ctx, "runtime specification")
	spec, limits, err := r.specification(ctx, s, p)
	specifying.End()
	if err != nil {
		return nil, err
	}
	if err := usable(r.Program); err != nil {
		return nil, fmt.Errorf("%w: %w", workload.ErrUnsupported, err)
	}
	if err := runtimespec.MakeSources(s); err != nil {
		return nil, err
	}
	if s.AutoRemove {
		// What marks a volatile overlay as not to be mounted again: one of an earlier
		// run has lost nothing, as a workload that does not survive a crash is removed.
		if err := os.RemoveAll(filepath.Join(p.Work, "work", "incompat")); err != nil {
			return nil, err
		}
	}
	if err := orphan.Expect(); err != nil {
		return nil, err
	}
	i := &instance{
		runtime: r, id: s.ID, dir: filepath.Join(p.Dir, r.Boundary), spec: s, oci: spec, idBase: p.IDBase, idCount: p.IDCount,
	}
	// In the stage, where it is /run, processes of the workload go through it. On the
	// host they do not get as far: the directory above is ours alone.
	if err := os.Mkdir(i.dir, 0o711); err != nil {
		return nil, err
	}
	if err := i.create(ctx, p, limits); err != nil {
		return nil, errors.Join(err, i.Delete(context.WithoutCancel(ctx)))
	}
	if r.Sentry {
		return wired{i}, nil
	}
	return i, nil
}

// wired is an instance whose kernel took its interfaces when it started.
type wired struct{ *instance }

var _ boundary.Wired = wired{}

// Wired says that interfaces which come later are not seen.
func (wired) Wired() {}

func (i *instance) create(ctx context.Context, p boundary.Prepared, limits *specs.LinuxResources) error {
	if err := i.enclose(ctx, p, limits); err != nil {
		return err
	}
	staging := trace.Step(ctx, "files and mounts")
	err := i.prepare(ctx, p)
	staging.End()
	if err != nil {
		return err
	}
	creating := trace.Step(ctx, "runtime create")
	defer creating.End()
	args := []string{"create", "--bundle", container.StageDir, "--pid-file", inStage(pidFile)}
	stdio := p.Stdio
	term, err := i.console(i.spec.Process)
	if err != nil {
		return err
	}
	defer term.close()
	if term != nil {
		args, stdio = append(args, "--console-socket", inStage(term.name)), boundary.Stdio{}
	}
	if err := i.ownPipes(stdio, i.oci.Process.User.UID); err != nil {
		return err
	}
	if _, err = i.run(ctx, stdio, append(args, containerID)...); err != nil {
		return named(i.blame(err), i.oci.Process.Args[0])
	}
	if i.first, err = i.taken(pidFile); err != nil {
		return err
	}
	i.adopt()
	if err := i.loopback(); err != nil {
		return err
	}
	if i.terminal, err = term.take(ctx); err != nil {
		return err
	}
	return i.openFiles(p)
}

// fewTasks is less than a runtime may need that is a kernel of its own.
const fewTasks = 64

// blame tells of a limit that does not even leave room for the runtime.
func (i *instance) blame(err error) error {
	if oom, _ := i.cgroup.OOMKilled(); oom {
		return fmt.Errorf("the memory limit is too small for the runtime %s, whose own processes count: %w", i.runtime.Name, err)
	}
	if n := i.spec.Resources.Pids; n != nil && *n > 0 && *n < fewTasks {
		return fmt.Errorf("the limit of %d processes may be too small for the runtime %s, whose own threads count: %w", *n, i.runtime.Name, err)
	}
	return err
}

// enclose makes the cgroup with the workload's limits, and one for the runtime's
// own processes where they may not be in it.
func (i *instance) enclose(ctx context.Context, p boundary.Prepared, limits *specs.LinuxResources) (err error) {
	making := trace.Step(ctx, "cgroup made")
	defer making.End()
	i.cgroup, err = cgroup.New(p.Cgroup, limits, cgroup.Options{Strict: true, Names: runtimespec.LimitNames(i.spec.Resources)})
	if err != nil {
		return err
	}
	if err := cgroup.SavePath(filepath.Join(i.dir, cgroupFile), p.Cgroup); err != nil {
		return err
	}
	if err := i.cgroup.Create(); err != nil {
		return err
	}
	i.helpers = i.cgroup
	if i.runtime.Sentry || i.cgroup.Mode() != cgroup.ModeV2 {
		return nil
	}
	if i.helpers, err = cgroup.New(p.Cgroup+"/"+helpers, nil, cgroup.Options{}); err != nil {
		return err
	}
	return i.helpers.Create()
}

// prepare makes the stage and the bundle in it.
func (i *instance) prepare(ctx context.Context, p boundary.Prepared) error {
	cfg, err := i.runtime.stageConfig(i.dir, i.spec, p, i.oci)
	if err != nil {
		return err
	}
	if i.stage, err = container.MakeStage(ctx, cfg); err != nil {
		return err
	}
	i.oci.Mounts = i.stage.Mounts
	if i.runtime.Sentry {
		keepTmp(i.oci, i.stage.Root)
	}
	if err := container.Account(i.stage.Root, i.oci.Linux, i.oci.Process, i.spec.Process.User); err != nil {
		return err
	}
	return writeJSON(i.dir, configFile, i.oci)
}

// adopt takes over what else the runtime left behind, to reap it.
func (i *instance) adopt() {
	pids, err := i.cgroup.Pids(true)
	if err != nil {
		return // the cgroup is gone, and all that was in it
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.takeOver(pids)
}

// takeOver adds those children of ours among pids to others that are not known yet,
// and returns them. The caller holds mu.
func (i *instance) takeOver(pids []int) (taken []*orphan.Process) {
	known := map[int]bool{i.first.Pid(): true}
	for _, p := range i.others {
		known[p.Pid()] = true
	}
	for _, pid := range pids {
		if known[pid] || i.commands[pid] {
			continue
		}
		if p, err := orphan.Take(pid); err == nil {
			taken = append(taken, p)
		}
	}
	i.others = append(i.others, taken...)
	return taken
}

// killStrays ends what a command has left behind that was killed in the middle, and
// keeps it to be waited for: nobody would know of it. The workload's own processes
// are no children of ours, they have a pid namespace.
func (i *instance) killStrays() {
	i.leaving.Lock()
	defer i.leaving.Unlock()
	i.entering.Lock()
	defer i.entering.Unlock()
	pids, err := i.cgroup.Pids(true)
	if err != nil {
		return // the cgroup is gone, and all that was in it
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.takeOver(pids) {
		p.Signal(syscall.SIGKILL) //nolint:errcheck // it may have ended
	}
}

// Start lets the first process run.
func (i *instance) Start(ctx context.Context) error {
	starting := trace.Step(ctx, "runtime start")
	defer starting.End()
	_, err := i.run(ctx, boundary.Stdio{}, "start", containerID)
	return named(err, i.oci.Process.Args[0])
}

// NetNS opens the network namespace of the workload. gVisor takes the addresses
// of what is in it when the workload starts.
func (i *instance) NetNS() (f *os.File, err error) {
	if i.spec.Network == workload.NetworkHost {
		return nil, fmt.Errorf("%w: a network namespace of its own: it uses the host's network", workload.ErrUnsupported)
	}
	if i.first == nil {
		return nil, workload.ErrNotRunning
	}
	err = i.first.While(func(pid int) (err error) {
		f, err = os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
		return err
	})
	return f, notRunning(err)
}

// loopback switches on what gVisor then has inside: it takes interfaces as they are.
func (i *instance) loopback() error {
	if !i.runtime.Sentry {
		return nil
	}
	ns, err := i.NetNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := rtnl.DialIn(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.LoopbackUp()
}

// notRunning says that a process that is gone is the workload's end.
func notRunning(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return workload.ErrNotRunning
	}
	return runtimespec.Gone(err)
}

func (i *instance) Wait(ctx context.Context) (workload.Exit, error) {
	return i.ended.Once(func() (workload.Exit, error) {
		if i.first == nil {
			return workload.Exit{}, workload.ErrNotRunning
		}
		e, err := i.runtime.wait(ctx, i.first)
		if err == nil && i.cgroup != nil {
			e.OOMKilled, _ = i.cgroup.OOMKilled() // the cgroup may be gone already
		}
		return e, err
	})
}

// wait waits for the end of a process.
func (r Runtime) wait(ctx context.Context, p *orphan.Process) (workload.Exit, error) {
	select {
	case <-p.Ended():
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
	ws, err := p.Status()
	if err != nil {
		return workload.Exit{}, err
	}
	return r.exit(ws), nil
}

// exit is how a process ended. The processes that stand for those in gVisor's
// sandbox end with a status as a shell has it, whatever happened inside.
func (r Runtime) exit(ws syscall.WaitStatus) workload.Exit {
	const lastSignal = 64
	e := workload.Exit{Code: ws.ExitStatus(), At: time.Now()}
	switch {
	case ws.Signaled():
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	case r.Sentry && e.Code > 128 && e.Code <= 128+lastSignal:
		e.Signal = e.Code - 128
	}
	return e
}

// Signal asks the runtime, and for SIGKILL the kernel.
func (i *instance) Signal(ctx context.Context, sig syscall.Signal) error {
	if i.first == nil {
		return i.killRemains(ctx, sig)
	}
	if sig == syscall.SIGKILL || sig == 0 {
		return notRunning(i.first.Signal(sig))
	}
	if err := i.first.Signal(0); err != nil {
		return notRunning(err)
	}
	err := i.orLater(ctx, func(ctx context.Context) error {
		_, err := i.run(ctx, boundary.Stdio{}, "kill", containerID, strconv.Itoa(int(sig)))
		return err
	})
	if err != nil && i.first.Signal(0) != nil {
		return workload.ErrNotRunning // meanwhile
	}
	return err
}

// killRemains ends what Open found, whatever the signal.
func (i *instance) killRemains(ctx context.Context, _ syscall.Signal) error {
	if i.cgroup == nil {
		return workload.ErrNotRunning
	}
	return i.killAll(ctx)
}

// errPaused says why a command cannot run: it would be in the frozen cgroup, too.
var errPaused = errors.New("the workload is paused")

// orLater sends a signal, or keeps it while the workload is paused, as the kernel
// keeps those of a frozen process.
func (i *instance) orLater(ctx context.Context, send func(context.Context) error) error {
	err := send(ctx)
	if !errors.Is(err, errPaused) {
		return err
	}
	i.pausing.Lock()
	if i.paused {
		i.pending = append(i.pending, send)
		i.pausing.Unlock()
		return nil
	}
	i.pausing.Unlock()
	return send(ctx)
}

// Pause freezes the cgroup, or has gVisor's kernel stop its processes: that kernel
// does not live through being frozen. Commands end first.
func (i *instance) Pause(ctx context.Context) error {
	i.pausing.Lock()
	defer i.pausing.Unlock()
	err := i.freeze(ctx, "pause", i.cgroup.Freeze)
	if err == nil {
		i.paused = true
	}
	return err
}

// freeze has gVisor carry out a command, and otherwise calls f. The command is not
// interrupted, but for its limit: what is written down of a sandbox would no longer be
// what its kernel does, and neither pause nor resume would be possible.
func (i *instance) freeze(ctx context.Context, command string, f func(context.Context) error) error {
	if !i.runtime.Sentry {
		return f(ctx)
	}
	_, err := i.command(context.WithoutCancel(ctx), boundary.Stdio{}, command, containerID)
	return err
}

// Resume continues what Pause stopped.
func (i *instance) Resume(ctx context.Context) error {
	i.pausing.Lock()
	err := i.freeze(ctx, "resume", func(context.Context) error { return i.cgroup.Thaw() })
	var signals []func(context.Context) error
	if err == nil {
		i.paused, signals, i.pending = false, i.pending, nil
	}
	i.pausing.Unlock()
	for _, send := range signals {
		send(ctx) //nolint:errcheck // it may have ended by an earlier one
	}
	return err
}

// PID is that of the first process on the host, or of the kernel that it runs on.
func (i *instance) PID() int {
	if i.first == nil {
		return 0
	}
	return i.first.Pid()
}

func (i *instance) Terminal() boundary.Terminal { return i.terminal }

// Delete ends every process and removes cgroups and files. The runtime is not
// asked: it may hang, and nothing of it is anywhere else.
func (i *instance) Delete(ctx context.Context) error {
	if i.Tree != nil {
		i.Tree.Close()
	}
	if i.terminal != nil {
		i.terminal.Close()
	}
	ending := trace.Step(ctx, "processes ended, mounts removed")
	err := i.killAll(ctx)
	if err == nil {
		err = i.reap(ctx)
	}
	ending.End()
	i.letGo()
	removing := trace.Step(ctx, "cgroup removed")
	defer removing.End()
	if err == nil && i.cgroup != nil {
		err = i.cgroup.Destroy(ctx)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(i.dir)
}

// killAll ends every process, those of the runtime, too.
func (i *instance) killAll(ctx context.Context) error {
	i.entering.Lock()
	defer i.entering.Unlock()
	i.over = true
	if i.cgroup == nil {
		return nil
	}
	return i.cgroup.Kill(ctx)
}

// reap waits for what was killed.
func (i *instance) reap(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := i.others
	if i.first != nil {
		all = append(all[:len(all):len(all)], i.first)
	}
	for _, p := range all {
		select {
		case <-p.Ended():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Open finds what is left of a workload whose supervisor is gone. It needs no
// runtime.
func (r Runtime) Open(_ context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	i := &instance{runtime: r, id: id, dir: filepath.Join(dir, r.Boundary)}
	var err error
	if i.cgroup, err = cgroup.OpenSaved(filepath.Join(i.dir, cgroupFile)); err != nil {
		return nil, err
	}
	return i, nil
}

// Explain prints the stage, the bundle, and the commands.
func (r Runtime) Explain(s workload.Spec, p boundary.Prepared, w io.Writer) error {
	spec, _, err := r.specification(context.Background(), s, p)
	if err != nil {
		return err
	}
	cfg, err := r.stageConfig(filepath.Join(p.Dir, r.Boundary), s, p, spec)
	if err != nil {
		return err
	}
	if err := container.WriteStage(w, cfg); err != nil {
		return err
	}
	b, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n# %s, where the sources of mounts are then those above, and the user a number:\n%s\n", inStage(configFile), b)
	fmt.Fprintf(w, "\n# Commands, in the cgroup %s:\n", p.Cgroup)
	for _, command := range []string{"create --bundle " + container.StageDir + " --pid-file " + inStage(pidFile), "start"} {
		fmt.Fprint(w, r.Program)
		for _, f := range r.flags(s, logFile) {
			fmt.Fprint(w, " ", f)
		}
		if _, err := fmt.Fprintf(w, " %s %s\n", command, containerID); err != nil {
			return err
		}
	}
	return nil
}
