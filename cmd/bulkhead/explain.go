package main

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) explainCommand() *cobra.Command {
	var o runspec.Options
	var quiet bool
	cmd := &cobra.Command{
		Use:   "explain [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Show the system calls that run would make",
		Long: `Explain prints, step by step, what run would do with the same flags: which
process makes which system call, and why. Nothing is started.`,
		Example:           "  bulkhead explain alpine sh\n  bulkhead explain --userns host --cap-add NET_ADMIN alpine ip link",
		Args:              needs(1, -1, "an image, and maybe a command"),
		ValidArgsFunction: a.completeImageThenNothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.EntrypointSet = cmd.Flags().Changed("entrypoint")
			req, err := o.Check(a.host, args[1:])
			if err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				if err := a.volumesFrom(ctx, e, req); err != nil {
					return err
				}
				spec, err := a.specify(ctx, req, quiet, args[0])
				if err != nil {
					return err
				}
				w := safetext.NewWriter(a.out)
				if err := e.Explain(ctx, spec, w); err != nil {
					return err
				}
				return w.Close()
			})
		},
	}
	cmd.Flags().SetInterspersed(false)
	o.AddFlags(cmd.Flags())
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress of pulling")
	a.completeRunFlags(cmd)
	return cmd
}
