package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/spf13/cobra"
)

// kernelFixes say what to do about errors of the kernel store.
var kernelFixes = []struct {
	err error
	fix string
}{
	{kernel.ErrFetch, "check the network, or bring a kernel with `bulkhead kernel add NAME --image FILE`; a Debian kernel package will do"},
	{kernel.ErrInvalid, "give an uncompressed vmlinux or a bzImage for x86-64 that has CONFIG_PVH=y"},
	{kernel.ErrNotFound, "`bulkhead kernel ls` lists the kernels that are here; a path must hold a slash"},
	{kernel.ErrModule, "give the directory of the kernel's own modules, such as /lib/modules/RELEASE, with `bulkhead kernel add --modules`"},
	{kernel.ErrInUse, "choose another default first with `bulkhead kernel use`"},
	{kernel.ErrExists, "choose another name, or give --replace"},
}

// kernels opens the kernel store of the chosen state.
func (a *app) kernels() (*kernel.Store, error) {
	if err := mustBeRoot(); err != nil {
		return nil, err
	}
	root, _, err := a.roots()
	if err != nil {
		return nil, err
	}
	return kernel.Open(root)
}

// withKernels runs f with the store, until Ctrl-C.
func (a *app) withKernels(cmd *cobra.Command, f func(ctx context.Context, s *kernel.Store) error) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	s, err := a.kernels()
	if err != nil {
		return err
	}
	return f(ctx, s)
}

func (a *app) kernelCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "kernel COMMAND",
		Short: "Manage the kernels that guests boot",
		Long: `Kernel holds all commands for the kernels that virtual machines boot. Unless
another one was chosen, the first command that needs one fetches Debian's own
kernel package with apt; nothing is installed on this machine.`,
		Example: "  bulkhead kernel ls\n  bulkhead kernel add mine --image ./vmlinux",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(a.kernelListCommand(), a.kernelAddCommand(), a.kernelUseCommand(), a.kernelUpdateCommand(),
		a.kernelInspectCommand(), a.kernelRemoveCommand())
	return parent
}

// kernelRow is what templates and JSON of kernels see.
type kernelRow struct {
	Name    string
	Release string
	Default string
	Size    string
	Modules string
	Added   string
	AddedAt string
	Source  string
}

var kernelListing = output.Listing{
	Columns: []output.Column{
		{Header: "NAME", Field: "Name"}, {Header: "RELEASE", Field: "Release"}, {Header: "DEFAULT", Field: "Default"},
		{Header: "MODULES", Field: "Modules"}, {Header: "ADDED", Field: "Added"}, {Header: "SOURCE", Field: "Source"},
	},
	More: []output.Column{{Header: "SIZE", Field: "Size"}, {Header: "ADDED AT", Field: "AddedAt"}},
}

