package main

import (
	"context"
	"errors"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	var o engine.RemoveOptions
	cmd := &cobra.Command{
		Use:               "rm [flags] WORKLOAD...",
		Short:             "Remove workloads",
		Long:              "Rm removes workloads with their files, logs and ID ranges. One that is running\nis refused, unless -f kills it first. Host directories and volumes stay; with -v\nthose volumes go that have no name and that no other workload has.",
		Example:           "  bulkhead rm job\n  bulkhead rm -fv web",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forAll(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error {
				err := e.RemoveWith(ctx, ref, o)
				switch {
				case o.Force && errors.Is(err, workload.ErrNotFound):
					return nil // as with rm(1): what is not there is removed
				case errors.Is(err, workload.ErrRunning):
					return advice.Wrap(err, err.Error(), "stop it first with `bulkhead stop`, or give -f, which kills it")
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "kill what is running; say nothing about what does not exist")
	cmd.Flags().BoolVarP(&o.Volumes, "volumes", "v", false, "also the workload's anonymous volumes")
	return cmd
}
