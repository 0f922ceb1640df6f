package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// How long a guest may take for what is quick when it is well.
const (
	bootTimeout     = 30 * time.Second
	slowBootTimeout = 4 * time.Minute // under emulation, or where KVM itself may be emulated
	settleTimeout   = 30 * time.Second
	powerOffTimeout = 20 * time.Second
	killTimeout     = 5 * time.Second  // of asking the agent before the machine is ended
	deathTimeout    = 20 * time.Second // of a process to end that was killed
	answerTimeout   = time.Minute      // of everything else that the agent is asked
	createTimeout   = 2 * time.Minute  // of making a workload, which may wait for volumes
	endTimeout      = 3 * time.Second  // from the end of the port to that of the VMM
	trimAfter       = time.Second / 2  // from the start to giving up what only starting needed
)

// errSilent tells that a guest, which may be in anybody's hands, does not
// answer, or not truly.
var errSilent = errors.New("the guest does not answer")

// within calls f, which asks a guest, for a limited time: whoever waits is not
// held up by a guest that says nothing.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w within %v: %w", errSilent, limit, err)
	}
	return err
}

// machine is a running VMM with its guest. It implements boundary.Host.
type machine struct {
	vmm    *qemu.Machine
	sess   *protocol.Session
	cgroup *cgroup.Manager
	notice func(line string) // for the workload's log, or nil

	mu       sync.Mutex
	exchange exchanger // the VMM
	slots    []*slot
	nics     []nicSlot

	processors processors
	clock      clockKeeper

	trimming sync.Once     // by trimLater, or never by untrim
	trim     *time.Timer   // nil without trimLater
	trimmed  chan struct{} // closed when the timer's work is done, or will not be
	stopped  sync.Once
}

var _ boundary.Host = (*machine)(nil)

// config describes the VMM's machine.
func config(s workload.Spec, p boundary.Prepared, dir string, z size) qemu.Config {
	c := qemu.Config{
		Kernel: p.Machine.Kernel, Initramfs: p.Machine.Initramfs,
		CPUs: z.cpus, Memory: z.ram, Accel: qemu.Accel(p.Machine.Accel), TSC: p.Machine.TSC, IDBase: p.IDBase, Dir: dir,
		Machine: qemu.Q35,
		// Nobody in the guest could load a policy of AppArmor or SELinux, and what
		// contains a workload first is the machine.
		Append: []string{"lsm=landlock,lockdown,yama"},
	}
	if s.VM.System { // which may load its own
		c.Append = systemArguments
	}
	if !s.VM.Machine {
		c.Disks = append(c.Disks, qemu.Disk{Serial: "image0", File: p.Machine.Image, ReadOnly: true})
	}
	c.Disks = append(c.Disks, qemu.Disk{Serial: "data", File: p.Machine.Data})
	if s.VM.Machine {
		for n := len(c.Disks); n < qemu.MaxDisks(c.Machine); n++ {
			c.Disks = append(c.Disks, qemu.Disk{Serial: slotName(n), ReadOnly: true})
		}
	}
	c.NICs = nicsOf(s, p)
	// A microvm boots quicker, but has little room.
	if p.Machine.MMIO && !s.VM.Machine && len(c.Disks)+len(c.NICs) <= qemu.MaxDisks(qemu.MicroVM) {
		c.Machine = qemu.MicroVM
	}
	return c
}

// boot starts the VMM and waits for the guest's agent.
func (b Boundary) boot(ctx context.Context, c qemu.Config, cg *cgroup.Manager, notice func(string)) (*machine, error) {
	m, err := start(ctx, c, cg, notice)
	if err != nil {
		return nil, err
	}
	if err := m.greet(ctx, b.bootLimit(c)); err != nil {
		return nil, errors.Join(err, m.kill())
	}
	if err := m.settle(ctx, settleTimeout); err != nil {
		return nil, errors.Join(err, m.kill())
	}
	m.spared(m.vmm.Loaded())
	return m, nil
}

// bootLimit is how long a guest may take until its agent answers.
func (b Boundary) bootLimit(c qemu.Config) time.Duration {
	switch {
	case b.BootTimeout != 0:
		return b.BootTimeout
	case c.Accel == qemu.TCG || qemu.Nested():
		return slowBootTimeout
	}
	return bootTimeout
}

// start starts the VMM in its cgroup.
func start(ctx context.Context, c qemu.Config, cg *cgroup.Manager, notice func(string)) (*machine, error) {
	c.Cgroup = cg
	vmm, err := qemu.Start(ctx, c)
	if err != nil {
		if starved(cg) {
			err = errStarved(err)
		}
		return nil, err
	}
	m := &machine{vmm: vmm, exchange: vmm, cgroup: cg, notice: notice, processors: processors{stop: vmm.Stop, cont: vmm.Cont}}
	for _, d := range c.Disks {
		if d.File == "" {
			m.slots = append(m.slots, &slot{serial: d.Serial})
		}
	}
	for _, n := range c.NICs {
		m.nics = append(m.nics, nicSlot{device: n.MAC, taken: n.Kind != qemu.Slot})
	}
	return m, nil
}

// greet waits for the agent.
func (m *machine) greet(ctx context.Context, limit time.Duration) error {
	bctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	booting := trace.Step(ctx, "kernel boots, agent answers").Of("guest")
	var err error
	m.sess, err = protocol.Host(bctx, m.vmm.Agent())
	booting.End()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return m.fault(err)
	}
	return nil
}

