package comparing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
)

// servedPort is where a workload serves throughput.
const servedPort = "7777"

// tool is a program with the command line of Docker: ours, Docker, Podman.
type tool struct {
	ordinary
	program []string // with its global flags
	flags   []string // of run
	id      string   // of the comparison, which workloads have as a label
	image   string
	others  []string // names of daemons
}

func (t *tool) args(args ...string) []string { return slices.Concat(t.program, args) }

// running is a command line of run.
func (t *tool) running(how []string, program []string) []string {
	return slices.Concat(t.begin("run"), how, t.flags, []string{"--entrypoint", program[0], t.image}, program[1:])
}

// begin is how command lines begin that make a workload.
func (t *tool) begin(command string) []string {
	return slices.Concat(t.program, []string{command, "--label", Label + "=" + t.id})
}

func (t *tool) command(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	return prepared(ctx, t.running([]string{"--rm", "-i", "--name", name}, program)...), nil
}

func (t *tool) limited(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	with := *t
	with.flags = slices.Concat(t.flags, neighbourLimits) // the last of two flags holds
	return with.command(ctx, name, program)
}

// ended: a program may ignore that its command was told to end, and go on without it.
func (t *tool) ended(ctx context.Context, name string, err error) error {
	if err == nil || errors.Is(err, errSilent) {
		return nil // --rm has removed it
	}
	return t.clearRun(ctx, name)
}

// greet runs a program that says something, with the flags of all that is measured:
// templates are made for those.
func (t *tool) greet(ctx context.Context) error { return greet(ctx, t) }

func (t *tool) detach(ctx context.Context, name string, program []string, ports bool) (string, error) {
	how := []string{"-d", "--name", name}
	if ports {
		how = append(how, "-p", "127.0.0.1::"+servedPort)
	}
	out, err := output(ctx, t.running(how, program)...)
	return short(out), err
}

// short is the beginning of an ID, which all that serves a workload has in its
// command line.
func short(id string) string {
	const digits = 12
	id = strings.TrimSpace(id)
	return id[:min(len(id), digits)]
}

func (t *tool) enter(ctx context.Context, name string, program []string) (string, error) {
	return output(ctx, t.args(append([]string{"exec", name}, program...)...)...)
}

