package main

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

var tenantStatsListing = output.Listing{
	Columns: []output.Column{
		{Header: "NAME", Field: "Name"}, {Header: "CPU %", Field: "CPUPerc"}, {Header: "MEM USAGE / LIMIT", Field: "MemUsage"},
		{Header: "MEM %", Field: "MemPerc"}, {Header: "HOST MEM", Field: "HostMemUsage"}, {Header: "BLOCK I/O", Field: "BlockIO"},
	},
	More: []output.Column{{Header: "ID", Field: "ID"}, {Header: "HOST CPU %", Field: "HostCPUPerc"}, {Header: "PIDS", Field: "PIDs"}},
}

func (a *app) tenantStatsCommand() *cobra.Command {
	f := statsFlags{tenants: true}
	cmd := &cobra.Command{
		Use:   "stats [flags] [NAME...]",
		Short: "Show what the machines of tenants use, once a second",
		Long: `Stats shows what the machines of tenants take of the host, of all that run where
none is named, until it is interrupted: processor time, 100 % being one
processor, memory, and traffic of their disks. Memory used in the machine, and
how much it has, are by the guest's word. What single workloads use is shown by
` + "`bulkhead stats`.",
		Example:           "  bulkhead tenant stats\n  bulkhead tenant stats --no-stream --format json acme",
		ValidArgsFunction: a.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.stats(ctx, e, f, args) })
		},
	}
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "also those that are not running")
	cmd.Flags().BoolVar(&f.once, "no-stream", false, "show the figures of one second and end")
	cmd.Flags().StringVar(&f.format, "format", "", "`table`, json or a Go template")
	return cmd
}

func (a *app) tenantUpdateCommand() *cobra.Command {
	var o runspec.UpdateOptions
	cmd := &cobra.Command{
		Use:   "update [flags] NAME...",
		Short: "Change the limits of tenants' machines",
		Long: `Update changes what the machine of a tenant is limited to. The processors and the
memory of a machine are set when it starts: while it runs it can be given less
processor time than that, at once, and no other memory.`,
		Example:           "  bulkhead tenant update --cpus 0.5 acme\n  bulkhead tenant update --memory 2g acme",
		Args:              needs(1, -1, "a tenant"),
		ValidArgsFunction: a.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := o.Check(a.host, cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, name string) error {
				return e.UpdateTenant(ctx, name, u.Resources)
			})
		},
	}
	cmd.Flags().StringVarP(&o.Resources.Memory, "memory", "m", "", "memory of the machine for its workloads, a `size`; from its next start on")
	cmd.Flags().StringVar(&o.Resources.CPUs, "cpus", "", "limit of processor time as a `number` of processors, such as 1.5")
	return cmd
}