func (a *app) kernelListCommand() *cobra.Command {
	var quiet bool
	var format string
	cmd := &cobra.Command{
		Use:               "ls [flags]",
		Short:             "List kernels",
		Long:              "Ls lists the kernels that are here. The default is the one that guests boot unless\ntold otherwise.",
		Example:           "  bulkhead kernel ls\n  bulkhead kernel ls --format '{{.Name}} {{.Release}}'",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withKernels(cmd, func(_ context.Context, s *kernel.Store) error {
				list, err := s.List()
				if err != nil {
					return err
				}
				if quiet {
					format = "{{.Name}}"
				}
				var rows []kernelRow
				for _, k := range list {
					rows = append(rows, describeKernel(k, time.Now()))
				}
				return output.Write(a.out, kernelListing, format, rows)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// describeKernel makes the row of a kernel.
func describeKernel(k kernel.Kernel, now time.Time) kernelRow {
	row := kernelRow{
		Name: k.Name, Release: k.Release, Default: "no", Size: output.Size(k.Size), Modules: "built in",
		Added: output.Ago(now.Sub(k.Added)) + " ago", AddedAt: k.Added.Local().Format("2006-01-02 15:04:05 -0700 MST"), Source: k.Source,
	}
	if k.Default {
		row.Default = "yes"
	}
	if k.ModulesDir != "" {
		row.Modules = "loaded"
	}
	return row
}

func (a *app) kernelAddCommand() *cobra.Command {
	var o kernel.AddOptions
	var quiet, use bool
	cmd := &cobra.Command{
		Use:   "add [flags] NAME",
		Short: "Store a kernel under a name",
		Long: `Add stores a copy of a kernel for x86-64: an uncompressed vmlinux, a bzImage, or
a Debian kernel package, which brings its modules along. The kernel must have a
PVH entry (CONFIG_PVH=y). Without modules everything that guests need must be
built in: virtio, EROFS, ext4, overlayfs and FUSE. The first kernel becomes the
default.`,
		Example: `  bulkhead kernel add mine --image ./vmlinux --modules /lib/modules/6.1.0-56-amd64
  bulkhead kernel add next --image linux-image-6.12.0-1-amd64.deb --use`,
		Args: needs(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Image == "" {
				return advice.New("kernel add needs --image", usage(cmd))
			}
			return a.withKernels(cmd, func(ctx context.Context, s *kernel.Store) error {
				d := a.progress(quiet)
				defer d.Close()
				abs, err := filepath.Abs(o.Image)
				if err != nil {
					return err
				}
				o.Image = abs // what is remembered as its source
				if _, err := s.Add(ctx, args[0], o, d); err != nil || !use {
					return err
				}
				return s.Use(ctx, args[0])
			})
		},
	}
	cmd.Flags().StringVar(&o.Image, "image", "", "the kernel's `file`")
	cmd.Flags().StringVar(&o.Modules, "modules", "", "the `directory` of its modules, such as /lib/modules/RELEASE")
	cmd.Flags().BoolVar(&o.Replace, "replace", false, "replace a kernel that has the name")
	cmd.Flags().BoolVar(&use, "use", false, "make it the default")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) kernelUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Choose the kernel that guests boot by default",
		Long:              "Use makes a stored kernel the one that guests boot unless told otherwise. Guests\nthat run already keep theirs.",
		Example:           "  bulkhead kernel use small",
		Args:              needs(1, 1, "a name"),
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKernels(cmd, func(ctx context.Context, s *kernel.Store) error { return s.Use(ctx, args[0]) })
		},
	}
}

func (a *app) kernelUpdateCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "update [flags]",
		Short: "Fetch the distribution's newest kernel",
		Long: `Update fetches Debian's kernel if it is not here or the package lists have a newer
one, and stores it as debian. The default stays what it is; guests that run
already keep their kernel until they are stopped.`,
		Example:           "  bulkhead kernel update",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withKernels(cmd, func(ctx context.Context, s *kernel.Store) error {
				d := a.progress(quiet)
				defer d.Close()
				_, _, err := s.Update(ctx, d)
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (a *app) kernelInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:               "inspect [flags] NAME...",
		Short:             "Show all that is known of kernels",
		Long:              "Inspect shows kernels as JSON: release, source, digest, and where they lie.",
		Example:           "  bulkhead kernel inspect --format '{{.release}}' debian",
		Args:              needs(1, -1, "a name"),
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKernels(cmd, func(_ context.Context, s *kernel.Store) error {
				return a.inspectAll(format, args, func(name string) (any, error) {
					return s.Get(name)
				})
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	return cmd
}

func (a *app) kernelRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Remove kernels",
		Long:              "Rm removes stored kernels. Guests that run keep theirs until they are stopped.\nThe default can be removed only as the last one.",
		Example:           "  bulkhead kernel rm old",
		Args:              needs(1, -1, "a name"),
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withKernels(cmd, func(ctx context.Context, s *kernel.Store) error {
				return a.each(args, func(name string) error {
					if err := s.Remove(ctx, name); err != nil {
						return err
					}
					fmt.Fprintln(a.out, name)
					return nil
				})
			})
		},
	}
}

// completeKernels completes the names of kernels.
func (a *app) completeKernels(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	s, err := a.kernels()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := s.List()
	var names []string
	for _, k := range list {
		names = append(names, k.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
