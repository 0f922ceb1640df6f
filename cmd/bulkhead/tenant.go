package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) tenantCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Manage tenants: virtual machines that hold several workloads",
		Long: `A tenant owns one virtual machine. Workloads that are run with --tenant are
containers in it, isolated from each other, and from other tenants by the
machine. The machine outlives its workloads until the tenant is removed.`,
		Example: `  bulkhead tenant create acme --cpus 2 --memory 1g
  bulkhead run -d --tenant acme --name web nginx
  bulkhead tenant rm -f acme`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tenantCreateCommand(), a.tenantListCommand(), a.tenantInspectCommand(),
		a.tenantStartCommand(), a.tenantStopCommand(), a.tenantRemoveCommand(), a.tenantStatsCommand(), a.tenantUpdateCommand())
	return cmd
}

func (a *app) tenantCreateCommand() *cobra.Command {
	var vm runspec.VMFlags
	var res runspec.ResourceFlags
	var labels []string
	cmd := &cobra.Command{
		Use:     "create [flags] NAME",
		Short:   "Make a tenant and start its machine",
		Long:    "Create makes a tenant, starts its machine, and prints its name.",
		Example: "  bulkhead tenant create acme --cpus 2 --memory 1g --disk 20g",
		Args:    needs(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := runspec.CheckTenant("name", name); err != nil {
				return err
			}
			spec, err := runspec.Machine(a.host, &vm, &res, labels)
			if err != nil {
				return err
			}
			spec.Name = engine.TenantName(name)
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				if _, err := e.Run(ctx, spec, nil); err != nil {
					if errors.Is(err, workload.ErrNameTaken) {
						return advice.Wrap(err, fmt.Sprintf("there is a tenant %s already", name), "choose another name, or remove it with `bulkhead tenant rm`")
					}
					return err
				}
				fmt.Fprintln(a.out, name)
				return nil
			})
		},
	}
	fs := cmd.Flags()
	vm.AddFlags(fs)
	fs.StringVarP(&res.Memory, "memory", "m", "", "memory of the machine for its workloads, a `size` (default 512m)")
	fs.StringVar(&res.CPUs, "cpus", "", "limit of processor time as a `number` of processors (default 1)")
	fs.StringArrayVarP(&labels, "label", "l", nil, "attach `KEY=VALUE` for your own use")
	return cmd
}

// tenantRow is what templates and JSON of tenant ls see.
type tenantRow struct {
	Name, State, Status, Memory, CPUs, CreatedAt, RunningFor string
	Workloads                                                int
}

var tenantListing = output.Listing{
	Columns: []output.Column{
		{Header: "NAME", Field: "Name"}, {Header: "STATUS", Field: "Status"}, {Header: "WORKLOADS", Field: "Workloads"},
		{Header: "CPUS", Field: "CPUs"}, {Header: "MEMORY", Field: "Memory"}, {Header: "CREATED", Field: "RunningFor"},
	},
	More: []output.Column{{Header: "STATE", Field: "State"}, {Header: "CREATED AT", Field: "CreatedAt"}},
}

func (a *app) tenantListCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:               "ls [flags]",
		Aliases:           []string{"list"},
		Short:             "List tenants",
		Long:              "Ls lists the tenants, whether their machines run, and how many workloads each has.",
		Example:           "  bulkhead tenant ls\n  bulkhead tenant ls --format json",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				records, err := e.List(ctx)
				if err != nil {
					return err
				}
				workloads := map[string]int{}
				for _, r := range records {
					workloads[r.Spec.VM.Tenant]++
				}
				var rows []tenantRow
				for _, r := range records {
					if name := r.Tenant(); name != "" {
						rows = append(rows, newTenantRow(r, name, workloads[name], time.Now()))
					}
				}
				if quiet {
					format = "{{.Name}}"
				}
				return output.Write(a.out, tenantListing, format, rows)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

func newTenantRow(r *engine.Record, name string, workloads int, now time.Time) tenantRow {
	s := &r.Spec
	row := tenantRow{
		Name: name, State: string(r.Status), Status: status(r, now), Workloads: workloads, CPUs: "1",
		CreatedAt: s.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: output.Ago(now.Sub(s.Created)) + " ago",
	}
	if s.Resources.CPUs > 0 {
		row.CPUs = fmt.Sprint(s.Resources.CPUs)
	}
	if s.Resources.Memory != nil {
		row.Memory = binarySize(*s.Resources.Memory)
	}
	return row
}

func (a *app) tenantInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:               "inspect [flags] NAME...",
		Short:             "Show all that is known of tenants",
		Long:              "Inspect shows the machines of tenants as JSON, as inspect shows workloads.",
		Example:           "  bulkhead tenant inspect acme",
		Args:              needs(1, -1, "a tenant"),
		ValidArgsFunction: a.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return a.inspectAll(format, args, func(name string) (any, error) {
					r, err := e.InspectTenant(ctx, name)
					if err != nil {
						return nil, err
					}
					return newInspectView(r), nil
				})
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	return cmd
}

func (a *app) tenantStartCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "start NAME...",
		Short:             "Start the machines of tenants",
		Long:              "Start starts the machine of a tenant that was stopped. Running a workload in it\ndoes so too.",
		Example:           "  bulkhead tenant start acme",
		Args:              needs(1, -1, "a tenant"),
		ValidArgsFunction: a.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, name string) error {
				if err := e.StartTenant(ctx, name); err != nil && !errors.Is(err, workload.ErrRunning) {
					return err
				}
				return nil
			})
		},
	}
}

func (a *app) tenantStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "stop NAME...",
		Short:             "Stop the machines of tenants",
		Long:              "Stop ends the workloads of a tenant and shuts its machine down. What they wrote\nis kept.",
		Example:           "  bulkhead tenant stop acme",
		Args:              needs(1, -1, "a tenant"),
		ValidArgsFunction: a.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, name string) error {
				return e.StopTenant(ctx, name)
			})
		},
	}
}

func (a *app) tenantRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm [flags] NAME...",
		Short:             "Remove tenants with their machines and disks",
		Long:              "Rm removes a tenant. One that has workloads, or whose machine runs, is refused\nunless -f removes them first.",
		Example:           "  bulkhead tenant rm -f acme",
		Args:              needs(1, -1, "a tenant"),
		ValidArgsFunction: a.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, name string) error {
				err := e.RemoveTenant(ctx, name, force)
				switch {
				case force && errors.Is(err, engine.ErrNoTenant):
					return nil
				case errors.Is(err, workload.ErrRunning):
					return advice.Wrap(err, fmt.Sprintf("the machine of tenant %s is running", name), "stop it with `bulkhead tenant stop`, or give -f, which removes its workloads too")
				case errors.Is(err, engine.ErrTenantInUse):
					return advice.Wrap(err, fmt.Sprintf("tenant %s still has workloads", name), "remove them with `bulkhead rm`, or give -f, which does that too")
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove the workloads and stop the machine first")
	return cmd
}
