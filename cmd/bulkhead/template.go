package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/spf13/cobra"
)

// templatesDir is the directory of templates in the state directory.
const templatesDir = "templates"

// templateFixes say what to do about errors of templates.
var templateFixes = []struct {
	err error
	fix string
}{
	{template.ErrNotFound, "`bulkhead template ls` lists the templates there are"},
	{template.ErrInUse, "stop the workloads that run in its clones, and end those that wait (`bulkhead template warm --count 0`); or give --force: what runs keeps what it has"},
}

// templates opens the store of the chosen state.
func (a *app) templates() (*template.Store, error) {
	if err := mustBeRoot(); err != nil {
		return nil, err
	}
	root, _, err := a.roots()
	if err != nil {
		return nil, err
	}
	return vm.Templates(filepath.Join(root, templatesDir), engine.DefaultCgroup), nil
}

func (a *app) templateCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "template COMMAND",
		Short: "Manage the saved machines that virtual machines start from",
		Long: `Template holds all commands for templates. A template is a virtual machine that
has booted and was saved, with nothing of any workload in it. The first workload
behind the boundary vm makes one; the machines of later ones that are alike, with
the same kernel, processors, memory and devices, go on from it, in a fraction of
the time that a boot takes. The third workload of an image with the same options
makes another, in which the workload itself has been made up to the start of its
program: ls shows the image. --no-template boots.`,
		Example: "  bulkhead template ls\n  bulkhead template prune -f",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(a.templateListCommand(), a.templateInspectCommand(), a.templateRemoveCommand(), a.templatePruneCommand(), a.templateWarmCommand())
	return parent
}

// templateRow is what templates of text and JSON see of templates.
type templateRow struct {
	ID, Image, Kernel, Machine, CPUs, Memory, Interfaces, Size, InUse, Warm, Created, CreatedAt, Used, Status string
}

var templateListing = output.Listing{
	Columns: []output.Column{
		{Header: "TEMPLATE ID", Field: "ID"}, {Header: "IMAGE", Field: "Image"}, {Header: "KERNEL", Field: "Kernel"}, {Header: "CPUS", Field: "CPUs"}, {Header: "MEMORY", Field: "Memory"},
		{Header: "INTERFACES", Field: "Interfaces"}, {Header: "SIZE", Field: "Size"}, {Header: "IN USE", Field: "InUse"}, {Header: "WARM", Field: "Warm"}, {Header: "USED", Field: "Used"},
		{Header: "STATUS", Field: "Status"},
	},
	More: []output.Column{{Header: "MACHINE", Field: "Machine"}, {Header: "CREATED", Field: "Created"}, {Header: "CREATED AT", Field: "CreatedAt"}},
}

// shortKey is how much of a key a listing shows.
const shortKey = 12

func newTemplateRow(e template.Entry, waits []engine.WarmPool, now time.Time, whole bool) templateRow {
	r := templateRow{ID: e.Key, Size: output.Size(e.Size), InUse: "no", Used: output.Ago(now.Sub(e.Used)) + " ago", Status: "whole"}
	if !whole {
		r.ID = e.Key[:shortKey]
	}
	if e.InUse {
		r.InUse = "yes"
	}
	waiting := 0
	for _, p := range waits {
		if p.Key == e.Key {
			waiting = p.Waiting
		}
	}
	r.Warm = strconv.Itoa(waiting)
	if e.Err != nil {
		r.Status = "damaged"
		return r
	}
	if r.Image = e.Machine["image"]; r.Image == "" {
		r.Image = "any"
	}
	r.Kernel, r.Machine, r.CPUs, r.Interfaces = e.Hello.Kernel, e.Machine["machine"], e.Machine["cpus"], e.Machine["interfaces"]
	r.Memory = strconv.FormatInt(e.Memory>>20, 10) + "MiB"
	r.Created, r.CreatedAt = output.Ago(now.Sub(e.Made))+" ago", e.Made.Local().Format("2006-01-02 15:04:05 -0700 MST")
	return r
}

