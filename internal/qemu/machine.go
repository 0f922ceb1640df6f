package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Machine is a running QEMU and the guest in it. Its methods may be called from
// any goroutine.
type Machine struct {
	cfg     Config
	running *launch.Running
	pidfd   *os.File
	qmp     *qmp
	agent   *os.File
	console *ring
	stderr  *ring
	binds   []bind        // the host's files that QEMU sees
	done    chan struct{} // closed when QEMU is reaped and its output read

	mu     sync.Mutex
	reason string // of the guest's end, by QEMU's SHUTDOWN event
	filled map[string]string
	set    int        // the next fdset
	boot   []*os.File // copies of kernel and initramfs, until Loaded

	swaps   map[string]*swaps // of disks, by serial; under swapping
	plugged map[int]bool      // slots for network devices; under swapping

	swapping sync.Mutex
	closing  sync.Once
}

// handshake is how long QEMU may take from its execve to its first answer, and
// from there until the guest runs.
const handshake = 2 * time.Minute

// Start starts QEMU, confined, with the guest running in it. An error that says
// which side is at fault is a *Fault. The machine ends with the thread that made
// it, so with the process; Close ends it before and waits.
//
// ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (_ *Machine, err error) {
	cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: a virtual machine is confined by root, and this is another user", workload.ErrUnsupported)
	}
	if cfg.Binary, err = find(cfg.Binary); err != nil {
		return nil, err
	}
	s := &starter{cfg: cfg}
	defer s.release()
	opening := trace.Step(ctx, "kernel and disks opened")
	p, err := s.prepare()
	opening.End()
	if err != nil {
		return nil, err
	}
	executing := trace.Step(ctx, "QEMU confined, executed")
	defer executing.End()
	r, err := p.prog.Run(ctx, launch.Options{Child: p.child})
	if err != nil {
		return nil, startFault(err)
	}
	m := &Machine{
		cfg: cfg, running: r, pidfd: os.NewFile(uintptr(r.Value(p.pidfd)), "pidfd"), console: newRing(), stderr: newRing(),
		done: make(chan struct{}), swaps: map[string]*swaps{}, filled: map[string]string{}, agent: s.take(fdAgent), set: len(cfg.Disks), plugged: map[int]bool{},
		binds: p.in.binds, boot: s.takeBoot(),
	}
	for _, d := range cfg.Disks {
		m.filled[d.Serial] = d.File
	}
	if cfg.RAM != nil {
		defer m.opens(os.NewFile(uintptr(r.Value(p.listener)), "listener"))()
	}
	console, control, stderr := s.take(fdConsole), s.take(fdQMP), s.takeStderr()
	go m.console.follow(console)
	go m.stderr.follow(stderr)
	m.qmp = newQMP(control, m.event)
	go m.reap(stderr, console, control, m.agent)
	status := r.Value(p.status)
	err = launch.Outcome(status, p.prog.Failure)
	unix.Close(status)
	executing.End()
	defer trace.Step(ctx, "QEMU greets").Of("qemu").End()
	if err == nil {
		err = m.begin(ctx)
	} else {
		err = startFault(err)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// begin lets the guest run, or go on.
func (m *Machine) begin(ctx context.Context) error {
	if err := m.greet(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	var err error
	if m.cfg.State != nil {
		err = m.restore(bounded)
	}
	if err == nil && (m.cfg.RAM == nil || !m.cfg.RAM.Shared) { // else the links are saved as they are: up
		err = m.darken(bounded)
	}
	switch {
	case errors.Is(err, ErrGone):
		return m.diedEarly()
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		return &Fault{Who: VMM, Text: fmt.Sprintf("QEMU does not answer within %v", handshake), err: err}
	}
	return err
}

// ErrNotInstalled says that there is no QEMU on this host.
var ErrNotInstalled = fmt.Errorf("%w: QEMU is not installed: install the package qemu-system-x86", workload.ErrUnsupported)

const binaryName = "qemu-system-x86_64"

// find returns the path of QEMU without symbolic links.
func find(name string) (string, error) {
	if name == "" {
		var err error
		if name, err = exec.LookPath(binaryName); err != nil {
			return "", ErrNotInstalled
		}
	}
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("find QEMU: %w", err)
	}
	return filepath.Abs(path)
}

// greet waits for QEMU's first word and checks who speaks.
func (m *Machine) greet(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	err := m.meet(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return &Fault{Who: Host, Text: fmt.Sprintf("QEMU is not ready within %v: there is not enough memory or time for it", handshake), err: err}
	}
	return err
}

func (m *Machine) meet(ctx context.Context) error {
	var v Version
	select {
	case said, ok := <-m.qmp.greeting:
		if !ok {
			return m.diedEarly()
		}
		v = said
	case <-m.done:
		return m.diedEarly()
	case <-ctx.Done():
		return fmt.Errorf("wait for QEMU: %w", ctx.Err())
	}
	if v.before(Oldest) {
		return tooOld(v.String())
	}
	_, err := m.qmp.do(ctx, "qmp_capabilities", nil)
	if errors.Is(err, ErrGone) {
		return m.diedEarly()
	}
	return err
}

func tooOld(v string) error {
	return &Fault{Who: Host, Text: fmt.Sprintf("QEMU %s is too old: version %d.%d or later is needed (package qemu-system-x86)", v, Oldest.Major, Oldest.Minor),
		err: workload.ErrUnsupported}
}

// diedEarly explains a QEMU that ended before the guest ran. One that is too old
// does so because of an option.
func (m *Machine) diedEarly() error {
	select {
	case <-m.done:
	case <-time.After(time.Second):
		m.Kill()
		<-m.done
	}
	if v, ok := askVersion(m.cfg.Binary); ok && v.before(Oldest) {
		return tooOld(v.String())
	}
	f := Diagnose(m)
	return &f
}

// askVersion runs QEMU for its version, which takes tens of milliseconds: for
// the explanation of failures and for doctor.
func askVersion(binary string) (v Version, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return v, false
	}
	n, _ := fmt.Fscanf(bytes.NewReader(out), "QEMU emulator version %d.%d.%d", &v.Major, &v.Minor, &v.Micro)
	return v, n == 3
}

