package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime/registry"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// runtimeFixes say what to do about errors of registered runtimes.
var runtimeFixes = []struct {
	err error
	fix string
}{
	{registry.ErrNotFound, "`bulkhead runtime ls` lists the runtimes; register one with `bulkhead runtime add NAME PATH`"},
	{registry.ErrExists, "choose another name, or give --replace"},
	{registry.ErrDamaged, "register it again with `bulkhead runtime add --replace NAME PATH`, or remove it with `bulkhead runtime rm`"},
}

// runtimes are those of the chosen state.
func (a *app) runtimes() (registry.Registry, error) {
	if err := mustBeRoot(); err != nil {
		return registry.Registry{}, err
	}
	root, _, err := a.roots()
	return registry.Open(root), err
}

// lookUpRuntime is for flags that name one.
func (a *app) lookUpRuntime(name string) (workload.Runtime, string, error) {
	r, err := a.runtimes()
	if err != nil {
		return workload.Runtime{}, "", err
	}
	e, err := r.Get(name)
	return e.Runtime(), e.Boundary(), err
}

// findRunsc is the runtime of the boundary gvisor: the one registered as runsc, or
// else one beside this program or where packages put it. Supervisors run from a
// mount of their program alone, and have nothing beside them.
func (a *app) findRunsc() (workload.Runtime, error) {
	const name = "runsc"
	r, err := a.runtimes()
	if err != nil {
		return workload.Runtime{}, err
	}
	switch e, err := r.Get(name); {
	case err == nil && e.GVisor:
		return e.Runtime(), nil
	case err != nil && !errors.Is(err, registry.ErrNotFound):
		return workload.Runtime{}, err
	}
	path, err := ociruntime.Find(name)
	if err != nil {
		return workload.Runtime{}, advice.New("the boundary gvisor needs gVisor's runsc: "+err.Error(),
			"build it with `make runsc`, or register another with `bulkhead runtime add runsc PATH`")
	}
	return workload.Runtime{Name: name, Path: path}, nil
}

func (a *app) runtimeCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "runtime COMMAND",
		Short: "Manage other OCI runtimes",
		Long: `An OCI runtime is a program that makes containers, such as runc, crun or gVisor's
runsc. One that is registered can make workloads: run --runtime NAME. It gets the
same hardened defaults as the boundary container, and the limits are in force on
the host whatever it makes of them.`,
		Example: "  bulkhead runtime add crun /usr/bin/crun\n  bulkhead run --runtime crun alpine uname -a",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(a.runtimeAddCommand(), a.runtimeListCommand(), a.runtimeRemoveCommand())
	return parent
}

func (a *app) runtimeAddCommand() *cobra.Command {
	var replace, quiet bool
	cmd := &cobra.Command{
		Use:   "add [flags] NAME PATH",
		Short: "Register an OCI runtime under a name",
		Long: `Add registers a program with the OCI runtime command line, and asks it for its
version. gVisor's runsc is known by that, and makes the boundary gvisor. Workloads
remember the program's path: a change here concerns new ones.`,
		Example: "  bulkhead runtime add runc /usr/sbin/runc",
		Args:    needs(2, 2, "a name and a program"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := runspec.CheckName(name); err != nil {
				return err
			}
			path, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			if belowRun(path) {
				return advice.New(fmt.Sprintf("%s lies below /run, where a runtime finds the workload it is to make", path), "install it elsewhere, such as in /usr/local/bin")
			}
			r, err := a.runtimes()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			version, err := ociruntime.Runtime{Boundary: workload.BoundaryRuntime, Name: name, Program: path}.Version(ctx)
			if err != nil {
				return advice.New(err.Error(), "give the path of an OCI runtime, such as /usr/bin/runc")
			}
			e := registry.Entry{Name: name, Path: path, Version: version, GVisor: strings.HasPrefix(version, "runsc "), Added: time.Now().UTC()}
			if err := r.Add(e, replace); err != nil {
				return err
			}
			if !quiet {
				fmt.Fprintln(a.out, name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "take the place of a runtime of the same name")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not print the name")
	return cmd
}

// belowRun tells whether a program lies below /run, or is reached through it by links,
// such as Debian's /var/run.
func belowRun(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return strings.HasPrefix(path, "/run/") || err == nil && strings.HasPrefix(real, "/run/")
}

// runtimeRow is what templates and JSON of runtimes see.
type runtimeRow struct {
	Name     string
	Path     string
	Version  string
	Boundary string
	Added    string
	AddedAt  string
}

var runtimeListing = output.Listing{
	Columns: []output.Column{
		{Header: "NAME", Field: "Name"}, {Header: "PATH", Field: "Path"}, {Header: "VERSION", Field: "Version"},
		{Header: "BOUNDARY", Field: "Boundary"}, {Header: "ADDED", Field: "Added"},
	},
	More: []output.Column{{Header: "ADDED AT", Field: "AddedAt"}},
}

func (a *app) runtimeListCommand() *cobra.Command {
	var quiet bool
	var format string
	cmd := &cobra.Command{
		Use:               "ls [flags]",
		Short:             "List registered runtimes",
		Long:              "Ls lists the runtimes that are registered, each with the version that it had then.",
		Example:           "  bulkhead runtime ls",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			r, err := a.runtimes()
			if err != nil {
				return err
			}
			list, damaged := r.List()
			if quiet {
				format = "{{.Name}}"
			}
			rows := []runtimeRow{}
			for _, e := range list {
				row := runtimeRow{
					Name: e.Name, Path: e.Path, Version: e.Version, Boundary: e.Boundary(),
					Added: output.Ago(time.Since(e.Added)) + " ago", AddedAt: e.Added.Local().Format("2006-01-02 15:04:05 -0700 MST"),
				}
				rows = append(rows, row)
			}
			return errors.Join(output.Write(a.out, runtimeListing, format, rows), damaged)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

func (a *app) runtimeRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Forget registered runtimes",
		Long:    "Rm forgets runtimes. The programs stay, and so do workloads that were made with\nthem: they know the path.",
		Example: "  bulkhead runtime rm crun",
		Args:    needs(1, -1, "the name of a runtime"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return a.completeRuntimes()
		},
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := a.runtimes()
			if err != nil {
				return err
			}
			var failed error
			for _, name := range args {
				if err := r.Remove(name); err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				fmt.Fprintln(a.out, name)
			}
			return failed
		},
	}
}

// completeRuntimes offers the names of registered runtimes.
func (a *app) completeRuntimes() ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	if r, err := a.runtimes(); err == nil {
		list, _ := r.List() // without those that are damaged
		for _, e := range list {
			names = append(names, e.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
