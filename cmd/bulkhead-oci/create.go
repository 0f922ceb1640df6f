package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/hook"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/ocispec"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/fdpass"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
)

// cgroupBase is where containers without a cgroupsPath of their own, or with a
// relative one, have their cgroups.
const cgroupBase = "/bulkhead-oci"

// creation is one container in the making.
type creation struct {
	*command
	entry  *entry
	box    *box
	text   []byte // of the configuration
	bundle string
	// attached: this command stays with the container until it ends.
	attached bool
	hooked   bool // hooks have heard of the container
}

// prepareCreate reads the bundle and checks what the command line asks for,
// before anything is made.
func (c *command) prepareCreate(attached bool) (*creation, error) {
	if err := checkUser(os.Geteuid()); err != nil {
		return nil, err
	}
	if c.flags.on("no-pivot") {
		c.log.Debugf("--no-pivot: the root is changed with pivot_root all the same, without it the host's stays reachable")
	}
	bundle, err := filepath.Abs(c.flags.last("bundle", "."))
	if err != nil {
		return nil, err
	}
	spec, text, err := ocispec.Load(bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, errors.New("process: missing from the configuration, there is nothing to run")
	}
	if err := c.checkConsole(spec.Process.Terminal, attached); err != nil {
		return nil, err
	}
	if err := sealFor(spec); err != nil {
		return nil, err
	}
	rootfs := spec.Root.Path
	if !filepath.IsAbs(rootfs) {
		rootfs = filepath.Join(bundle, rootfs)
	}
	b := &box{spec: spec, record: record{
		Version: spec.Version, ID: c.id(), Bundle: bundle, Rootfs: filepath.Clean(rootfs),
		Created: time.Now().UTC(), Owner: os.Getuid(), NoNewKeyring: c.flags.on("no-new-keyring"),
	}}
	return &creation{command: c, box: b, text: text, bundle: bundle, attached: attached}, nil
}

// checkUser refuses ordinary users: the mount tree of a container is made in a
// mount namespace of the host's user namespace, whatever --rootless says.
func checkUser(euid int) error {
	if euid != 0 {
		return fmt.Errorf("user %d cannot make containers: this runtime needs root; a container can have a user namespace of its own", euid)
	}
	return nil
}

// checkConsole: a terminal belongs to this command while it is attached, and
// otherwise to whoever listens at the console socket.
func (c *command) checkConsole(terminal, attached bool) error {
	socket := c.flags.last("console-socket", "") != ""
	switch {
	case terminal && !attached && !socket:
		return errors.New("a terminal needs --console-socket when the command does not stay with the process")
	case socket && !terminal:
		return errors.New("--console-socket needs process.terminal to be true")
	case socket && attached:
		return errors.New("--console-socket needs --detach")
	}
	return nil
}

// create makes the container up to the start of its program. On error nothing
// is left behind, but what undo cannot remove.
func (c *creation) create() (err error) {
	sockets, err := listening()
	if err != nil {
		return err
	}
	preserve, err := c.preserved(sockets)
	if err != nil {
		return err
	}
	if c.entry, err = c.store.create(c.ctx, c.id()); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.undo()
		}
	}()
	m, err := c.newCgroup()
	if err != nil {
		return err
	}
	c.box.Cgroup = m.Path()
	if err := c.entry.keepConfig(c.text); err != nil {
		return err
	}
	if err := c.entry.save(&c.box.record); err != nil {
		return err
	}
	c.warnCapabilities(c.box.spec.Process.Capabilities)
	if err := createCgroup(m); err != nil {
		return err
	}
	c.box.CgroupMade = true
	if err := c.entry.save(&c.box.record); err != nil {
		return err
	}
	for _, note := range m.Notes() {
		c.log.Warnf("%s", note)
	}
	cfg := container.Config{
		ID: c.id(), Dir: c.entry.dir, Bundle: c.bundle, Spec: withListening(c.box.spec, sockets), Cgroup: m, PreserveFDs: preserve,
		NoNewKeyring: c.box.NoNewKeyring, Detached: !c.attached,
		Hooks: c.hooks(), Listener: c.seccompListener,
	}
	if !c.box.spec.Process.Terminal {
		cfg.Stdio = [3]*os.File{c.stdin, c.stdout, c.stderr}
	}
	c.debugSeccomp(c.box.spec.Linux.Seccomp)
	c.log.Debugf("create container %s from %s in cgroup %s", c.id(), c.bundle, c.box.Cgroup)
	if c.box.made, err = container.Create(c.ctx, cfg); err != nil {
		return err
	}
	c.log.Debugf("process %d waits to be started", c.box.made.Pid)
	return c.handOut()
}

// handOut tells whoever asked for it of the new process: its ID, a descriptor
// of it, its terminal.
func (c *creation) handOut() error {
	made := c.box.made
	if err := writePidFile(c.flags.last("pid-file", ""), made.Pid); err != nil {
		return err
	}
	if err := sendPidfd(c.flags.last("pidfd-socket", ""), made.Pid); err != nil {
		return err
	}
	if socket := c.flags.last("console-socket", ""); socket != "" {
		defer made.Terminal.Close()
		return sendTerminal(socket, made.Terminal)
	}
	return nil
}

func sendTerminal(socket string, f *os.File) error {
	if err := fdpass.Send(socket, []byte("/dev/ptmx"), f); err != nil {
		return fmt.Errorf("hand over the terminal: %w", err)
	}
	return nil
}

