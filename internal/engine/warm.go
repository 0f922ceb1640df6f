package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/warm"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Warm makes count machines wait for workloads like s, so that Run and Start need
// not make one. asked stands for what was asked for: what waits for the same with
// another kernel, VMM or version of the image ends, and so does what is too much. It
// returns the key of the template that they go on from. The error wraps
// workload.ErrUnsupported where nothing can be made before it is known for whom.
func (e *Engine) Warm(ctx context.Context, s workload.Spec, asked string, count int) (key string, err error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("make machines wait: %w", err) }
	b, err := e.boundary(s.Boundary)
	if err != nil {
		return fail(err)
	}
	if _, ok := b.(boundary.Warmer); !ok || e.cfg.Machines == nil || s.VM.NoTemplate {
		return fail(fmt.Errorf("%w: behind the boundary %s, or without templates, nothing waits", workload.ErrUnsupported, s.Boundary))
	}
	if err := b.Check(ctx); err != nil {
		return fail(err)
	}
	if err := e.checkNetworks(ctx, &s); err != nil {
		return fail(err)
	}
	// What is a workload's own is nobody's here.
	s.ID, s.Name, s.Created = workload.NewID(), "", time.Time{}
	if s.Hostname == "" && !s.Namespaces.HostUTS {
		s.Hostname = s.ID.Short()
	}
	if key, err = e.makePool(ctx, s, asked, count); err != nil {
		return fail(err)
	}
	pool := warm.Of(e.layout.Run, key)
	err = e.endOthers(ctx, asked, key)
	if err == nil {
		err = e.retire(ctx, pool, count)
	}
	if err == nil {
		err = e.refill(ctx, pool, true)
	}
	if err != nil {
		return fail(err)
	}
	return key, nil
}

// Cool ends what waits for what was asked for.
func (e *Engine) Cool(ctx context.Context, asked string) error { return e.endOthers(ctx, asked, "") }

// endOthers ends what waits for what was asked for, but with one key.
func (e *Engine) endOthers(ctx context.Context, asked, but string) error {
	pools, err := warm.All(e.layout.Run)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if w, err := p.Wanted(); p.Key == but || err != nil || w.Asked != asked {
			continue
		}
		if err := e.EndWarm(ctx, p.Key); err != nil {
			return err
		}
	}
	return nil
}

// makePool makes the template, and writes down what is wanted.
func (e *Engine) makePool(ctx context.Context, s workload.Spec, asked string, count int) (key string, err error) {
	dir, done, err := warm.Making(ctx, e.layout.Run)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	m := &boundary.Machine{GuestIDs: boundary.GuestIDs}
	disk, release, err := e.cfg.Machines.Disk(ctx, s.Image)
	if err != nil {
		return "", err
	}
	defer release()
	if disk.MaxID >= idrange.Size {
		return "", fmt.Errorf("%w: the image has files of user or group %d, and a workload has the IDs 0 to %d", workload.ErrUnsupported, disk.MaxID, idrange.Size-1)
	}
	m.Image = disk.Path
	if err := e.startMachine(ctx, &s, m); err != nil {
		return "", err
	}
	if m.Data, m.Blank, err = e.makeData(ctx, filepath.Join(dir, "data"), s.VM.Disk); err != nil {
		return "", err
	}
	// Whoever makes the template has IDs of its own.
	owner := workload.NewID()
	if err := os.Mkdir(filepath.Join(dir, string(owner)), 0o700); err != nil {
		return "", err
	}
	r, err := e.layout.AllocateIDs(warm.Owner(owner))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, e.layout.IDs().Release(r.Base, warm.Owner(owner))) }()
	p := boundary.Prepared{
		Machine: m, IDBase: r.Base, IDCount: r.Count, Files: filePaths("/", &s), Cgroup: e.cfg.CgroupParent,
	}
	if key, err = e.cfg.Machines.WarmTemplate(ctx, s, p); err != nil {
		return "", err
	}
	if key == "" {
		return "", fmt.Errorf("%w: such a workload cannot be made before it is known for whom: whole systems and tenants cannot, nor what is mounted, or runs, inside of a volume", workload.ErrUnsupported)
	}
	unlock, err := warm.Lock(ctx, e.layout.Run)
	if err != nil {
		return "", err
	}
	defer unlock()
	pool := warm.Of(e.layout.Run, key)
	if err := pool.Make(); err != nil {
		return "", err
	}
	m.Data, m.Blank = filepath.Join(e.layout.Root, "workloads", "data"), ""
	return key, pool.Want(warm.Wanted{Count: count, Asked: asked, Spec: s, Machine: m, Files: p.Files, Cgroup: p.Cgroup})
}

