package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/warm"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/selfexec"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Run is Create, Start and, if io is not nil, Attach, in one go. With a nil io
// the session is only good for its Record, and is closed. If the workload
// cannot be started, it is removed; the error is that of Start.
func (e *Engine) Run(ctx context.Context, s workload.Spec, io *Streams) (*Session, error) {
	var sup *starting
	preparing, made := trace.Begin(ctx, "workload prepared")
	p, err := e.prepare(preparing, &s, func(k *state.Lock) (err error) {
		if e.mayWait(&s) {
			return nil // there is a supervisor already
		}
		// The supervisor's own start takes place while the rest is prepared.
		sup, err = e.spawn(preparing, &s, k)
		return err
	})
	made.End()
	if err != nil {
		sup.abandon()
		return nil, fmt.Errorf("run workload: %w", err)
	}
	defer p.release()
	var session *Session
	if sup == nil {
		sup, err = e.claimOrSpawn(ctx, &s, &p.state, p.lock)
	}
	switch {
	case err != nil, sup.pool != nil:
	case s.VM.Tenant != "":
		err = e.readyMachine(ctx, &s, &p.state)
	default: // the kernel is ready since a moment ago
		err = e.readyTemplate(ctx, &s, &p.state)
	}
	if err == nil {
		e.layout.Happened(&s, "create")
		session, err = sup.start(ctx, &s, &p.state, io)
	}
	if err != nil {
		e.layout.Happened(&s, "destroy")
		sup.abandon()
		rerr := e.deleteBoundary(context.WithoutCancel(ctx), s.ID) // Ctrl-C is why, perhaps
		if rerr == nil {
			e.warn(e.removeData(ctx, &s))
			rerr = errors.Join(e.rollback(s.ID), e.dropVolumes(p))
		}
		p.lock.Unlock()
		return nil, errors.Join(fmt.Errorf("run workload: %w", err), rerr)
	}
	// From here on only the supervisor has the lock.
	e.taken(sup, &s)
	p.lock.Unlock()
	e.refillLater(ctx, sup)
	if io == nil && !s.AutoRemove {
		if err := e.layout.Sync(s.ID); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, session.Close())
		}
	}
	return session, nil
}

// Start starts a workload that is created or exited. The error wraps
// workload.ErrRunning, ErrCommandNotFound or ErrNotExecutable, among others;
// the workload then stays as it was. With a nil io the session is closed.
func (e *Engine) Start(ctx context.Context, ref string, io *Streams) (*Session, error) {
	id, err := e.layout.Find(ref)
	if err != nil {
		return nil, about("start", ref, err)
	}
	locking := trace.Step(ctx, "state locked, read")
	defer locking.End()
	k, err := e.lockIdle(ctx, id)
	if err != nil {
		return nil, about("start", ref, err)
	}
	defer k.Unlock()
	spec, err := e.layout.ReadSpec(id)
	if err != nil {
		return nil, err
	}
	st, err := e.layout.ReadState(id)
	if err != nil {
		return nil, err
	}
	before := *st
	if st.IDCount > 0 {
		// Another root may have taken the range since a reboot.
		if err := e.layout.IDs().Claim(st.IDBase); err != nil {
			return nil, about("start", ref, err)
		}
	}
	if err := os.Mkdir(e.layout.RunDir(id), 0o700); err != nil {
		return nil, about("start", ref, err)
	}
	state.Did("start: run-time directory made")
	locking.End()
	var sup *starting
	if st.Machine != nil && e.mayWait(spec) {
		if err = e.startMachine(ctx, spec, st.Machine); err == nil {
			sup = e.claim(ctx, spec, st, k)
		}
	}
	if err == nil && sup == nil {
		if sup, err = e.spawn(ctx, spec, k); err == nil {
			err = e.readyMachine(ctx, spec, st)
		}
	}
	var session *Session
	if err == nil {
		session, err = sup.start(ctx, spec, st, io)
	}
	if err != nil {
		sup.abandon()
		rerr := e.deleteBoundary(context.WithoutCancel(ctx), id)
		if rerr == nil {
			rerr = e.unstarted(sup, spec, st, &before)
		}
		if rerr == nil {
			rerr = os.RemoveAll(e.layout.RunDir(id))
		}
		return nil, errors.Join(about("start", ref, err), rerr)
	}
	e.taken(sup, spec)
	e.refillLater(ctx, sup)
	return session, nil
}

