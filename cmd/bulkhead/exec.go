package main

import (
	"context"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) execCommand() *cobra.Command {
	var o runspec.ExecOptions
	var keys string
	var privileged bool
	cmd := &cobra.Command{
		Use:   "exec [flags] WORKLOAD COMMAND [ARG...]",
		Short: "Run another command in a running workload",
		Long: `Exec runs a command beside what a workload already runs, confined as the
workload is. Environment, directory and user are those of the workload where no
flag says otherwise. It exits with the command's exit code, or with 125, 126,
127 or 128+n as run does.`,
		Example:           "  bulkhead exec -it web sh\n  bulkhead exec -u 0 -e DEBUG=1 web env",
		Args:              needs(2, -1, "a workload and a command"),
		Annotations:       map[string]string{runsProgram: "1"},
		ValidArgsFunction: a.completeFirst(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			if privileged {
				return advice.New("--privileged is not available: a process has no more rights than its workload", "give the workload what it needs when it is made, such as --cap-add NAME; a whole system, --boundary vm --systemd, has every right")
			}
			if o.Detach && o.Interactive {
				return advice.New("-d leaves nobody at standard input for -i", "leave out one of the two")
			}
			if err := a.checkTerminal(o.TTY, o.Interactive, keys); err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.exec(ctx, e, &o, keys, args) })
		},
	}
	cmd.Flags().SetInterspersed(false)
	o.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&privileged, "privileged", false, "refused, with what to do instead")
	cmd.Flags().StringVar(&keys, "detach-keys", engine.DefaultDetachKeys, "`keys` that detach from a terminal")
	return cmd
}

func (a *app) exec(ctx context.Context, e *engine.Engine, o *runspec.ExecOptions, keys string, args []string) error {
	ref := args[0]
	rec, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	if rec.Status == workload.Paused {
		return advice.New(fmt.Sprintf("execute in %s: workload is paused", rec.Spec.Name), "let it continue with `bulkhead unpause`")
	}
	if rec.Status != workload.Running {
		return fmt.Errorf("execute in %s: %w", rec.Spec.Name, workload.ErrNotRunning)
	}
	p, err := o.Process(a.host, rec.Spec.Process, args[1:])
	if err != nil {
		return err
	}
	if o.Detach {
		_, err := e.Exec(ctx, ref, p, nil)
		return err
	}
	c := connection{tty: o.TTY, stdin: o.Interactive, detachKeys: keys, sigProxy: !o.TTY}
	exit, err := a.interact(ctx, c, func(ctx context.Context, s *engine.Streams) (*engine.Session, error) {
		p.Rows, p.Cols = s.Rows, s.Cols
		return e.Exec(ctx, ref, p, s)
	})
	return a.finish(rec.Spec.Name, exit, err)
}
