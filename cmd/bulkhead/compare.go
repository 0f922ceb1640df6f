package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/comparing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// meterProgram measures inside workloads.
const meterProgram = "bulkhead-meter"

// compareFlags are the flags of compare that run does not have.
type compareFlags struct {
	json, verbose, trust, noCold bool
	system, html                 string
	only, without, measure       []string
	rounds, density              int
	beside                       time.Duration
}

func (a *app) compareCommand() *cobra.Command {
	var o runspec.Options
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "compare [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Measure what each boundary costs, for one image on this machine",
		Long: `Compare runs an image in every way that works here, and shows side by side what
each costs and whether it holds: no boundary at all, a container, gVisor, a
virtual machine that boots, one from a template, a container in a tenant's
machine, a whole system with its init; and runc, crun, Docker and Podman where
they are installed. It drives command lines, ours like those of others.

Measured are: kernel, system and isolation in force, the time to the first output
and to the exit of COMMAND, memory, how many fit, system calls, files, network,
processor-bound work, features of the kernel, and what the prober finds.
Everything is measured by turns, and nothing is called better that noise cannot
tell apart.

For that the image gets one layer more, with two static programs of Bulkhead's;
without a COMMAND the start of one of them is measured. Flags of run apply to the
ways that are Bulkhead's. Without a boundary COMMAND would run as root on this
host: that is left out unless --trust-image says that it may. Cold starts empty
the page cache of the whole machine, which slows others down for a while.

--measure neighbours has a workload answer small requests alone and beside one that
takes all that it gets of one thing, with limits and without: processors, memory,
processes, dirty pages, files, connections. It disturbs the machine for minutes, half
an hour with all ways, so it is measured only if it is named.

It exits with 0 when everything that is there was measured, 3 if something could
not be, and 4 when it fails itself.`,
		Example: `  bulkhead compare alpine
  bulkhead compare --only container,vm,docker --measure start,memory alpine echo hello
  bulkhead compare --system debian:12 --density 1000 alpine
  bulkhead compare --only container,docker --measure neighbours alpine
  bulkhead compare --html figures.html alpine
  bulkhead compare --json --rounds 50 --memory 256m alpine > figures.json`,
		Args:              needs(1, -1, "an image, and maybe a command"),
		Annotations:       map[string]string{looksAtBoundary: "1"},
		ValidArgsFunction: a.completeImageThenNothing,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.compare(cmd, f, args) },
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	o.AddFlags(fs)
	for _, name := range notForCompare {
		fs.Lookup(name).Hidden = true
	}
	fs.BoolVar(&f.json, "json", false, "write all samples as JSON")
	fs.BoolVar(&f.verbose, "verbose", false, "show spreads, and what the values are made of")
	fs.StringVar(&f.system, "system", "", "`image` with an init for the whole system, instead of IMAGE")
	fs.StringSliceVar(&f.only, "only", nil, "measure these `ways` only, such as container,vm,docker")
	fs.StringSliceVar(&f.without, "without", nil, "leave these `ways` out")
	fs.StringSliceVar(&f.measure, "measure", nil, "measure these `groups` only: "+strings.Join(comparing.Groups, ", ")+" ("+comparing.Neighbours+" only if it is named)")
	fs.IntVar(&f.rounds, "rounds", 10, "how often each start is measured")
	fs.IntVar(&f.density, "density", 300, "how many idle workloads there are at once, at most, for each way")
	fs.DurationVar(&f.beside, "beside", time.Second, "for this `time` requests are taken alone and beside each neighbour")
	fs.BoolVar(&f.noCold, "no-cold", false, "leave cold starts out, and the page cache alone")
	fs.BoolVar(&f.trust, "trust-image", false, "run COMMAND without a boundary, too, as root on this host")
	htmlFlag(cmd, &f.html)
	a.completeRunFlags(cmd)
	words := func(names []string) cobra.CompletionFunc {
		return cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, names := range map[string][]string{"only": comparing.Ways(), "without": comparing.Ways(), "measure": comparing.Groups} {
		if err := cmd.RegisterFlagCompletionFunc(flag, words(names)); err != nil {
			panic(err) // there is no such flag
		}
	}
	return cmd
}

// notForCompare are flags of run that compare itself decides on.
var notForCompare = append([]string{"boundary", "runtime", "tenant", "no-template", "publish", "publish-all"}, notForProbe...)