// unstarted makes a workload what it was before a start that failed. Its supervisor
// is dead, and may have recorded that it runs; what has run to its end by itself
// keeps that. If it got a machine that waited, it gives the range of IDs back that
// came with it.
func (e *Engine) unstarted(sup *starting, s *workload.Spec, st, before *state.State) error {
	now, err := e.layout.ReadState(s.ID)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed at its end
	}
	waited := sup != nil && sup.pool != nil
	if err == nil && (now.Live() || waited) {
		err = e.layout.WriteState(s.ID, before, true)
	}
	if err == nil && waited {
		err = e.layout.IDs().Release(st.IDBase, string(s.ID))
	}
	return err
}

// claimOrSpawn finds a machine that waits for a workload, or starts a supervisor.
func (e *Engine) claimOrSpawn(ctx context.Context, s *workload.Spec, st *state.State, k *state.Lock) (*starting, error) {
	if sup := e.claim(ctx, s, st, k); sup != nil {
		return sup, nil
	}
	return e.spawn(ctx, s, k)
}

// lock returns the lock of a workload that has no supervisor. It waits for other
// commands, and returns workload.ErrRunning if there is a supervisor.
func (e *Engine) lock(ctx context.Context, id workload.ID) (k *state.Lock, err error) {
	err = state.Retry(ctx, func() error {
		if k, err = e.layout.TryLock(id); errors.Is(err, state.ErrLocked) {
			if st, rerr := e.layout.ReadState(id); rerr == nil && st.Active() {
				return workload.ErrRunning
			}
		}
		return err
	})
	return k, err
}

// lockIdle is lock, and cleans up if need be.
func (e *Engine) lockIdle(ctx context.Context, id workload.ID) (*state.Lock, error) {
	k, err := e.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	if err = e.recover(ctx, id); err == nil {
		if _, serr := os.Lstat(e.layout.Dir(id)); serr != nil {
			err = workload.ErrNotFound // it was to be removed at its end
		}
	}
	if err != nil {
		k.Unlock()
		return nil, err
	}
	return k, nil
}

// starting is a supervisor that waits to be told what to start.
type starting struct {
	e      *Engine
	conn   *os.File
	kill   func()
	exited chan struct{}

	// Of one that waited with a machine: where, and the range of IDs that the
	// workload had before it was claimed.
	pool   *warm.Pool
	before uint32
}

// spawn starts a supervisor for a workload whose lock the caller holds and
// shares with it.
func (e *Engine) spawn(ctx context.Context, s *workload.Spec, k *state.Lock) (*starting, error) {
	defer trace.Step(ctx, "supervisor executed").End()
	stderr, err := os.OpenFile(filepath.Join(e.layout.RunDir(s.ID), "stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	sup, err := e.execute(s.Namespaces.HostUser, s.ID.Short(), stderr, k.File)
	if err == nil {
		state.Did("start: supervisor started")
	}
	return sup, err
}

// execute starts a supervisor's program. It leads a session of its own and sits in
// a cgroup of its own, so that neither a terminal nor a service manager that ends
// the command ends it too. Where its workload shares the host's user namespace, it
// runs from a file that cannot be written through a process of it (CVE-2019-5736).
// The title is for the eyes of ps.
func (e *Engine) execute(hostUser bool, title string, stderr, lock *os.File) (*starting, error) {
	program := e.cfg.Supervisor
	if hostUser {
		sealed, err := selfexec.Open(program)
		if err != nil {
			return nil, fmt.Errorf("start supervisor: keep its program out of a workload's reach: %w", err)
		}
		defer sealed.Close() // before the workload exists: the supervisor waits for us to ask for it
		program = selfexec.Path(sealed)
	}
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cgroup := e.supervisorCgroup()
	if cgroup != nil {
		defer cgroup.Close()
	}
	start := func(cgroup *os.File) (*exec.Cmd, error) {
		cmd := exec.Command(program)
		cmd.Args = []string{filepath.Base(e.cfg.Supervisor), title}
		cmd.Dir = "/"
		cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, supervisorEnv...)
		cmd.Env = append(cmd.Env, e.cfg.SupervisorEnv...)
		cmd.Stderr = stderr
		cmd.ExtraFiles = []*os.File{lock, theirs}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if cgroup != nil {
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cgroup.Fd())
		}
		return cmd, cmd.Start()
	}
	cmd, err := start(cgroup)
	if err != nil && cgroup != nil {
		cmd, err = start(nil) // the cgroup is of a kind that takes no processes
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait() // for callers that live longer than their workloads
		close(exited)
	}()
	return &starting{e: e, conn: ours, kill: func() { _ = cmd.Process.Kill() }, exited: exited}, nil
}

