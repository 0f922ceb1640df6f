package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/auditing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/spf13/cobra"
)

// auditFlags are the flags of audit.
type auditFlags struct {
	json, verbose, host bool
	kind, info, html    string
	gate                gateFlags
}

func (a *app) auditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit [flags] [TARGET...]",
		Short: "Find out what configurations leave open, and how to shut it",
		Long: `Audit judges configurations: what they leave open between a workload and the
host, how much that matters behind the workload's boundary, and the smallest
change that shuts it. It starts nothing and changes nothing.

A target is a workload of ours, docker:NAME or podman:NAME for a container of
another engine, or a file: what inspect of any of the three prints, or a
config.json of the OCI runtime specification; - stands for standard input.
Without targets it looks at all workloads, at all containers of Docker and
Podman where they are installed, and at the host.

What a configuration does not say is unknown, which is no pass. What an
engine's defaults decide is known for its own containers, and for a file with
--info.

It exits with 0 if every door is shut, 2 if one is open, 3 if none is known to
be open and something is unknown, and 4 when it fails itself. With --severity
only findings of that severity and worse count, and with --waivers those that
somebody has accepted do not; all are shown.`,
		Example: `  bulkhead audit
  bulkhead audit --severity high --waivers accepted docker:db
  bulkhead audit web docker:db
  docker inspect db | bulkhead audit --json -
  bulkhead audit /run/bundle/config.json
  bulkhead audit --host
  bulkhead audit --html report.html`,
		Annotations:       map[string]string{looksAtBoundary: "1"},
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.audit(cmd, f, args) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.json, "json", false, "write the report as JSON")
	fs.BoolVar(&f.verbose, "verbose", false, "show every rule, with its evidence")
	fs.BoolVar(&f.host, "host", false, "look at the host: kernel, processor, settings, versions")
	fs.StringVar(&f.kind, "type", "", "take files for `bulkhead`, docker, podman or oci, instead of finding it out")
	f.gate.add(cmd, fs)
	fs.StringVar(&f.info, "info", "", "`file` with the JSON of docker info or podman info, for files of their containers")
	htmlFlag(cmd, &f.html)
	return cmd
}

// auditJob collects what one command looks at.
type auditJob struct {
	app      *app
	flags    auditFlags
	configs  []*audit.Config
	untested []report.Untested
	unseen   []audit.Unseen
}

func (a *app) audit(cmd *cobra.Command, f auditFlags, targets []string) error {
	if f.kind != "" && !slices.Contains(audit.Kinds, audit.Kind(f.kind)) {
		return advice.New(fmt.Sprintf("--type %q: unknown type", f.kind), "give bulkhead, docker, podman or oci")
	}
	if err := checkPage(f.html); err != nil {
		return err
	}
	g, err := f.gate.read()
	if err != nil {
		return err
	}
	j := &auditJob{app: a, flags: f}
	ctx, stop := interruptible(cmd)
	defer stop()
	switch all := len(targets) == 0 && !f.host; {
	case all:
		f.host = true
		if err := a.withEngine(cmd, j.everything); err != nil {
			return err
		}
	case slices.ContainsFunc(targets, isOurs):
		if err := a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return j.named(ctx, e, targets) }); err != nil {
			return err
		}
	default:
		if err := j.named(ctx, nil, targets); err != nil {
			return err
		}
	}
	d := &report.Document{Format: report.Format, Kind: report.Audit, Tool: strings.TrimSpace("bulkhead " + version), Time: time.Now().UTC().Truncate(time.Second)}
	for _, c := range j.configs {
		r := audit.Judge(c, auditAgain(cmd, c.Target))
		r.Subject.Label = unique(d, r.Subject.Label)
		d.Reports = append(d.Reports, r)
	}
	if f.host {
		r, err := j.host(ctx)
		if err != nil {
			return err
		}
		d.Reports = append(d.Reports, r)
	}
	g.apply(d)
	return a.printAudit(d, f)
}

// auditAgain is the command that looks at one target again, to be copied.
func auditAgain(cmd *cobra.Command, target string) string {
	wanted := func(name string) bool { return !slices.Contains(notForAudit, name) }
	words := append([]string{"bulkhead", "audit"}, flagWords(cmd.Flags(), wanted)...)
	if strings.HasPrefix(target, "-") && target != "-" {
		words = append(words, "--")
	}
	return safetext.Command(append(words, target))
}

// notForAudit are flags that do not change what is found of one target.
var notForAudit = []string{"json", "verbose", "host", "severity", "waivers", "html"}

// unique makes a label differ from those that a document has.
func unique(d *report.Document, label string) string {
	for n, l := 2, label; ; n++ {
		if !slices.ContainsFunc(d.Reports, func(r report.Report) bool { return r.Subject.Label == l }) {
			return l
		}
		l = fmt.Sprintf("%s (%d)", label, n)
	}
}

// isOurs reports whether a target names a workload of ours.
func isOurs(target string) bool {
	engine := strings.HasPrefix(target, "docker:") || strings.HasPrefix(target, "podman:")
	if engine || target == "-" || strings.Contains(target, "/") || strings.HasSuffix(target, ".json") {
		return false
	}
	return true
}

