package main

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "pause WORKLOAD...",
		Short:             "Halt all processes of workloads",
		Long:              "Pause halts every process of a workload where it stands, until unpause.",
		Example:           "  bulkhead pause web",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error { return e.Pause(ctx, ref) })
		},
	}
}

func (a *app) unpauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unpause WORKLOAD...",
		Short:             "Let paused workloads continue",
		Long:              "Unpause lets the processes of a paused workload continue.",
		Example:           "  bulkhead unpause web",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(paused),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error { return e.Unpause(ctx, ref) })
		},
	}
}
