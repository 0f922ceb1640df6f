package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// probeProgram runs in the workload.
const probeProgram = "bulkhead-probe"

// probeTimeout is how long a workload has for its answer, by default.
const probeTimeout = 2 * time.Minute

// probeFlags are the flags of probe that run does not have.
type probeFlags struct {
	json, verbose, all bool
	diff, html         string
	timeout            time.Duration
	targets            []string
	gate               gateFlags
}

func (a *app) probeCommand() *cobra.Command {
	var o runspec.Options
	var f probeFlags
	cmd := &cobra.Command{
		Use:   "probe [flags] IMAGE",
		Short: "Find out which doors to the host stand open in a workload",
		Long: `Probe starts a workload from an image, as run does with the same flags, with a
program in it that tries the doors to the host and changes nothing. What it saw
is judged outside, and checked against what the host itself sees: a workload
that lies, falls silent or floods is unknown, which is no pass.

With --all it looks behind every boundary that works here, a tenant's machine
included, and shows a table.

It exits with 0 if every door is shut, 2 if one is open, 3 if none is known to
be open and something is unknown, and 4 when it fails itself. With --severity
only findings of that severity and worse count, and with --waivers those that
somebody has accepted do not; all are shown.`,
		Example: `  bulkhead probe alpine
  bulkhead probe --all alpine
  bulkhead probe --all --html report.html alpine
  bulkhead probe --json --pid host --cap-add SYS_PTRACE alpine > before.json
  bulkhead probe --diff before.json --pid host alpine`,
		Args:              needs(1, 1, "an image"),
		Annotations:       map[string]string{looksAtBoundary: "1"},
		ValidArgsFunction: a.completeImageThenNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.probe(cmd, &o, f, args[0]) },
	}
	fs := cmd.Flags()
	o.AddFlags(fs)
	for _, name := range notForProbe {
		fs.Lookup(name).Hidden = true
	}
	fs.BoolVar(&f.json, "json", false, "write the report as JSON, for --diff and programs")
	fs.BoolVar(&f.verbose, "verbose", false, "show everything that was tried, and what came of it")
	fs.BoolVar(&f.all, "all", false, "look behind every boundary that works here, and show a table")
	fs.StringVar(&f.diff, "diff", "", "show what changed since an earlier run, from a `file` that --json wrote")
	fs.DurationVar(&f.timeout, "timeout", probeTimeout, "`time` that the workload has for its answer")
	fs.StringArrayVar(&f.targets, "target", nil, "an `ADDRESS:PORT` that the workload must not reach, such as 169.254.169.254:80; may be given again")
	f.gate.add(cmd, fs)
	htmlFlag(cmd, &f.html)
	a.completeRunFlags(cmd)
	return cmd
}

// notForProbe are flags of run that say what the workload's own program is, or how
// a person is connected to it.
var notForProbe = []string{
	"tty", "interactive", "entrypoint", "rm", "restart", "systemd", "privileged", "health-cmd", "health-interval", "health-retries",
	"health-start-interval", "health-start-period", "health-timeout", "no-healthcheck", "log-driver", "log-opt", "name", "workdir",
	"stop-signal", "stop-timeout", "init", "seccomp-report",
}

// prober is one run of the command.
type prober struct {
	a       *app
	e       *engine.Engine
	f       probeFlags
	program string // that runs in workloads
	image   string
	recheck string           // the command line, for reports
	earlier *report.Document // of --diff, nil without
	gate    gate
	scratch *scratch.Dir
}

// probed is one workload that is looked at.
type probed struct {
	label string // how --all calls it
	req   *runspec.Request
}