// Present makes sure that there is a QEMU, without running it.
func Present() error {
	_, err := find("")
	return err
}

// Installed returns the path and the version of the host's QEMU. It runs it, so
// it is for reports; Start reads the version from QEMU's greeting.
func Installed() (path string, v Version, err error) {
	if path, err = find(""); err != nil {
		return "", v, err
	}
	v, ok := askVersion(path)
	if !ok {
		return path, v, fmt.Errorf("%s --version says nothing that is understood", path)
	}
	if v.before(Oldest) {
		return path, v, tooOld(v.String())
	}
	return path, v, nil
}

func (m *Machine) event(name string, data json.RawMessage) {
	var d struct {
		Reason, ID string
		Open       bool
	}
	if json.Unmarshal(data, &d) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch name {
	case "SHUTDOWN":
		m.reason = d.Reason
	case "VSERPORT_CHANGE":
		// Nobody opens the port again but an agent that was started again, and
		// nobody does that: whoever waits for this one shall know.
		if d.ID == agentID && !d.Open {
			m.agent.Close()
		}
	}
}

// lastWords is how long the end of standard error may take after that of QEMU.
const lastWords = 2 * time.Second

// reap waits for the end of QEMU and of what it wrote. QEMU's ends of all these
// outlive one that is taken over, when it has sent them to somebody who does not
// read: nobody waits for what only they would end.
func (m *Machine) reap(stderr *os.File, sockets ...*os.File) {
	m.running.Wait() //nolint:errcheck // asked again by Diagnose
	for _, f := range sockets {
		hangUp(f)
	}
	stderr.SetReadDeadline(time.Now().Add(lastWords)) //nolint:errcheck // it may be read and closed
	<-m.console.done
	<-m.stderr.done
	<-m.qmp.done // which has the reason for the end
	close(m.done)
}

// hangUp ends a socket, for who reads it, behind what is in it.
func hangUp(f *os.File) {
	if conn, err := f.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RD) }) //nolint:errcheck // closed is as good
	}
}

// Agent is the host's end of the guest's port bulkhead.agent. Its deadlines
// work. It is closed with the machine, or when the guest has closed its end;
// reading gives io.EOF when QEMU ends.
func (m *Machine) Agent() *os.File { return m.agent }

// Console returns the last 64 KiB that the guest wrote to its serial console.
// They are hostile: see Printable.
func (m *Machine) Console() []byte { return m.console.bytes() }

// Stderr returns the last 64 KiB that QEMU itself wrote; hostile, too.
func (m *Machine) Stderr() []byte { return m.stderr.bytes() }

// Pid is the process ID of QEMU on the host.
func (m *Machine) Pid() int { return m.running.Pid() }

// Done is closed when QEMU has ended, all that it said is read and it is reaped.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Kill ends QEMU at once. It does not wait.
func (m *Machine) Kill() {
	if conn, err := m.pidfd.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }) //nolint:errcheck // gone is as good
	}
}

// Close kills QEMU, waits for its end and closes what belongs to the machine.
// The console can still be read.
func (m *Machine) Close() error {
	m.closing.Do(func() {
		m.Kill()
		<-m.done
		m.qmp.close()
		m.agent.Close()
		m.pidfd.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, f := range m.boot {
			f.Close()
		}
		m.boot = nil
	})
	return nil
}

// Stop pauses the guest's processors, Cont lets them go on.
func (m *Machine) Stop(ctx context.Context) error {
	_, err := m.qmp.do(ctx, "stop", nil)
	return err
}

// Cont undoes Stop.
func (m *Machine) Cont(ctx context.Context) error {
	_, err := m.qmp.do(ctx, "cont", nil)
	return err
}
