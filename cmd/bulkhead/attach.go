package main

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) attachCommand() *cobra.Command {
	c := connection{}
	var noStdin bool
	cmd := &cobra.Command{
		Use:   "attach [flags] WORKLOAD",
		Short: "Connect to the first process of a running workload",
		Long: `Attach passes on what you type and what the workload's first process writes
from now on; logs shows what it wrote before. On a terminal, ctrl-p ctrl-q
detaches and leaves the workload running.`,
		Example:           "  bulkhead attach web\n  bulkhead attach --no-stdin --sig-proxy=false web",
		Args:              needs(1, 1, "one workload"),
		Annotations:       map[string]string{runsProgram: "1"},
		ValidArgsFunction: a.completeWorkloads(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.stdin = !noStdin
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.attach(ctx, e, args[0], c) })
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "do not pass on standard input")
	cmd.Flags().StringVar(&c.detachKeys, "detach-keys", engine.DefaultDetachKeys, "`keys` that detach from a terminal")
	cmd.Flags().BoolVar(&c.sigProxy, "sig-proxy", true, "pass on signals to the workload, without a terminal")
	return cmd
}

func (a *app) attach(ctx context.Context, e *engine.Engine, ref string, c connection) error {
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
		return e.Attach(ctx, ref, s)
	})
	return a.finish(rec.Spec.Name, exit, err)
}
