package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// probeProgram runs in the workload.
const probeProgram = "bulkhead-probe"

// probeFlags are the flags of probe that run does not have.
type probeFlags struct {
	json, verbose, all bool
	diff               string
	timeout            time.Duration
	targets            []string
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
be open and something is unknown, and 4 when it fails itself.`,
		Example: `  bulkhead probe alpine
  bulkhead probe --all alpine
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
	fs.DurationVar(&f.timeout, "timeout", 2*time.Minute, "`time` that the workload has for its answer")
	fs.StringArrayVar(&f.targets, "target", nil, "an `ADDRESS:PORT` that the workload must not reach, such as 169.254.169.254:80; may be given again")
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

// probed is one workload that is looked at.
type probed struct {
	label string // how --all calls it
	req   *runspec.Request
}

func (a *app) probe(cmd *cobra.Command, o *runspec.Options, f probeFlags, image string) error {
	for _, name := range notForProbe {
		if cmd.Flags().Changed(name) {
			return advice.New(fmt.Sprintf("--%s has no meaning for probe, whose program runs in the workload", name), "leave it out")
		}
	}
	if f.timeout <= 0 {
		return advice.New(fmt.Sprintf("--timeout %v: no time at all", f.timeout), "give a time such as 2m")
	}
	earlier, err := readEarlier(f.diff)
	if err != nil {
		return err
	}
	program, err := findProgram(probeProgram)
	if err != nil {
		return err
	}
	if !f.all {
		o.EntrypointSet = true
		req, err := o.Check(a.host, probing.Command())
		if err != nil {
			return err
		}
		return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
			return a.probeThese(ctx, e, f, program, image, recheck(cmd, image), []probed{{req: req}}, earlier)
		})
	}
	if o.Boundary != "" || o.VM.Tenant != "" {
		return advice.New("--all looks behind every boundary", "leave out --boundary and --tenant, or --all")
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		return a.probeAll(ctx, e, cmd, o, f, program, image, earlier)
	})
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

// recheck is the command line that was given, for a report.
func recheck(cmd *cobra.Command, image string) string {
	words := []string{"bulkhead", "probe"}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "json", "verbose", "all", "diff", "timeout":
			return
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		for _, v := range values {
			if f.Value.Type() == "bool" {
				words = append(words, "--"+f.Name)
			} else {
				words = append(words, "--"+f.Name, v)
			}
		}
	})
	return strings.Join(append(words, image), " ")
}

// probeThese looks at workloads one after the other, and prints.
func (a *app) probeThese(ctx context.Context, e *engine.Engine, f probeFlags, program, image, again string, these []probed, earlier *report.Document) (err error) {
	host, err := probe.LocalHost()
	if err != nil {
		return err
	}
	canaries, err := probing.PutUp()
	if err != nil {
		return fmt.Errorf("put up what the workload must not find: %w", err)
	}
	defer func() { err = errors.Join(err, canaries.TakeDown()) }()
	canaries.Targets.Addresses = f.targets
	d := &report.Document{Format: report.Format, Kind: report.Probe, Tool: "bulkhead " + version, Time: time.Now().UTC().Truncate(time.Second)}
	for _, p := range these {
		opts := probing.Options{Program: program, Timeout: f.timeout, Targets: canaries.Targets, Host: host, Recheck: again}
		r, err := a.probeOne(ctx, e, p, image, opts)
		if err != nil {
			if !f.all || ctx.Err() != nil {
				return err
			}
			r = probe.Judge(probe.NewContext(host, nil), nil, "the workload could not be started: "+safetext.Line(err.Error()))
		}
		if p.label != "" {
			r.Subject.Label = p.label
		}
		d.Reports = append(d.Reports, r)
	}
	if earlier != nil {
		d.Changes = report.Diff(earlier, d)
	}
	return a.printReport(d, f, earlier)
}

func (a *app) probeOne(ctx context.Context, e *engine.Engine, p probed, image string, o probing.Options) (report.Report, error) {
	if err := a.volumesFrom(ctx, e, p.req); err != nil {
		return report.Report{}, err
	}
	spec, err := a.specify(ctx, p.req, true, image)
	if err != nil {
		return report.Report{}, err
	}
	return probing.Run(ctx, e, spec, o)
}

// probeAll looks behind every boundary that works, and in a tenant's machine where
// machines do: one that is made for it.
func (a *app) probeAll(ctx context.Context, e *engine.Engine, cmd *cobra.Command, o *runspec.Options, f probeFlags, program, image string, earlier *report.Document) (err error) {
	var these []probed
	add := func(label, boundary, tenant string) error {
		one := *o
		one.Boundary, one.VM.Tenant, one.EntrypointSet = boundary, tenant, true
		req, err := one.Check(a.host, probing.Command())
		if err != nil {
			return fmt.Errorf("behind %s: %w", label, err)
		}
		these = append(these, probed{label, req})
		return nil
	}
	machines := false
	for _, b := range a.boundaries {
		if err := b.Check(ctx); err != nil {
			a.warn(fmt.Sprintf("boundary %s does not work here and is left out: %v", b.Name(), err))
			continue
		}
		machines = machines || b.Name() == "vm"
		if err := add(b.Name(), b.Name(), ""); err != nil {
			return err
		}
	}
	if machines {
		tenant := "probe-" + workload.NewID().Short()
		spec, err := runspec.Machine(a.host, &runspec.VMFlags{}, &runspec.ResourceFlags{PidsLimit: runspec.DefaultPids}, nil)
		if err != nil {
			return err
		}
		spec.Name = engine.TenantName(tenant)
		if _, err := e.Run(ctx, spec, nil); err != nil {
			return fmt.Errorf("make a tenant to look at: %w", err)
		}
		defer func() { err = errors.Join(err, e.RemoveTenant(context.WithoutCancel(ctx), tenant, true)) }()
		if err := add("tenant", "vm", tenant); err != nil {
			return err
		}
	}
	return a.probeThese(ctx, e, f, program, image, recheck(cmd, image), these, earlier)
}

// printReport writes a document and turns it into the exit code.
func (a *app) printReport(d *report.Document, f probeFlags, earlier *report.Document) error {
	b, err := d.Encode() // also where it is not shown: it checks every text
	if err != nil {
		return err
	}
	w := safetext.NewWriter(a.out)
	switch {
	case f.json:
		_, err = a.out.Write(b)
	case f.all:
		err = d.Matrix(w, f.verbose)
	default:
		err = d.Reports[0].Text(w, f.verbose)
	}
	if err == nil && !f.json && earlier != nil {
		err = d.TextChanges(w, earlier.Time)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	if code := d.ExitCode(); code != report.ExitHeld {
		return exitStatus(code)
	}
	return nil
}
