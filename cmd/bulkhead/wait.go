package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) waitCommand() *cobra.Command {
	var conditions []string
	cmd := &cobra.Command{
		Use:   "wait [flags] WORKLOAD...",
		Short: "Wait until workloads end, or are as wanted",
		Long: `Wait waits for the end of each workload in turn and prints its exit code. It
exits with 0 whatever these are.

With --condition it waits until a workload is ` + strings.Join(engine.Conditions[:len(engine.Conditions)-1], ", ") + `
or ` + engine.Conditions[len(engine.Conditions)-1] + `, one of several if the flag is repeated, and prints its exit code, -1 while
it runs, as Podman does. It fails when a workload that is to become healthy has no health
check, or ends before: so a script can start a system in the order of health.`,
		Example: `  bulkhead wait job
  bulkhead run -d --name db --health-cmd pg_isready postgres
  bulkhead wait --condition healthy db
  bulkhead run -d --name app app`,
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, c := range conditions {
				if !slices.Contains(engine.Conditions, c) {
					return advice.New(fmt.Sprintf("--condition %q: unknown condition", c), "give "+strings.Join(engine.Conditions, ", "))
				}
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return a.each(args, func(ref string) error {
					if len(conditions) > 0 {
						return a.waitFor(ctx, e, ref, conditions)
					}
					return a.waitEnd(ctx, e, ref)
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&conditions, "condition", nil, "wait for this `state` or health instead of the end")
	// The only error is a flag that does not exist.
	if err := cmd.RegisterFlagCompletionFunc("condition", cobra.FixedCompletions(engine.Conditions, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
	return cmd
}

// waitEnd waits for the end of a run.
func (a *app) waitEnd(ctx context.Context, e *engine.Engine, ref string) error {
	exit, err := e.Wait(ctx, ref)
	if err != nil {
		return err
	}
	if exit.Error != "" {
		return fmt.Errorf("%s: %s", ref, exit.Error)
	}
	fmt.Fprintln(a.out, exit.Code)
	return nil
}

func (a *app) waitFor(ctx context.Context, e *engine.Engine, ref string, conditions []string) error {
	r, err := e.WaitFor(ctx, ref, conditions...)
	if errors.Is(err, engine.ErrCondition) {
		return advice.Wrap(err, err.Error(), "see what it does with `bulkhead logs`, and what its checks say with `bulkhead inspect`")
	}
	if err != nil {
		return err
	}
	code := -1
	if r != nil && !running(r.Status) && r.Exit != nil {
		code = r.Exit.Code
	}
	fmt.Fprintln(a.out, code)
	return nil
}