func (a *app) templateListCommand() *cobra.Command {
	var quiet, noTrunc bool
	var format string
	cmd := &cobra.Command{
		Use:               "ls [flags]",
		Aliases:           []string{"list"},
		Short:             "List templates",
		Long:              "Ls lists the templates, those used last first. SIZE is what one takes of the disk.\nWARM is how many machines wait for workloads. STATUS tells whether its files are\nthere; whether they are what was saved is looked at when a machine starts from it.",
		Example:           "  bulkhead template ls\n  bulkhead template ls --format '{{.ID}} {{.Size}}'",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.templates()
			if err != nil {
				return err
			}
			all, err := s.List()
			if err != nil {
				return err
			}
			waits, err := a.warmPools()
			if err != nil {
				return err
			}
			if quiet {
				format = "{{.ID}}"
			}
			var rows []templateRow
			for _, e := range all {
				rows = append(rows, newTemplateRow(e, waits, time.Now(), noTrunc))
			}
			return output.Write(a.out, templateListing, format, rows)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not shorten IDs")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// inspectedTemplate is what inspect shows.
type inspectedTemplate struct {
	template.About
	Used   time.Time `json:"used"`
	Size   int64     `json:"size"` // bytes on the disk
	InUse  bool      `json:"inUse"`
	Clones []clone   `json:"clones"`
	Warm   *warm     `json:"warm,omitempty"`
	Damage string    `json:"damage,omitempty"`
}

// warm is what waits for workloads, which is among the clones.
type warm struct {
	Wanted  int `json:"wanted"`
	Waiting int `json:"waiting"`
}

// clone is a machine that goes on from a template.
type clone struct {
	PID int `json:"pid"`
	// Own is the memory that only this one has, in bytes, VMM and guest.
	Own int64 `json:"own"`
	// Shared is what it has in common with other clones or the template's files.
	Shared int64 `json:"shared"`
}

func (a *app) templateInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [flags] TEMPLATE...",
		Short: "Show all that is known of templates",
		Long: `Inspect shows templates as JSON: what a machine must have in common with one to
start from it, what it takes of the disk, and the machines that run from it with the
memory that each has added.`,
		Example:           "  bulkhead template inspect --format '{{.machine.kernel}}' 4c535fa8",
		Args:              needs(1, -1, "a template"),
		ValidArgsFunction: a.completeTemplates,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.templates()
			if err != nil {
				return err
			}
			return a.inspectAll(format, args, func(word string) (any, error) {
				key, err := s.Find(word)
				if err != nil {
					return nil, err
				}
				e, err := s.Get(key)
				if err != nil {
					return nil, err
				}
				i := inspectedTemplate{About: e.About, Used: e.Used.UTC(), Size: e.Size, InUse: e.InUse, Clones: []clone{}}
				if e.Err != nil {
					i.Damage = e.Err.Error()
				}
				waits, err := a.warmPools()
				if err != nil {
					return nil, err
				}
				for _, p := range waits {
					if p.Key == key {
						i.Warm = &warm{p.Wanted, p.Waiting}
					}
				}
				users, err := s.Users(key)
				for _, u := range users {
					i.Clones = append(i.Clones, clone(u))
				}
				return i, err
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	return cmd
}

func (a *app) templateRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm [flags] TEMPLATE...",
		Short: "Remove templates",
		Long: `Rm removes templates. One that machines run from, or wait with, is kept unless
--force is given. What runs keeps what it has, and the template's room on the disk,
until the last of them ends; what waits ends.`,
		Example:           "  bulkhead template rm 4c535fa8",
		Args:              needs(1, -1, "a template"),
		ValidArgsFunction: a.completeTemplates,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.templates()
			if err != nil {
				return err
			}
			return a.each(args, func(word string) error {
				key, err := s.Find(word)
				if err == nil && force {
					err = a.endWarm(cmd, key)
				}
				if err == nil {
					err = s.Remove(key, force)
				}
				if err == nil {
					fmt.Fprintln(a.out, key)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also those that machines run from, or wait with")
	return cmd
}

func (a *app) templatePruneCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove the templates that no machine runs from",
		Long: `Prune removes the templates that no machine runs from, and what commands left that
were killed while they made one. The next workload makes the generic
template that it needs again; that of an image comes back with the image's third start.`,
		Example:           "  bulkhead template prune -f",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.templates()
			if err != nil {
				return err
			}
			if err := a.sure(force, "Remove every template that no machine runs from?"); err != nil {
				return err
			}
			removed, err := s.Prune()
			var keys []string
			var bytes int64
			for _, e := range removed {
				keys = append(keys, e.Key)
				bytes += e.Size
			}
			a.pruned("Templates", keys)
			if err == nil {
				a.reclaimed(bytes)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

// warmPools lists the machines that wait.
func (a *app) warmPools() ([]engine.WarmPool, error) {
	_, run, err := a.roots()
	if err != nil {
		return nil, err
	}
	return engine.WarmPools(run)
}

// endWarm ends those that wait with a template.
func (a *app) endWarm(cmd *cobra.Command, key string) error {
	waits, err := a.warmPools()
	if err != nil || !slices.ContainsFunc(waits, func(p engine.WarmPool) bool { return p.Key == key }) {
		return err
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return e.EndWarm(ctx, key) })
}

func (a *app) templateWarmCommand() *cobra.Command {
	var o runspec.Options
	var count int
	var quiet bool
	cmd := &cobra.Command{
		Use:   "warm [flags] IMAGE",
		Short: "Keep machines waiting for workloads of an image",
		Long: `Warm makes a template of the image, and keeps so many machines waiting that have
been restored from it already. The next run of the same image with the same flags
takes one, and another is made in its place. Names, labels, variables and the command
may be other ones, and what is mounted at the same places. Each takes memory while it waits, and no
processor time. --count 0 ends them. After a reboot none wait.

What waits for the same, made with an older kernel, QEMU or version of the image, ends.`,
		Example: `  bulkhead template warm --rm debian:12 --count 4
  bulkhead run --rm --boundary vm debian:12 uname -a
  bulkhead template warm --rm debian:12 --count 0`,
		Args:              needs(1, 1, "an image"),
		ValidArgsFunction: a.completeImageThenNothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.EntrypointSet = cmd.Flags().Changed("entrypoint")
			return a.warm(cmd, o, quiet, count, args[0])
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.Flags().IntVar(&count, "count", 1, "`number` of machines that wait; 0 ends them")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress of pulling")
	a.completeRunFlags(cmd)
	return cmd
}

// maxWarm keeps a mistyped number from filling the host's memory.
const maxWarm = 100

func (a *app) warm(cmd *cobra.Command, o runspec.Options, quiet bool, count int, name string) error {
	if count < 0 || count > maxWarm {
		return advice.New(fmt.Sprintf("--count %d: from 0 to %d machines can wait", count, maxWarm), "`bulkhead template warm --help` explains it")
	}
	if o.Boundary == "" {
		o.Boundary = vm.Boundary{}.Name()
	}
	req, err := o.Check(a.host, []string{name}) // which command is not known yet
	if err != nil {
		return err
	}
	// What does not shape the machine need not be said again to mean the same.
	o.Pull, o.Name, o.Hostname, o.Entrypoint, o.EntrypointSet = "", "", "", "", false
	o.Env, o.EnvFiles, o.Labels, o.LabelFiles = nil, nil, nil, nil
	typed, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		asked := name + " " + string(typed)
		if ref, err := reference.Parse(name); err == nil {
			asked = ref.String() + " " + string(typed)
		}
		if count == 0 {
			return e.Cool(ctx, asked)
		}
		if err := a.volumesFrom(ctx, e, req); err != nil {
			return err
		}
		spec, err := a.specify(ctx, req, quiet, name)
		if err != nil {
			return err
		}
		key, err := e.Warm(ctx, spec, asked, count)
		if err == nil {
			fmt.Fprintln(a.out, key)
		}
		return err
	})
}

// completeTemplates completes the IDs of templates.
func (a *app) completeTemplates(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	s, err := a.templates()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := s.List()
	var ids []string
	for _, e := range all {
		ids = append(ids, e.Key[:shortKey])
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