// WarmPool is what waits for one kind of workload.
type WarmPool struct {
	// Key is that of the template, Image the image's name.
	Key, Image string
	// Wanted is how many are to wait, Waiting how many do.
	Wanted, Waiting int
}

// WarmPools lists what waits below a run root.
func WarmPools(runRoot string) ([]WarmPool, error) {
	pools, err := warm.All(runRoot)
	if err != nil {
		return nil, err
	}
	var all []WarmPool
	for _, p := range pools {
		w, err := p.Wanted()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		holders, err := p.Holders()
		if err != nil {
			return nil, err
		}
		one := WarmPool{Key: p.Key, Image: w.Spec.Image.Reference, Wanted: w.Count}
		for _, h := range holders {
			if h.Waits {
				one.Waiting++
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// EndWarm ends what waits with the template of a key. None is no error.
func (e *Engine) EndWarm(ctx context.Context, key string) error {
	pool := warm.Of(e.layout.Run, key)
	if _, err := os.Lstat(pool.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := warm.Lock(ctx, e.layout.Run)
	if err != nil {
		return err
	}
	err = pool.Want(warm.Wanted{})
	unlock()
	if err == nil {
		err = e.retire(ctx, pool, 0)
	}
	if err != nil {
		return err
	}
	if unlock, err = warm.Lock(ctx, e.layout.Run); err != nil {
		return err
	}
	defer unlock()
	return pool.Tidy()
}

// retire ends all that wait in a pool but a number, and waits until they are gone.
// With 0 those go, too, that do not wait yet.
func (e *Engine) retire(ctx context.Context, pool warm.Pool, keep int) error {
	holders, err := pool.Holders()
	if err != nil {
		return err
	}
	for _, h := range holders {
		switch {
		case !h.Lives:
			continue
		case h.Waits && keep > 0 && e.current(h):
			keep--
			continue
		case h.Waits:
			c, err := e.askHolder(ctx, h, wire.OpRetire)
			if err != nil {
				return err
			}
			c.close()
		case keep > 0:
			continue // it sees by itself that it is one too many
		}
		if err := h.Gone(ctx); err != nil {
			return err
		}
	}
	return e.sweepPool(ctx, pool)
}

// current tells whether a holder runs the program that is started now: another
// may have been installed since.
func (e *Engine) current(h warm.Holder) bool {
	f, err := wire.Dial(h.Dir)
	if err != nil {
		return false
	}
	defer f.Close()
	pid, err := wire.Peer(f)
	return err == nil && e.runs(pid)
}

func (e *Engine) runs(pid int) bool {
	is, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return false
	}
	wanted, err := os.Stat(e.cfg.Supervisor)
	return err == nil && os.SameFile(is, wanted)
}

// claimLimit bounds how long a command waits for a holder that does not answer, or
// not soon enough, before it makes a machine itself.
const claimLimit = 3 * time.Second

// asked is a connection to a holder.
type asked struct {
	*conn
	holder *os.File // its pidfd
}

func (a *asked) close() {
	if a != nil {
		a.f.Close()
		a.holder.Close()
	}
}

// askHolder sends a request to a holder. It returns nil without an error when the holder
// has gone, or is somebody's, or is outdated and is claimed.
func (e *Engine) askHolder(ctx context.Context, h warm.Holder, op wire.Op) (*asked, error) {
	f, err := wire.Dial(h.Dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := &asked{conn: newConn(f)}
	pid, err := wire.Peer(f)
	if err == nil && op == wire.OpClaim && !e.runs(pid) {
		f.Close()
		return nil, nil
	}
	if err == nil {
		a.holder, err = pidfd.Open(pid)
	}
	var reply *wire.Reply
	if err == nil {
		reply, err = a.conn.ask(ctx, &wire.Request{Version: wire.Version, Op: op})
	}
	// It has answered after it was opened, so that is no other process.
	if err == nil && op == wire.OpClaim && reply.PID != pid {
		err = fmt.Errorf("%w: process %d says that it is %d", wire.ErrProtocol, pid, reply.PID)
	}
	if err != nil {
		f.Close()
		if a.holder != nil {
			a.holder.Close()
		}
		if errors.Is(err, errGone) || errors.Is(err, syscall.ESRCH) {
			return nil, nil
		}
		return nil, err
	}
	return a, nil
}

// mayWait tells whether it is worth looking for a machine that waits for s.
func (e *Engine) mayWait(s *workload.Spec) bool {
	if s.VM.Tenant != "" || s.VM.Machine || s.VM.System || s.VM.NoTemplate || e.cfg.Machines == nil {
		return false
	}
	pools, _ := warm.All(e.layout.Run) // else there is none
	for _, p := range pools {
		if w, err := p.Wanted(); err == nil && w.Spec.Image.Digest == s.Image.Digest && w.Spec.Boundary == s.Boundary {
			return true
		}
	}
	return false
}

// claim gives a workload that is to be started the first time a machine that waits
// for it, with the supervisor that holds it. It returns nil where there is none; then
// nothing is different, but that what was claimed in vain is gone.
func (e *Engine) claim(ctx context.Context, s *workload.Spec, st *state.State, k *state.Lock) *starting {
	if st.Machine == nil || !e.mayWait(s) {
		return nil
	}
	defer trace.Step(ctx, "waiting machine claimed").End()
	key, err := e.cfg.Machines.WarmKey(ctx, *s, boundary.Prepared{
		Machine: st.Machine, IDBase: st.IDBase, IDCount: st.IDCount, Files: st.Files, Cgroup: e.cfg.CgroupParent,
	})
	if err != nil || key == "" {
		e.warn(err)
		return nil
	}
	pool := warm.Of(e.layout.Run, key)
	holders, err := pool.Holders()
	if err != nil {
		e.warn(err)
		return nil
	}
	// Others look, too.
	rand.Shuffle(len(holders), func(i, j int) { holders[i], holders[j] = holders[j], holders[i] })
	for _, h := range holders {
		if !h.Waits {
			continue
		}
		sup, err := e.take(ctx, pool, h, s, st, k)
		if err != nil && ctx.Err() == nil {
			e.warn(fmt.Errorf("a machine that waits is of no use: %w", err))
		}
		if sup != nil {
			return sup
		}
	}
	return nil
}

// take claims one holder. It returns nil without an error when another has it, or
// nobody.
func (e *Engine) take(ctx context.Context, pool warm.Pool, h warm.Holder, s *workload.Spec, st *state.State, k *state.Lock) (_ *starting, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimLimit)
	defer cancel()
	a, err := e.askHolder(ctx, h, wire.OpClaim)
	if a == nil || err != nil {
		return nil, err
	}
	defer a.f.Close()
	ours, theirs, err := wire.Pair()
	if err != nil {
		a.holder.Close()
		return nil, err
	}
	defer theirs.Close()
	watch := a.holder
	sup := &starting{e: e, pool: &pool, conn: ours, exited: make(chan struct{}), kill: func() { _ = pidfd.Kill(watch) }}
	go func() {
		_ = pidfd.Wait(context.Background(), watch) // closes it
		close(sup.exited)
	}()
	defer func() {
		if err != nil {
			sup.abandon() // it may have the lock by now
		}
	}()
	if err := wire.SendFile(a.f, k.File); err != nil {
		return nil, err
	}
	if err := wire.SendFile(a.f, theirs); err != nil {
		return nil, err
	}
	var reply wire.Reply
	stop := context.AfterFunc(ctx, func() { a.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := a.r.Message(wire.TypeReply, &reply); err != nil {
		return nil, gone(err)
	}
	if reply.State == nil {
		return nil, fmt.Errorf("%w: a reply without a state", wire.ErrProtocol)
	}
	state.Did("claim: claimed")
	if err := e.layout.IDs().Transfer(reply.State.IDBase, warm.Owner(h.ID), string(s.ID)); err != nil {
		return nil, err
	}
	state.Did("claim: IDs transferred")
	sup.before = st.IDBase
	st.IDBase, st.IDCount, st.Cgroup = reply.State.IDBase, reply.State.IDCount, reply.State.Cgroup
	return sup, nil
}

// taken gives the range of IDs back that a workload had before it got that of the
// machine which waited for it.
func (e *Engine) taken(sup *starting, s *workload.Spec) {
	if sup.pool != nil {
		e.warn(e.layout.IDs().Release(sup.before, string(s.ID)))
	}
}

// refill starts as many holders as a pool lacks. With wait it returns when they
// wait, or cannot.
func (e *Engine) refill(ctx context.Context, pool warm.Pool, wait bool) error {
	w, err := pool.Wanted()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	holders, err := pool.Holders()
	if err != nil {
		return err
	}
	missing := w.Count
	for _, h := range holders {
		if h.Counts() {
			missing--
		}
	}
	var started []*starting
	for range max(missing, 0) {
		sup, ferr := e.spawnHolder(pool, &w.Spec)
		if ferr != nil {
			err = ferr
			break
		}
		started = append(started, sup)
	}
	req := wire.Request{Version: wire.Version, Op: wire.OpWarm, Warm: &wire.Warm{Root: e.layout.Root, Run: e.layout.Run, Key: pool.Key}}
	for _, sup := range started {
		c := newConn(sup.conn)
		if wait {
			_, aerr := c.ask(ctx, &req)
			if errors.Is(aerr, errGone) {
				aerr = workload.ErrSupervisorLost
			}
			err = errors.Join(err, aerr)
		} else {
			b, aerr := wire.AppendJSON(nil, wire.TypeRequest, &req)
			if aerr == nil {
				_, aerr = sup.conn.Write(b)
			}
			err = errors.Join(err, aerr)
		}
		sup.conn.Close()
	}
	return err
}

// refillLater is refill, beside what else goes on; Close waits until the holders
// are started.
func (e *Engine) refillLater(ctx context.Context, sup *starting) {
	if sup.pool == nil {
		return
	}
	e.refilling.Go(func() { e.warn(e.refill(context.WithoutCancel(ctx), *sup.pool, false)) })
}

// spawnHolder starts a supervisor that has no workload yet.
func (e *Engine) spawnHolder(pool warm.Pool, s *workload.Spec) (*starting, error) {
	stderr, err := pool.Stderr()
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	null, err := os.Open(os.DevNull) // it has no lock of a workload's
	if err != nil {
		return nil, err
	}
	defer null.Close()
	// As long as the short ID that will take its place.
	title := ("warm-" + pool.Key)[:len(workload.NewID().Short())]
	return e.execute(s.Namespaces.HostUser, title, stderr, null)
}

// sweepWarm removes what holders left that died, in all pools.
func (e *Engine) sweepWarm(ctx context.Context) error {
	pools, err := warm.All(e.layout.Run)
	for _, p := range pools {
		err = errors.Join(err, e.sweepPool(ctx, p))
	}
	return err
}

func (e *Engine) sweepPool(ctx context.Context, pool warm.Pool) error {
	if dead, err := dead(pool); len(dead) == 0 || err != nil {
		return err
	}
	unlock, err := warm.Lock(ctx, e.layout.Run)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := dead(pool) // now none of them is only about to live
	for _, h := range all {
		err = errors.Join(err, e.sweepHolder(ctx, h))
	}
	return errors.Join(err, pool.Tidy())
}

func dead(pool warm.Pool) (all []warm.Holder, err error) {
	holders, err := pool.Holders()
	for _, h := range holders {
		if !h.Lives {
			all = append(all, h)
		}
	}
	return all, err
}

func (e *Engine) sweepHolder(ctx context.Context, h warm.Holder) error {
	ctx, cancel := context.WithTimeout(ctx, healing)
	defer cancel()
	var err error
	for _, b := range e.cfg.Boundaries {
		if _, ok := b.(boundary.Warmer); ok && err == nil {
			err = e.deleteInstance(ctx, &workload.Spec{ID: h.ID, Boundary: b.Name()}, h.Dir)
		}
	}
	if err == nil {
		err = e.layout.IDs().ReleaseOwner(warm.Owner(h.ID))
	}
	if err == nil {
		err = os.RemoveAll(h.Dir)
	}
	if err != nil {
		return fmt.Errorf("clean up after a machine that waited: %w", err)
	}
	return nil
}