// settle gives the guest the time and randomness that it must not start a
// workload without.
func (m *machine) settle(ctx context.Context, limit time.Duration) error {
	defer trace.Step(ctx, "seed and clock set").End()
	gctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := clientOf(m)
	seed := make([]byte, 256)
	rand.Read(seed)
	clock := make(chan error, 1) // at the same time: neither needs the other
	go func() { clock <- c.SetClock(gctx, time.Now()) }()
	if err := c.Reseed(gctx, seed); err != nil {
		return fmt.Errorf("seed the guest's random generator: %w", m.fault(err))
	}
	if err := <-clock; err != nil {
		return fmt.Errorf("set the guest's clock: %w", m.fault(err))
	}
	return nil
}

// fault says whose fault err is, when a guest does not do what it should.
func (m *machine) fault(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, protocol.ErrProtocol) {
		// The end of the port is seen before that of the VMM, which tells more.
		select {
		case <-m.vmm.Done():
		case <-time.After(endTimeout):
		}
	}
	if starved(m.cgroup) {
		return errStarved(err)
	}
	f := qemu.Diagnose(m.vmm)
	if text := m.against(err); text != "" && !f.Panic {
		f.Who, f.Text = qemu.Agent, text
	}
	return &fault{f, err}
}

// ended is fault where err comes of the end of the machine, or of a host that has not
// what it takes. What a machine that runs does not do is no fault of its guest.
func (m *machine) ended(err error) error {
	if errors.Is(err, qemu.ErrGone) { // of the control socket, which ends first
		select {
		case <-m.vmm.Done():
		case <-time.After(endTimeout):
		}
	}
	select {
	case <-m.vmm.Done():
		return m.fault(err)
	default:
	}
	if starved(m.cgroup) {
		return errStarved(err)
	}
	return err
}

// starved tells whether the host killed something in a machine's cgroup for want of
// memory.
func starved(cg *cgroup.Manager) bool {
	killed, err := cg.OOMKilled()
	return err == nil && killed
}

// errStarved says so. Cgroups above the machine's may allow less than its own does.
func errStarved(err error) error {
	return &fault{qemu.Fault{Who: qemu.Host, Text: "the machine was killed for want of memory: it took more than the host, or a cgroup of it, allows"}, err}
}

// against is what an agent that has spoken did wrong, in a guest that runs.
func (m *machine) against(err error) string {
	select {
	case <-m.vmm.Done():
		return ""
	default:
	}
	switch {
	case errors.Is(err, protocol.ErrProtocol), errors.Is(err, protocol.ErrVersion):
		return "the guest's agent does not speak as it should: " + qemu.Printable([]byte(err.Error()))
	case m.sess != nil:
		return "the guest's agent does not answer any more"
	}
	return ""
}

// fault is what is known about a guest that did not do what it should.
type fault struct {
	qemu.Fault
	err error
}

// Error says who is at fault, and shows what the guest and the VMM wrote last.
func (f *fault) Error() string {
	text := f.Fault.Error()
	for _, part := range []struct {
		name  string
		lines []string
	}{{"the guest's console", f.Console}, {"QEMU", f.Stderr}} {
		if len(part.lines) > 0 {
			text += "\n  last lines of " + part.name + ":\n    " + strings.Join(part.lines, "\n    ")
		}
	}
	return text
}

func (f *fault) Unwrap() []error { return []error{&f.Fault, f.err} }

// spared tells of memory that was not given back, which is no reason to end a
// machine that runs.
func (m *machine) spared(err error) {
	if err != nil && m.notice != nil {
		m.notice("the machine keeps memory of the host that it does not need: " + err.Error())
	}
}

// started begins what goes on beside a workload that runs.
func (m *machine) started() {
	m.trimLater()
	m.keepClock()
}

// trimLater gives memory of the VMM back, once, a moment after the start: what
// ends sooner shall not pay for it.
func (m *machine) trimLater() {
	m.trimming.Do(func() {
		m.trimmed = make(chan struct{})
		m.trim = time.AfterFunc(trimAfter, func() {
			defer close(m.trimmed)
			m.spared(m.vmm.Trim())
		})
	})
}

// untrim makes sure that trimLater does nothing any more.
func (m *machine) untrim() {
	m.trimming.Do(func() {})
	m.stopped.Do(func() {
		if m.trim != nil && m.trim.Stop() {
			close(m.trimmed)
		}
	})
	if m.trim != nil {
		<-m.trimmed
	}
}

// Dial opens a stream to the agent. A guest that gives none of them back, so that
// there is no number left, is waited for no longer than one that does not answer.
func (m *machine) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	var s *protocol.Stream
	err := within(ctx, answerTimeout, func(ctx context.Context) (err error) {
		s, err = m.sess.Open(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", client.ErrGuestLost, err)
	}
	return s, nil
}

// powerOff lets the guest write its disk back and end, for a limited time.
func (m *machine) powerOff(ctx context.Context) {
	if m.sess == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, powerOffTimeout)
	defer cancel()
	if _, err := m.processors.release(ctx); err != nil {
		return
	}
	if clientOf(m).PowerOff(ctx) != nil {
		return
	}
	select {
	case <-m.vmm.Done():
	case <-ctx.Done():
	}
}

// kill ends the VMM, and returns when it is gone.
func (m *machine) kill() error {
	m.untrim()
	err := m.vmm.Close()
	m.leaveClock()
	if m.sess != nil {
		m.sess.Close()
	}
	return err
}
