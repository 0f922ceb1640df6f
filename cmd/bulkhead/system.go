package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/spf13/cobra"
)

func (a *app) systemCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "system COMMAND",
		Short:   "See and clear what this program keeps on the machine",
		Long:    "System shows what takes room on the disk, clears what nothing needs, and tells\nwhat machine this is.",
		Example: "  bulkhead system df\n  bulkhead system prune --volumes",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range []*cobra.Command{a.infoCommand(), a.eventsCommand()} {
		c.Annotations = withAnnotation(c.Annotations, sameAs, c.Name())
		cmd.AddCommand(c)
	}
	cmd.AddCommand(a.systemUsageCommand(), a.systemPruneCommand())
	return cmd
}

func (a *app) systemPruneCommand() *cobra.Command {
	var all, volumes bool
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove workloads, networks, images and volumes that nothing needs",
		Long: `Prune removes the workloads that do not run, the networks that then no workload
has, and the images without a tag that no workload was made from; with -a also
those with a tag, with --volumes also the anonymous volumes that no workload has.
Filters are label=KEY[=VALUE], label!=KEY[=VALUE] and until=TIME, for what was made
before; until cannot be used together with --volumes, whose content may be newer
than they are.`,
		Example:           "  bulkhead system prune\n  bulkhead system prune -af --volumes\n  bulkhead system prune --filter until=24h",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := pruneFilters.parse(f.words)
			if err != nil {
				return err
			}
			if volumes && keep.has("until") {
				return advice.New("--filter until and --volumes exclude each other", "prune the volumes by themselves: `bulkhead volume prune --filter until=…`")
			}
			if err := a.sure(f.force, pruneQuestion(all, volumes)); err != nil {
				return err
			}
			return a.withNetworks(cmd, func(ctx context.Context, e *engine.Engine, s *bridge.Store) error {
				return a.pruneSystem(ctx, e, s, all, volumes, keep)
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "also anonymous volumes")
	f.add(cmd)
	return cmd
}

// pruneQuestion says what would go.
func pruneQuestion(all, volumes bool) string {
	what := []string{"every workload that does not run", "every network that no workload has", "every image that has no tag"}
	if all {
		what[2] = "every image that no workload was made from"
	}
	if volumes {
		what = append(what, "every anonymous volume that no workload has")
	}
	last := len(what) - 1
	return "Remove " + strings.Join(what[:last], ", ") + " and " + what[last] + "?"
}

// pruneSystem removes workloads first: they keep the rest.
func (a *app) pruneSystem(ctx context.Context, e *engine.Engine, s *bridge.Store, all, volumes bool, keep filters) error {
	total, err := a.pruneWorkloads(ctx, e, keep)
	if err != nil {
		return err
	}
	networks, err := a.pruneNetworks(ctx, e, s, keep)
	a.pruned("Networks", networks)
	if err != nil {
		return err
	}
	if volumes {
		bytes, err := a.pruneVolumes(ctx, e, false, keep)
		total += bytes
		if err != nil {
			return err
		}
	}
	store, err := a.images()
	if err != nil {
		return err
	}
	bytes, err := a.pruneImages(store, inUse(e), all, keep)
	if err != nil {
		return err
	}
	if bytes > 0 {
		fmt.Fprintln(a.out)
	}
	a.reclaimed(total + bytes)
	return nil
}
