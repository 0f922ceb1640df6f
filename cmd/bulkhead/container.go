package main

import (
	"context"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

// sameAs marks a command that is another one under a second name: its page of
// the documentation is the other's.
const sameAs = "same-as"

// containerCommand returns `container` with the commands for workloads, which
// also stand alone: Docker has each under both names.
func (a *app) containerCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "container COMMAND",
		Short: "Manage workloads: Docker's second names of commands",
		Long: `Container holds the commands for workloads under the names that Docker has for
them, whatever isolates the workload. Prune is only here.`,
		Example: "  bulkhead container ls -a\n  bulkhead container prune --filter until=24h",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := named(a.psCommand(), "ls", "ps", "list")
	for _, c := range append(a.workloadCommands(), list) {
		c.Annotations = withAnnotation(c.Annotations, sameAs, c.Name())
		if c.Name() == "rm" {
			c.Aliases = append(c.Aliases, "remove")
		}
		parent.AddCommand(c)
	}
	list.Annotations[sameAs] = "ps"
	parent.AddCommand(a.containerPruneCommand())
	return parent
}

// workloadCommands are the commands for workloads that Docker also has below
// `container`, but for its listing.
func (a *app) workloadCommands() []*cobra.Command {
	return []*cobra.Command{
		a.runCommand(), a.createCommand(), a.startCommand(), a.stopCommand(), a.killCommand(), a.pauseCommand(), a.unpauseCommand(),
		a.waitCommand(), a.rmCommand(), a.execCommand(), a.attachCommand(), a.logsCommand(), a.inspectCommand(), a.portCommand(),
		a.cpCommand(), a.exportCommand(), a.commitCommand(), a.diffCommand(), a.restartCommand(), a.updateCommand(), a.renameCommand(), a.statsCommand(),
		a.topCommand(),
	}
}

// withAnnotation adds one to the annotations of a command.
func withAnnotation(all map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range all {
		out[k] = v
	}
	return out
}

func (a *app) containerPruneCommand() *cobra.Command {
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove workloads that do not run",
		Long: `Prune removes the workloads that do not run, with what they wrote other than to
volumes. Filters are label=KEY[=VALUE], label!=KEY[=VALUE] and until=TIME, for
those made before.`,
		Example:           "  bulkhead container prune -f\n  bulkhead container prune --filter until=24h --filter label!=keep",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := pruneFilters.parse(f.words)
			if err != nil {
				return err
			}
			if err := a.sure(f.force, "Remove every workload that does not run?"); err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				bytes, err := a.pruneWorkloads(ctx, e, keep)
				if err == nil {
					a.reclaimed(bytes)
				}
				return err
			})
		},
	}
	f.add(cmd)
	return cmd
}

// pruneWorkloads removes workloads and lists them.
func (a *app) pruneWorkloads(ctx context.Context, e *engine.Engine, keep filters) (int64, error) {
	now := time.Now()
	ids, bytes, err := e.PruneWorkloads(ctx, func(r *engine.Record) bool { return keep.chosen(r.Spec.Created, r.Spec.Labels, now) })
	a.pruned("Workloads", ids)
	return bytes, err
}