func (a *app) probe(cmd *cobra.Command, o *runspec.Options, f probeFlags, image string) error {
	if err := checkProbeFlags(cmd, o, f); err != nil {
		return err
	}
	p := &prober{a: a, f: f, image: image, recheck: recheck(cmd, image)}
	var err error
	if p.gate, err = f.gate.read(); err != nil {
		return err
	}
	if p.earlier, err = readEarlier(f.diff); err != nil {
		return err
	}
	if p.program, err = findProgram(probeProgram); err != nil {
		return err
	}
	o.EntrypointSet = true
	var one *runspec.Request
	if !f.all {
		if one, err = o.Check(a.host, probing.Command()); err != nil {
			return err
		}
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		p.e = e
		d, err := p.look(ctx, func() (*report.Document, error) {
			if f.all {
				return p.all(ctx, o)
			}
			return p.gather(ctx, []probed{{req: one}})
		})
		if err != nil {
			return err
		}
		if p.earlier != nil {
			d.Changes = report.Diff(p.earlier, d)
		}
		p.gate.apply(d)
		return p.print(d)
	})
}

// checkProbeFlags refuses what contradicts a prober.
func checkProbeFlags(cmd *cobra.Command, o *runspec.Options, f probeFlags) error {
	for _, name := range notForProbe {
		if cmd.Flags().Changed(name) {
			return advice.New(fmt.Sprintf("--%s has no meaning for probe, whose program runs in the workload", name), "leave it out")
		}
	}
	if f.timeout <= 0 {
		return advice.New(fmt.Sprintf("--timeout %v: no time at all", f.timeout), "give a time such as 2m")
	}
	if f.all && (o.Boundary != "" || o.Runtime != "" || o.VM.Tenant != "") {
		return advice.New("--all looks behind every boundary", "leave out --boundary, --runtime and --tenant, or --all")
	}
	return checkPage(f.html)
}

// readEarlier reads the file of --diff, nil for none.
func readEarlier(name string) (*report.Document, error) {
	if name == "" {
		return nil, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, advice.Wrap(err, fmt.Sprintf("--diff %s: %v", name, errors.Unwrap(err)), "give a file that `bulkhead probe --json` wrote")
	}
	defer file.Close()
	d, err := report.Decode(file)
	if err != nil || d.Kind != report.Probe {
		return nil, advice.Wrap(err, fmt.Sprintf("--diff %s: not a report of this version's probe", name), "give a file that `bulkhead probe --json` wrote")
	}
	return d, nil
}

// recheck is the command line that was given, for a report, to be copied.
func recheck(cmd *cobra.Command, image string) string {
	words := append([]string{"bulkhead", "probe"}, flagWords(cmd.Flags(), func(name string) bool { return !slices.Contains(notForRecheck, name) })...)
	return safetext.Command(append(words, image))
}

// notForRecheck are flags that do not change what is found.
var notForRecheck = []string{"json", "verbose", "all", "diff", "timeout", "severity", "waivers", "html"}