// everything is what there is on this machine.
func (j *auditJob) everything(ctx context.Context, e *engine.Engine) error {
	records, err := e.List(ctx)
	if err != nil {
		return err
	}
	j.ours(ctx, e, records)
	return j.containers(ctx)
}

// containers are those of other engines on this machine. Who cannot be asked is told.
func (j *auditJob) containers(ctx context.Context) error {
	for _, kind := range []audit.Kind{audit.Docker, audit.Podman} {
		found, err := auditing.Tool{Kind: kind, Run: auditing.Run}.Containers(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case errors.Is(err, auditing.ErrNotInstalled):
			j.untested = append(j.untested, report.Untested{What: "containers of " + string(kind), Why: safetext.Line(err.Error())})
		case err != nil:
			j.unseen = append(j.unseen, audit.Unseen{Kind: kind, Why: safetext.Line(err.Error())})
			j.app.warn(fmt.Sprintf("containers of %s are left out: %v", kind, err))
		}
		j.configs = append(j.configs, found...)
	}
	return nil
}

// named looks at targets in their order.
func (j *auditJob) named(ctx context.Context, e *engine.Engine, targets []string) error {
	for _, t := range targets {
		var found []*audit.Config
		var err error
		kind, name, _ := strings.Cut(t, ":")
		switch {
		case kind == "docker" || kind == "podman":
			found, err = auditing.Tool{Kind: audit.Kind(kind), Run: auditing.Run}.Containers(ctx, name)
			if errors.Is(err, auditing.ErrNotInstalled) {
				err = advice.Wrap(err, fmt.Sprintf("%s: the program %s is not installed", t, kind), "give a file with what `"+kind+" inspect` prints instead")
			} else if err != nil {
				err = fmt.Errorf("%s: %w", t, err)
			}
		case isOurs(t):
			var r *engine.Record
			if r, err = e.Inspect(ctx, t); err == nil {
				j.ours(ctx, e, []*engine.Record{r})
			}
		default:
			found, err = auditing.File(t, audit.Kind(j.flags.kind), j.flags.info)
			err = fileError(t, err)
		}
		if err != nil {
			return err
		}
		j.configs = append(j.configs, found...)
	}
	return nil
}

// fileError names the file once.
func fileError(name string, err error) error {
	var path *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path):
		return advice.Wrap(err, fmt.Sprintf("%s: %v", path.Path, path.Err), "give a file, docker:NAME, podman:NAME, or the name of a workload")
	case name == "-":
		name = "standard input"
	}
	return fmt.Errorf("%s: %w", name, err)
}

// ours adds workloads of ours, with what their records do not say.
func (j *auditJob) ours(ctx context.Context, e *engine.Engine, records []*engine.Record) {
	users := map[uint32]string{} // of monitors
	for _, r := range records {
		if r.Spec.VM.Machine {
			continue
		}
		f := audit.Facts{AppArmor: appArmor(), Running: running(r.Status)}
		machine, key := r, r.Spec.Name
		if t := r.Spec.VM.Tenant; t != "" {
			key = "tenant " + t
			m, err := e.InspectTenant(ctx, t)
			if err != nil {
				f.Monitor.Why = safetext.Line(err.Error())
				machine = nil
			} else {
				machine = m
			}
		}
		if machine != nil && machine.Machine != nil {
			f.Accel = machine.Machine.Accel
		}
		if machine != nil && r.Spec.Boundary == "vm" && running(machine.Status) {
			var uid uint32
			f.Monitor, uid = auditing.Monitor(machine.SupervisorPID)
			if other, taken := users[uid]; taken && other != key && f.Monitor.Known {
				f.Monitor.Value.SharedUser = other
			}
			users[uid] = key
		}
		j.configs = append(j.configs, audit.Workload(r.Spec, f))
	}
}

// appArmor finds out whether the kernel has AppArmor.
func appArmor() audit.Said[bool] {
	const file = "/sys/module/apparmor/parameters/enabled"
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return audit.Said[bool]{Known: true, From: []report.Evidence{{Call: file, Errno: "ENOENT"}}}
	case err != nil:
		return audit.Said[bool]{Why: err.Error()}
	}
	text := strings.TrimSpace(string(b))
	return audit.Said[bool]{Value: text == "Y", Known: true, From: []report.Evidence{{Call: file, Value: text}}}
}

// host looks at this machine.
func (j *auditJob) host(ctx context.Context) (report.Report, error) {
	known, err := audit.LoadAdvisories()
	if err != nil {
		return report.Report{}, err
	}
	h := &audit.Host{Files: os.DirFS("/"), Now: time.Now(), Products: auditing.Products(ctx, auditing.Run), Untested: j.untested, Unseen: j.unseen}
	return audit.JudgeHost(h, known, "bulkhead audit --host"), ctx.Err()
}

// printAudit writes a document and turns it into the exit code.
func (a *app) printAudit(d *report.Document, f auditFlags) error {
	err := a.writeReport(d, f.html, f.json, func(w io.Writer) error {
		for i := range d.Reports {
			if i > 0 {
				fmt.Fprintln(w)
			}
			if err := d.Reports[i].Text(w, f.verbose); err != nil {
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
