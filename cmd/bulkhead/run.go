package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// runFlags are the flags of run that create does not have.
type runFlags struct {
	detach     bool
	detachKeys string
	sigProxy   bool
	quiet      bool
	cidFile    string
	attach     []string
	trace      string
}

func (a *app) runCommand() *cobra.Command {
	var o runspec.Options
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Run a command in a new workload",
		Long: `Run makes a workload from an image, runs a command in it and passes on its
output. It exits with the command's exit code, or with 125 when bulkhead itself
fails, 126 when the command cannot be executed, 127 when it cannot be found,
and 128+n when signal n ended it.

With -it, ctrl-p ctrl-q detaches and leaves the workload running.`,
		Example: `  bulkhead run --rm -it alpine sh
  bulkhead run -d --name web -v /srv/www:/data:ro --memory 128m --read-only nginx
  bulkhead run --rm --cap-drop ALL --user 1000:1000 debian:12 id`,
		Args:              needs(1, -1, "an image, and maybe a command"),
		Annotations:       map[string]string{runsProgram: "1"},
		ValidArgsFunction: a.completeImageThenNothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.EntrypointSet = cmd.Flags().Changed("entrypoint")
			if err := f.streams(&o); err != nil {
				return err
			}
			return a.traced(cmd, f.trace, func() error {
				return withCIDFile(f.cidFile, func(id func(workload.ID)) error { return a.run(cmd, &o, f, id, args) })
			})
		},
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	o.AddFlags(fs)
	fs.BoolVarP(&f.detach, "detach", "d", false, "leave the workload running and print its ID")
	fs.StringVar(&f.detachKeys, "detach-keys", engine.DefaultDetachKeys, "`keys` that detach from a terminal")
	fs.BoolVar(&f.sigProxy, "sig-proxy", true, "pass on signals to the command; with -it the keys make them")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress of pulling")
	fs.StringArrayVarP(&f.attach, "attach", "a", nil, "pass on this `stream` only: stdin, stdout or stderr; may be given again")
	fs.StringVar(&f.cidFile, "cidfile", "", "write the workload's ID to a `file`, which must not exist")
	addTrace(fs, &f.trace)
	a.completeRunFlags(cmd)
	return cmd
}

func (a *app) createCommand() *cobra.Command {
	var o runspec.Options
	var quiet bool
	var cidFile string
	cmd := &cobra.Command{
		Use:   "create [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Make a workload without starting it",
		Long:  "Create makes a workload as run does, prints its ID, and leaves starting it to\nstart.",
		Example: `  bulkhead create --name job debian:12 sleep 60
  bulkhead start -a job`,
		Args:              needs(1, -1, "an image, and maybe a command"),
		Annotations:       map[string]string{runsProgram: "1"},
		ValidArgsFunction: a.completeImageThenNothing,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.EntrypointSet = cmd.Flags().Changed("entrypoint")
			return withCIDFile(cidFile, func(id func(workload.ID)) error { return a.create(cmd, &o, quiet, id, args) })
		},
	}
	cmd.Flags().SetInterspersed(false)
	o.AddFlags(cmd.Flags())
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress of pulling")
	cmd.Flags().StringVar(&cidFile, "cidfile", "", "write the workload's ID to a `file`, which must not exist")
	a.completeRunFlags(cmd)
	return cmd
}

// specify adds the image to a checked command line, whose first word names it.
func (a *app) specify(ctx context.Context, req *runspec.Request, quiet bool, name string) (workload.Spec, error) {
	finding, found := trace.Begin(ctx, "image found, or pulled")
	img, config, err := a.imageFor(finding, name, req.Pull, req.Platform, quiet)
	found.End()
	if err != nil {
		return workload.Spec{}, err
	}
	return req.Spec(a.host, img, config)
}

// volumesFrom adds the mounts of other workloads.
func (a *app) volumesFrom(ctx context.Context, e *engine.Engine, req *runspec.Request) error {
	for _, f := range req.From {
		rec, err := e.Inspect(ctx, f.Workload)
		if err != nil {
			return err
		}
		req.AddFrom(f, rec.Spec.Mounts)
	}
	return nil
}

func (a *app) create(cmd *cobra.Command, o *runspec.Options, quiet bool, id func(workload.ID), args []string) error {
	// Once, and before an image is pulled: a file of variables may be a pipe.
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
		rec, err := e.Create(ctx, spec)
		if err == nil {
			id(rec.Spec.ID)
			fmt.Fprintln(a.out, rec.Spec.ID)
		}
		return err
	})
}

func (a *app) run(cmd *cobra.Command, o *runspec.Options, f runFlags, id func(workload.ID), args []string) error {
	if f.detach && cmd.Flags().Changed("detach-keys") {
		return advice.New("--detach-keys has no meaning with -d", "give it to `bulkhead attach`")
	}
	req, err := o.Check(a.host, args[1:])
	if err != nil {
		return err
	}
	if !f.detach {
		if err := a.checkTerminal(o.TTY, o.Interactive, f.detachKeys); err != nil {
			return err
		}
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		if err := a.volumesFrom(ctx, e, req); err != nil {
			return err
		}
		spec, err := a.specify(ctx, req, f.quiet, args[0])
		if err != nil {
			return err
		}
		return a.runSpec(ctx, e, spec, f, id)
	})
}

// runSpec runs what is specified and stays with it unless it is detached.
func (a *app) runSpec(ctx context.Context, e *engine.Engine, spec workload.Spec, f runFlags, id func(workload.ID)) error {
	if f.detach {
		session, err := e.Run(ctx, spec, nil)
		if err != nil {
			return err
		}
		id(session.Record.Spec.ID)
		fmt.Fprintln(a.out, session.Record.Spec.ID)
		return nil
	}
	c := connection{tty: spec.Process.Terminal, stdin: spec.KeepStdin, detachKeys: f.detachKeys, sigProxy: f.sigProxy}
	if len(f.attach) > 0 {
		c.stdin = c.stdin && slices.Contains(f.attach, "stdin")
		c.noOut, c.noErr = !slices.Contains(f.attach, "stdout"), !slices.Contains(f.attach, "stderr")
	}
	name := spec.Name
	exit, err := a.interact(ctx, c, func(ctx context.Context, s *engine.Streams) (*engine.Session, error) {
		spec.Process.Rows, spec.Process.Cols = s.Rows, s.Cols
		session, err := e.Run(ctx, spec, s)
		if err == nil {
			name = session.Record.Spec.Name // the engine chose one if we did not
			id(session.Record.Spec.ID)
		}
		return session, err
	})
	return a.finish(name, exit, err)
}