// flagWords are the flags that were given and are wanted, as words of a command line.
func flagWords(fs *pflag.FlagSet, wanted func(name string) bool) (words []string) {
	fs.Visit(func(f *pflag.Flag) {
		if !wanted(f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		for _, v := range values {
			switch {
			case f.NoOptDefVal == "":
				words = append(words, "--"+f.Name, v)
			case f.NoOptDefVal == v:
				words = append(words, "--"+f.Name)
			default: // such as --read-only=false
				words = append(words, "--"+f.Name+"="+v)
			}
		}
	})
	return words
}

// look looks at workloads, with a directory for what it makes. Nothing is left when
// it returns: writing to a closed pipe ends this program.
func (p *prober) look(ctx context.Context, f func() (*report.Document, error)) (d *report.Document, err error) {
	root, _, err := p.a.roots()
	if err != nil {
		return nil, err
	}
	own, stale, err := scratch.Open(scratch.Below(root, "probe"))
	if err != nil {
		return nil, fmt.Errorf("make a directory for the probe: %w", err)
	}
	p.scratch = own
	probing.Sweep(ctx, p.e, stale, p.a.warn)
	d, err = f()
	if err != nil {
		probing.Sweep(context.WithoutCancel(ctx), p.e, []*scratch.Dir{own}, p.a.warn)
		return nil, err
	}
	return d, own.Remove()
}

// gather looks at workloads one after the other.
func (p *prober) gather(ctx context.Context, these []probed) (d *report.Document, err error) {
	host, err := probe.LocalHost()
	if err != nil {
		return nil, err
	}
	canaries, err := probing.PutUp(p.scratch.Path)
	if err != nil {
		return nil, fmt.Errorf("put up what the workload must not find: %w", err)
	}
	defer func() { err = errors.Join(err, canaries.TakeDown()) }()
	canaries.Targets.Addresses = p.f.targets
	d = &report.Document{Format: report.Format, Kind: report.Probe, Tool: "bulkhead " + version, Time: time.Now().UTC().Truncate(time.Second)}
	for _, one := range these {
		r, err := p.lookAt(ctx, one, probing.Options{Program: p.program, Timeout: p.f.timeout, Targets: canaries.Targets, Host: host, Recheck: p.recheck, Labels: map[string]string{probing.Label: p.scratch.ID}})
		if err != nil {
			if !p.f.all || ctx.Err() != nil {
				return nil, err
			}
			r = probe.Judge(probe.NewContext(host, nil), nil, "the workload could not be started: "+safetext.Line(err.Error()))
		}
		if one.label != "" {
			r.Subject.Label = one.label
		}
		d.Reports = append(d.Reports, r)
	}
	return d, nil
}

func (p *prober) lookAt(ctx context.Context, one probed, o probing.Options) (report.Report, error) {
	if err := p.a.volumesFrom(ctx, p.e, one.req); err != nil {
		return report.Report{}, err
	}
	spec, err := p.a.specify(ctx, one.req, true, p.image)
	if err != nil {
		return report.Report{}, err
	}
	return probing.Run(ctx, p.e, spec, o)
}

// all looks behind every boundary that works, and in a tenant's machine where
// machines do: one that is made for it.
func (p *prober) all(ctx context.Context, o *runspec.Options) (_ *report.Document, err error) {
	var these []probed
	add := func(label, boundary, tenant string) error {
		one := *o
		one.Boundary, one.VM.Tenant = boundary, tenant
		req, err := one.Check(p.a.host, probing.Command())
		if err != nil {
			return fmt.Errorf("behind %s: %w", label, err)
		}
		these = append(these, probed{label, req})
		return nil
	}
	machines := false
	for _, b := range p.a.boundaries {
		if b.Name() == workload.BoundaryRuntime {
			continue // which runtime, only --runtime says
		}
		if err := b.Check(ctx); err != nil {
			p.a.warn(fmt.Sprintf("boundary %s does not work here and is left out: %v", b.Name(), err))
			continue
		}
		machines = machines || b.Name() == "vm"
		if err := add(b.Name(), b.Name(), ""); err != nil {
			return nil, err
		}
	}
	if machines {
		tenant := probing.TenantName(p.scratch.ID)
		if err := add("tenant", "vm", tenant); err != nil {
			return nil, err
		}
		if err := p.makeTenant(ctx, tenant); err != nil {
			return nil, fmt.Errorf("make a tenant to look at: %w", err)
		}
		defer func() { err = errors.Join(err, p.e.RemoveTenant(context.WithoutCancel(ctx), tenant, true)) }()
	}
	return p.gather(ctx, these)
}

// makeTenant starts a machine as `bulkhead tenant create` does without flags.
func (p *prober) makeTenant(ctx context.Context, tenant string) error {
	spec, err := runspec.Machine(p.a.host, &runspec.VMFlags{}, &runspec.ResourceFlags{PidsLimit: runspec.DefaultPids}, nil)
	if err != nil {
		return err
	}
	spec.Name = engine.TenantName(tenant)
	_, err = p.e.Run(ctx, spec, nil)
	return err
}

// print writes a document and turns it into the exit code.
func (p *prober) print(d *report.Document) error {
	err := p.a.writeReport(d, p.f.html, p.f.json, func(w io.Writer) error {
		text := func() error { return d.Reports[0].Text(w, p.f.verbose) }
		if p.f.all {
			text = func() error { return d.Matrix(w, p.f.verbose) }
		}
		if err := text(); err != nil {
			return err
		}
		if p.earlier != nil {
			if err := d.TextChanges(w, p.earlier.Time); err != nil {
				return err
			}
		}
		return d.TextNotes(w)
	})
	if err != nil {
		return err
	}
	if code := d.ExitCode(); code != report.ExitHeld {
		return exitStatus(code)
	}
	return nil
}
