package main

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename WORKLOAD NAME",
		Short: "Give a workload another name",
		Long: `Rename gives a workload, running or not, another name, by which others in its
networks find it from then on. Its ID and host name stay.`,
		Example:           "  bulkhead rename web old-web",
		Args:              needs(2, 2, "a workload and its new name"),
		ValidArgsFunction: a.completeFirst(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runspec.CheckName(args[1]); err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return e.Rename(ctx, args[0], args[1])
			})
		},
	}
}