func (a *app) compare(cmd *cobra.Command, f compareFlags, args []string) error {
	if err := checkCompareFlags(cmd, f); err != nil {
		return err
	}
	meter, err := findProgram(meterProgram)
	if err != nil {
		return err
	}
	prober, err := findProgram(probeProgram)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	_, ofRun := flagsOfRun()
	words := flagWords(cmd.Flags(), func(name string) bool { return ofRun.Lookup(name) != nil })
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		return a.withImages(func(s *image.Store) (err error) {
			root, _, err := a.roots()
			if err != nil {
				return err
			}
			line := []string{self}
			if a.root != "" {
				line = append(line, "--root", a.root)
			}
			shown := a.progress(false)
			d, complete, err := comparing.Run(ctx, comparing.Options{
				Bulkhead: line, Flags: words, Image: args[0], Command: args[1:], System: f.system,
				Only: f.only, Without: f.without, Groups: f.measure, Rounds: f.rounds, Cold: !f.noCold, Density: f.density, Beside: f.beside, TrustImage: f.trust,
				Meter: meter, Prober: prober, Scratch: scratch.Below(root, "compare"), Images: s, Inspect: e.Inspect, InspectTenant: e.InspectTenant,
				Check: func(flags []string) error {
					_, err := a.checkFlagsOfRun(flags)
					return err
				},
				Pull: func(ctx context.Context, name string) (workload.Image, error) {
					im, _, err := a.imageFor(ctx, name, "missing", "", false)
					return im, err
				},
				Probe: func(ctx context.Context, image string, flags []string, look probing.Options) (report.Report, error) {
					look.Recheck = safetext.Command(slices.Concat([]string{"bulkhead", "probe"}, flags, args[:1]))
					return a.probeFor(ctx, e, image, flags, look)
				},
				Say:  func(step, detail string) { shown.Update(step, detail, 0, 0) },
				Said: shown.Done,
				Warn: a.warn,
			})
			shown.Close()
			if d != nil {
				err = errors.Join(err, a.printComparison(d, complete, f))
			}
			return err
		})
	})
}

func checkCompareFlags(cmd *cobra.Command, f compareFlags) error {
	for _, name := range notForCompare {
		if cmd.Flags().Changed(name) {
			return advice.New(fmt.Sprintf("--%s has no meaning for compare", name), "leave it out")
		}
	}
	for _, g := range f.measure {
		if !slices.Contains(comparing.Groups, g) {
			return advice.New(fmt.Sprintf("--measure %s: unknown group", g), "give some of "+strings.Join(comparing.Groups, ", "))
		}
	}
	for _, name := range slices.Concat(f.only, f.without) {
		if !slices.Contains(comparing.Ways(), name) {
			return advice.New(fmt.Sprintf("%q is no way to run an image", name), "give some of "+strings.Join(comparing.Ways(), ", "))
		}
	}
	for _, n := range []struct {
		flag       string
		value, top int
	}{{"rounds", f.rounds, comparing.MaxRounds}, {"density", f.density, comparing.MaxDensity}} {
		if n.value < 1 || n.value > n.top {
			return advice.New(fmt.Sprintf("--%s %d is out of range", n.flag, n.value), fmt.Sprintf("give a number from 1 to %d", n.top))
		}
	}
	if f.beside < comparing.MinBeside || f.beside > comparing.MaxBeside {
		return advice.New(fmt.Sprintf("--beside %v is out of range", f.beside), fmt.Sprintf("give a time from %v to %v", comparing.MinBeside, comparing.MaxBeside))
	}
	return checkPage(f.html)
}

// probeFor has the prober look at a workload with flags of run.
func (a *app) probeFor(ctx context.Context, e *engine.Engine, image string, flags []string, look probing.Options) (report.Report, error) {
	req, err := a.checkFlagsOfRun(flags)
	if err != nil {
		return report.Report{}, err
	}
	p := &prober{a: a, e: e, image: image}
	return p.lookAt(ctx, probed{req: req}, look)
}

// checkFlagsOfRun is what run would make of flags, or why it would refuse them.
func (a *app) checkFlagsOfRun(flags []string) (*runspec.Request, error) {
	o, fs := flagsOfRun()
	if err := fs.Parse(flags); err != nil {
		return nil, err
	}
	o.EntrypointSet = true
	return o.Check(a.host, probing.Command())
}

// flagsOfRun are the flags of run, and what they fill.
func flagsOfRun() (*runspec.Options, *pflag.FlagSet) {
	o, fs := new(runspec.Options), pflag.NewFlagSet("run", pflag.ContinueOnError)
	o.AddFlags(fs)
	return o, fs
}

// printComparison writes a document and turns it into the exit code.
func (a *app) printComparison(d *report.Document, complete bool, f compareFlags) error {
	d.Tool = strings.TrimSpace("bulkhead " + version)
	err := a.writeReport(d, f.html, f.json, func(w io.Writer) error { return d.Comparison(w, f.verbose) })
	if err == nil && !complete {
		err = exitStatus(report.ExitInconclusive)
	}
	return err
}