func (t *tool) remove(ctx context.Context, names ...string) error {
	var errs []error
	for some := range slices.Chunk(names, 50) {
		_, err := output(ctx, t.args(append([]string{"rm", "-f", "-v"}, some...)...)...) // -v: the image may have volumes
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (t *tool) address(ctx context.Context, name string) (string, error) {
	out, err := output(ctx, t.args("port", name, servedPort)...)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if !strings.HasPrefix(line, "127.0.0.1:") {
		return "", fmt.Errorf("port %s is published at %q", servedPort, line)
	}
	return line, nil
}

func (t *tool) shared() string    { return "" }
func (t *tool) daemons() []string { return t.others }

// oursDriver is a way of this program's.
type oursDriver struct {
	tool
	machine bool // its image is one disk, and there is a kernel beside it
	often   int  // starts of each kind before anything is measured, so that templates are there
	made    *made
}

func (o *oursDriver) setUp(ctx context.Context, m *made) error {
	o.image, o.made = m.ours, m
	for range max(o.often, 1) {
		if err := o.greet(ctx); err != nil {
			return err
		}
	}
	for range o.often {
		if err := o.idle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// idle starts a workload as memory and networks are measured with, and removes it:
// templates of an image are for workloads that stay, or that have an input, apart.
func (o *oursDriver) idle(ctx context.Context) error {
	name := newName("idle")
	if _, err := o.detach(ctx, name, idle, false); err != nil {
		return err
	}
	return o.remove(context.WithoutCancel(ctx), name)
}

func (o *oursDriver) tearDown(context.Context) error { return nil }

// size is all that lies in our store for the image. The layer that measures is in it
// once, as in other ways, however often it lies there.
func (o *oursDriver) size(ctx context.Context) (total int64, err error) {
	im, err := o.made.images.Inspect(o.made.ours)
	if err != nil {
		return 0, err
	}
	chain, err := o.made.images.Layers(ctx, im)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, chain.Release()) }()
	total = im.Size - im.Layers[len(im.Layers)-1].Size
	for _, dir := range chain.Dirs {
		n, err := diskUsage(dir)
		if err != nil {
			return 0, err
		}
		total += n
	}
	if o.machine {
		total += im.VMDisk - o.made.added
	}
	return total, nil
}

// holds says what size counts.
func (o *oursDriver) holds() string {
	if o.machine {
		return "the layers as they came, unpacked, and as a disk; "
	}
	return "the layers as they came, and unpacked; "
}

// tenant is a workload in a tenant's machine, which is made for it.
type tenant struct {
	oursDriver
	name, id string
	asked    bool
	down     error // why its machine does not stand
	inspect  func(ctx context.Context, name string) (*engine.Record, error)
}

func (t *tenant) setUp(ctx context.Context, m *made) error {
	t.asked = true
	if _, err := output(ctx, t.args("tenant", "create", t.name)...); err != nil {
		return err
	}
	rec, err := t.inspect(ctx, t.name)
	if err != nil {
		return err
	}
	t.id = short(string(rec.Spec.ID))
	return t.oursDriver.setUp(ctx, m)
}

// stand starts the machine, and one workload, as the first in a machine finds nothing
// that was read before.
func (t *tenant) stand(ctx context.Context) {
	if _, t.down = output(ctx, t.args("tenant", "start", t.name)...); t.down == nil {
		t.down = t.greet(ctx)
	}
}

func (t *tenant) rest(ctx context.Context) error {
	if t.id == "" {
		return nil
	}
	_, err := output(ctx, t.args("tenant", "stop", t.name)...)
	return err
}

func (t *tenant) command(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	if t.down != nil {
		return nil, t.down
	}
	return t.oursDriver.command(ctx, name, program)
}

func (t *tenant) limited(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	if t.down != nil {
		return nil, t.down
	}
	return t.oursDriver.limited(ctx, name, program)
}

func (t *tenant) detach(ctx context.Context, name string, program []string, ports bool) (string, error) {
	if t.down != nil {
		return "", t.down
	}
	return t.oursDriver.detach(ctx, name, program, ports)
}

func (t *tenant) tearDown(ctx context.Context) error {
	if !t.asked {
		return nil
	}
	_, err := output(ctx, t.args("tenant", "rm", "-f", t.name)...)
	return err
}

func (t *tenant) shared() string { return t.id }

// peer is an engine of others.
type peer struct {
	tool
	loaded bool
}

// peers are all of them, for a comparison.
func peers(id string) []*peer {
	return []*peer{
		{tool: tool{program: []string{"docker"}, id: id, others: []string{"dockerd", "containerd"}}},
		{tool: tool{program: []string{"podman"}, id: id}},
	}
}

// marker is a file in the directory of a comparison that says that the engine may
// have something of it.
func (p *peer) marker(dir string) string { return filepath.Join(dir, p.program[0]+".used") }

func (p *peer) setUp(ctx context.Context, m *made) error {
	if _, err := exec.LookPath(p.program[0]); err != nil {
		return errNone("not installed")
	}
	if _, err := output(ctx, p.args("info")...); err != nil {
		return fmt.Errorf("installed, but it does not answer: %w", err)
	}
	saved, err := m.archive(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.marker(m.dir), nil, 0o600); err != nil {
		return err
	}
	p.image, p.loaded = m.foreign, true
	if _, err := output(ctx, p.args("load", "-i", saved)...); err != nil {
		return err
	}
	return p.greet(ctx)
}

func (p *peer) tearDown(ctx context.Context) error {
	if !p.loaded {
		return nil
	}
	return errors.Join(p.sweep(ctx), p.untag(ctx))
}

func (p *peer) size(ctx context.Context) (int64, error) {
	out, err := output(ctx, p.args("image", "inspect", "--format", "{{.Size}}", p.image)...)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(out), 10, 64)
}
