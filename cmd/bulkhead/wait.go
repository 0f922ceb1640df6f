package main

import (
	"context"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "wait WORKLOAD...",
		Short:             "Wait until workloads end and print their exit codes",
		Long:              "Wait waits for the end of each workload in turn and prints its exit code. It\nexits with 0 whatever these are.",
		Example:           "  bulkhead wait job",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return a.each(args, func(ref string) error {
					exit, err := e.Wait(ctx, ref)
					if err != nil {
						return err
					}
					if exit.Error != "" {
						return fmt.Errorf("%s: %s", ref, exit.Error)
					}
					fmt.Fprintln(a.out, exit.Code)
					return nil
				})
			})
		},
	}
}
