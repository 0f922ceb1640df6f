package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) startCommand() *cobra.Command {
	var attach, interactive, all bool
	var filter []string
	var keys, traceAs string
	var sigProxy bool
	cmd := &cobra.Command{
		Use:   "start [flags] WORKLOAD...",
		Short: "Start workloads that are created or have ended",
		Long: `Start starts workloads and prints what was given for each. With -a it stays
with one workload, passes on its output and exits with its exit code.

With --all it starts every workload that does not run, or those of them that
--filter selects as ps does. No daemon brings workloads back after a reboot: a
unit of the service manager that runs the last example does.`,
		Example: `  bulkhead start web
  bulkhead start -ai job
  bulkhead start --all --filter should-start-on-boot=true`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return needs(0, 0, "no workload beside --all")(cmd, args)
			}
			return needs(1, -1, "a workload")(cmd, args)
		},
		ValidArgsFunction: a.completeWorkloads(notRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			if traceAs != "" && (all || len(args) > 1) {
				return advice.New("--trace shows the start of one workload", "leave out --trace, or name one workload")
			}
			if all || len(filter) > 0 {
				if !all || attach || interactive {
					return advice.New("--filter goes with --all, and neither with -a or -i", usage(cmd))
				}
				return a.startSelected(cmd, filter)
			}
			if !attach && !interactive {
				return a.traced(cmd, traceAs, func() error {
					return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.startAll(ctx, e, args) })
				})
			}
			cmd.Annotations = map[string]string{runsProgram: "1"}
			if len(args) > 1 {
				return advice.New("start can attach to one workload only", "leave out -a and -i, or name one workload")
			}
			c := connection{stdin: interactive, detachKeys: keys, sigProxy: sigProxy, noOutput: !attach && !interactive}
			return a.traced(cmd, traceAs, func() error {
				return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.startAttached(ctx, e, args[0], c) })
			})
		},
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "pass on output and exit code")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "pass on standard input, where the workload keeps one; implies -a")
	cmd.Flags().BoolVar(&all, "all", false, "start every workload that does not run")
	cmd.Flags().StringArrayVarP(&filter, "filter", "f", nil, "with --all, only those that match `KEY=VALUE`; see ps")
	cmd.Flags().StringVar(&keys, "detach-keys", engine.DefaultDetachKeys, "`keys` that detach from a terminal")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "pass on signals to the workload, without a terminal")
	addTrace(cmd.Flags(), &traceAs)
	return cmd
}

// startSelected starts the workloads that do not run and that filters select,
// the oldest first.
func (a *app) startSelected(cmd *cobra.Command, filter []string) error {
	keep, err := parseFilters(filter)
	if err != nil {
		return err
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		records, err := e.List(ctx)
		if err != nil {
			return err
		}
		if err := a.resolveFilters(ctx, e, keep); err != nil {
			return err
		}
		var names []string
		for _, r := range records {
			if r.Tenant() == "" && !running(r.Status) && keep.match(r) {
				names = append(names, r.Spec.Name)
			}
		}
		return a.startAll(ctx, e, names)
	})
}

// startAll starts workloads and leaves them. One that runs is as it should be.
func (a *app) startAll(ctx context.Context, e *engine.Engine, refs []string) error {
	return a.each(refs, func(ref string) error {
		if _, err := e.Start(ctx, ref, nil); err != nil && !errors.Is(err, workload.ErrRunning) {
			return err
		}
		fmt.Fprintln(a.out, ref)
		return nil
	})
}

// startAttached starts one workload and stays with it.
func (a *app) startAttached(ctx context.Context, e *engine.Engine, ref string, c connection) error {
	rec, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	c.tty = rec.Spec.Process.Terminal
	c.sigProxy = c.sigProxy && !c.tty // as Docker has it: whoever looks on does not end it
	c.stdin = c.stdin && rec.Spec.KeepStdin
	if err := a.checkTerminal(c.tty, c.stdin, c.detachKeys); err != nil {
		return err
	}
	exit, err := a.interact(ctx, c, func(ctx context.Context, s *engine.Streams) (*engine.Session, error) {
		return e.Start(ctx, ref, s)
	})
	return a.finish(rec.Spec.Name, exit, err)
}