// supervisorEnv is the environment of a supervisor. The number of processors is
// fixed, so the runtime need not keep the files of its cgroup open to follow it.
// Its heap is collected when nothing happens any more, hardly ever before: a start
// allocates little more than a megabyte, and shall not wait for that.
var supervisorEnv = []string{"GOMAXPROCS=2", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// supervisorCgroup returns the cgroup v2 directory for supervisors, or nil
// where there is none or it cannot be made. On cgroup v1 alone they stay in
// that of the command: moving them takes longer than all the rest.
func (e *Engine) supervisorCgroup() *os.File {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Lstat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(root, e.cfg.CgroupParent, "supervisors")
		f, err := os.Open(dir)
		if err != nil {
			if os.MkdirAll(dir, 0o755) != nil {
				return nil
			}
			if f, err = os.Open(dir); err != nil {
				return nil
			}
		}
		return f
	}
	return nil
}

// start tells the supervisor what to start and returns the connection to it.
func (s *starting) start(ctx context.Context, spec *workload.Spec, st *state.State, io *Streams) (*Session, error) {
	if io != nil && spec.Process.Terminal && io.Rows > 0 {
		spec.Process.Rows, spec.Process.Cols = io.Rows, io.Cols
	}
	bound, err := s.e.resolveVolumes(ctx, spec)
	if err != nil {
		return nil, err
	}
	networks, err := s.e.attachConfig(spec)
	if err != nil {
		return nil, err
	}
	req := wire.Request{
		Version: wire.Version, Op: wire.OpStart, Streams: io != nil,
		Start: &wire.Start{Root: s.e.layout.Root, Run: s.e.layout.Run, Spec: bound, State: *st, Init: s.e.initProgram(), Networks: networks, Input: io != nil && io.In != nil},
	}
	c := newConn(s.conn)
	inner, starting := trace.Begin(ctx, "workload started")
	if req.Trace = starting != nil; req.Trace {
		c.phases = func(p []trace.Phase) { trace.Merge(inner, p) }
	}
	reply, err := c.ask(ctx, &req)
	starting.End()
	if err != nil {
		if errors.Is(err, errGone) {
			err = fmt.Errorf("%w%s", workload.ErrSupervisorLost, s.e.lastWords(spec.ID))
		}
		return nil, err
	}
	if reply.State == nil {
		return nil, fmt.Errorf("%w: a reply without a state", wire.ErrProtocol)
	}
	for _, w := range reply.Warnings {
		s.e.cfg.Warn(w)
	}
	if st.Machine != nil && spec.VM.Tenant == "" {
		s.e.cfg.Machines.Started(spec.VM, st.Machine)
	}
	if req.Trace {
		c.phases = func(p []trace.Phase) { trace.Merge(ctx, p) } // of the end
	}
	return newSession(ctx, s.e, c, s.e.newRecord(spec, reply.State), reply, io), nil
}

// initProgram is the program of --init. It lies beside the supervisor.
func (e *Engine) initProgram() string {
	return filepath.Join(filepath.Dir(e.cfg.Supervisor), "bulkhead-init")
}

// abandon ends a supervisor that could not start anything, or whose caller does
// not want to wait for it any longer. Then it is dead, and what it may have made
// is to be removed.
func (s *starting) abandon() {
	if s != nil {
		s.conn.Close()
		s.kill()
		<-s.exited
		if s.pool != nil {
			s.e.warn(s.e.sweepPool(context.Background(), *s.pool))
		}
	}
}