// writePidFile writes a process ID as decimal digits. The file appears whole.
func writePidFile(name string, pid int) error {
	if name == "" {
		return nil
	}
	if err := writeAtomically(name, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	return nil
}

func sendPidfd(socket string, pid int) error {
	if socket == "" {
		return nil
	}
	f, err := pidfd.Open(pid)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fdpass.Send(socket, []byte("pidfd"), f); err != nil {
		return fmt.Errorf("hand over the pidfd: %w", err)
	}
	return nil
}

// newCgroup computes the container's cgroup.
func (c *creation) newCgroup() (*cgroup.Manager, error) {
	l := c.box.spec.Linux
	path, o := l.CgroupsPath, cgroup.Options{Base: cgroupBase}
	o.Systemd = c.global.on("systemd-cgroup") || c.global.last("cgroup-manager", "") == "systemd"
	if path == "" {
		if path = c.id(); o.Systemd {
			path = "system.slice:bulkhead:" + c.id()
		}
	}
	m, err := cgroup.New(path, withDefaultDevices(l.Resources), o)
	if err != nil {
		return nil, fmt.Errorf("linux.resources: invalid configuration for this machine: %w", err)
	}
	return m, nil
}

// withDefaultDevices completes the device rules: no device is open but those that
// the configuration's rules say, and those that every container has
// (config-linux.md, default devices), which are in any case.
func withDefaultDevices(r *specs.LinuxResources) *specs.LinuxResources {
	var out specs.LinuxResources
	if r != nil {
		out = *r
	}
	defaults := container.DefaultDeviceRules()
	out.Devices = slices.Concat(defaults[:1], out.Devices, defaults[1:]) // the first closes all
	return &out
}

// createCgroup makes the cgroup. A cgroup in use would mix up two containers.
func createCgroup(m *cgroup.Manager) error {
	err := m.Create()
	switch {
	case errors.Is(err, cgroup.ErrPopulated):
		return fmt.Errorf("container's cgroup is not empty: %w", err)
	case errors.Is(err, cgroup.ErrFrozen):
		return fmt.Errorf("container's cgroup unexpectedly frozen: %w", err)
	}
	return err
}

// hooks returns what runs the configuration's hooks of a stage of creation.
func (c *creation) hooks() func(container.HookStage, int) error {
	h := c.box.spec.Hooks
	if h == nil {
		return nil
	}
	return func(stage container.HookStage, pid int) error {
		c.hooked = true
		state := func() specs.State { return c.box.hookState(specs.StateCreating, pid, c.box.spec) }
		if stage == container.CreateContainer {
			// The root is in its place, not yet the root: hooks find it at their feet.
			inside, err := pidInside(pid)
			if err != nil {
				return err
			}
			pid = inside
			return hook.RunIn(c.ctx, hook.CreateContainer, h.CreateContainer, state, hook.OnHost(c.box.Rootfs))
		}
		if err := hook.Run(c.ctx, hook.Prestart, h.Prestart, state); err != nil { //nolint:staticcheck // deprecated, not gone
			return err
		}
		return hook.Run(c.ctx, hook.CreateRuntime, h.CreateRuntime, state)
	}
}

// debugSeccomp logs what the filter will be installed with.
func (c *command) debugSeccomp(s *specs.LinuxSeccomp) {
	if s == nil || !c.log.debug {
		return
	}
	if f, err := seccomp.Compile(s); err == nil { // creation reports the error
		c.log.Debugf("seccomp filter of %d instructions", len(f.Insns))
		c.log.Debugf("seccomp filter flags: %d", f.Flags)
	}
}

// seccompListener sends the descriptor that a filter's notifications come from
// to the agent that the configuration names (config-linux.md, seccomp).
func (c *creation) seccompListener(f *os.File, pid int) error {
	defer f.Close()
	return sendSeccomp(c.box, f, pid, specs.StateCreating)
}

func sendSeccomp(b *box, f *os.File, pid int, st specs.ContainerState) error {
	s := b.spec.Linux.Seccomp
	if s == nil || s.ListenerPath == "" {
		return errors.New("linux.seccomp.listenerPath: missing, nobody would answer the filter's notifications")
	}
	container := b.pid(specs.StateRunning)
	if container == 0 {
		container = pid
	}
	text, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.ListenerMetadata,
		State: b.hookState(st, container, b.spec),
	})
	if err != nil {
		return err
	}
	if err := fdpass.Send(s.ListenerPath, text, f); err != nil {
		return fmt.Errorf("hand over the seccomp listener: %w", err)
	}
	return nil
}

// undo removes what a failed create made, and has hooks do so that may have made
// something. Its own failure is logged: the error that led here says more. A
// container that could not be ended stays known, for delete to try again.
func (c *creation) undo() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), endTime)
	defer cancel()
	if c.box.made != nil && c.box.made.Terminal != nil {
		c.box.made.Terminal.Close()
	}
	if !c.box.CgroupMade {
		c.box.Cgroup = "" // making it failed and left what was there before
	}
	err := c.box.end(ctx)
	c.box.Close()
	defer c.entry.Close()
	if err != nil {
		c.log.Warnf("clean up after a failed create: %v; delete container %s to try again", err, c.id())
		return
	}
	if err := c.entry.remove(); err != nil {
		c.log.Warnf("clean up after a failed create: %v", err)
	}
	if c.hooked {
		c.poststop(c.box)
	}
}

func runCreate(c *command) (int, error) {
	n, err := c.prepareCreate(false)
	if err != nil {
		return 0, err
	}
	if err := n.create(); err != nil {
		return 0, err
	}
	n.box.Close()
	n.entry.Close()
	return 0, nil
}
