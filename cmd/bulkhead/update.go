package main

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) updateCommand() *cobra.Command {
	var o runspec.UpdateOptions
	cmd := &cobra.Command{
		Use:   "update [flags] WORKLOAD...",
		Short: "Change limits and the restart policy of workloads",
		Long: `Update changes what workloads are limited to, at once where they run, and for
all their later runs. What is not named stays as it is, and inspect shows what is
in force. The memory and the processors of a virtual machine are set when it
starts: while it runs there can be less of them, and not more.`,
		Example:           "  bulkhead update --memory 512m --memory-swap 512m --cpus 1.5 web\n  bulkhead update --restart on-failure:3 job",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := o.Check(a.host, cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error {
				r, err := e.Inspect(ctx, ref)
				if err == nil {
					err = u.Suits(&r.Spec)
				}
				if err != nil {
					return err
				}
				limits, err := u.For(&r.Spec, a.host)
				if err != nil {
					return err
				}
				return e.Update(ctx, ref, limits, u.Restart)
			})
		},
	}
	o.AddFlags(cmd.Flags())
	words := []string{"no", "on-failure", "on-failure:", "always", "unless-stopped"}
	// The only error is a flag that does not exist.
	if err := cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
	return cmd
}
