package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
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
	{template.ErrInUse, "stop the workloads that run in its clones, or give --force: they keep what they have"},
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
	parent.AddCommand(a.templateListCommand(), a.templateInspectCommand(), a.templateRemoveCommand(), a.templatePruneCommand())
	return parent
}

// templateRow is what templates of text and JSON see of templates.
type templateRow struct {
	ID, Image, Kernel, Machine, CPUs, Memory, Interfaces, Size, InUse, Created, CreatedAt, Used, Status string
}

var templateListing = output.Listing{
	Columns: []output.Column{
		{Header: "TEMPLATE ID", Field: "ID"}, {Header: "IMAGE", Field: "Image"}, {Header: "KERNEL", Field: "Kernel"}, {Header: "CPUS", Field: "CPUs"}, {Header: "MEMORY", Field: "Memory"},
		{Header: "INTERFACES", Field: "Interfaces"}, {Header: "SIZE", Field: "Size"}, {Header: "IN USE", Field: "InUse"}, {Header: "USED", Field: "Used"},
		{Header: "STATUS", Field: "Status"},
	},
	More: []output.Column{{Header: "MACHINE", Field: "Machine"}, {Header: "CREATED", Field: "Created"}, {Header: "CREATED AT", Field: "CreatedAt"}},
}

// shortKey is how much of a key a listing shows.
const shortKey = 12

func newTemplateRow(e template.Entry, now time.Time, whole bool) templateRow {
	r := templateRow{ID: e.Key, Size: output.Size(e.Size), InUse: "no", Used: output.Ago(now.Sub(e.Used)) + " ago", Status: "whole"}
	if !whole {
		r.ID = e.Key[:shortKey]
	}
	if e.InUse {
		r.InUse = "yes"
	}
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
		Long:              "Ls lists the templates, those used last first. SIZE is what one takes of the disk.\nSTATUS tells whether its files are there; whether they are what was saved is\nlooked at when a machine starts from it.",
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
			if quiet {
				format = "{{.ID}}"
			}
			var rows []templateRow
			for _, e := range all {
				rows = append(rows, newTemplateRow(e, time.Now(), noTrunc))
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
	Damage string    `json:"damage,omitempty"`
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
		Long: `Rm removes templates. One that machines run from is kept unless --force is given;
they keep what they have, and its room on the disk until the last of them ends.`,
		Example:           "  bulkhead template rm 4c535fa8",
		Args:              needs(1, -1, "a template"),
		ValidArgsFunction: a.completeTemplates,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.templates()
			if err != nil {
				return err
			}
			return a.each(args, func(word string) error {
				key, err := s.Find(word)
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
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also those that machines run from")
	return cmd
}

func (a *app) templatePruneCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove the templates that no machine runs from",
		Long: `Prune removes the templates that no machine runs from, and what commands left that
were killed while they made one. The next workload makes what it needs again.`,
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
