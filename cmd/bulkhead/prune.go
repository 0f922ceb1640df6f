package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/spf13/cobra"
)

// pruneFilters are what every prune can be narrowed by.
var pruneFilters = filterSet{keys: map[string]filterCheck{"label": anyText, "label!": anyText, "until": untilText}}

// untilText wants what parseTime reads.
func untilText(s string) string {
	if _, err := parseTime("until", s, time.Now()); err != nil {
		return advice.Fix(err)
	}
	return ""
}

// chosen reports whether a thing made at a time, with labels, is to be pruned.
func (f filters) chosen(made time.Time, labels map[string]string, now time.Time) bool {
	return f.all(func(key, value string) bool {
		switch key {
		case "label":
			return hasLabel(labels, value)
		case "label!":
			return !hasLabel(labels, value)
		}
		until, err := parseTime("until", value, now)
		return err == nil && made.Before(until)
	})
}

// pruneFlags are those that every prune has.
type pruneFlags struct {
	force bool
	words []string
}

func (f *pruneFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "do not ask")
	cmd.Flags().StringArrayVar(&f.words, "filter", nil, "only those that match `KEY=VALUE`: label, label!, until")
}

// sure asks unless force is given; the error ends the command.
func (a *app) sure(force bool, question string) error {
	if force {
		return nil
	}
	ok, err := a.confirm(question)
	if err == nil && !ok {
		err = exitStatus(exitFailure)
	}
	return err
}

// pruned says what was removed.
func (a *app) pruned(what string, names []string) {
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(a.out, "Deleted %s:\n", what)
	for _, n := range names {
		fmt.Fprintln(a.out, n)
	}
	fmt.Fprintln(a.out)
}

// reclaimed says how much room that made.
func (a *app) reclaimed(bytes int64) {
	fmt.Fprintf(a.out, "Total reclaimed space: %s\n", output.Size(bytes))
}

// volumePruneFilters has Docker's older way to say --all.
var volumePruneFilters = filterSet{keys: map[string]filterCheck{"label": anyText, "label!": anyText, "until": untilText, "all": truth}}

func (a *app) volumePruneCommand() *cobra.Command {
	var all bool
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove volumes that no workload has",
		Long: `Prune removes anonymous volumes that no workload has, running or not; with -a also
those with a name. Filters are label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME,
for those made before, and all=true, which is -a.`,
		Example:           "  bulkhead volume prune -f\n  bulkhead volume prune -a --filter label=scratch",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := volumePruneFilters.parse(f.words)
			if err != nil {
				return err
			}
			all = all || slices.ContainsFunc(keep["all"], isTrue)
			delete(keep, "all")
			question := "Remove every anonymous volume that no workload has?"
			if all {
				question = "Remove every volume that no workload has, with what is in it?"
			}
			if err := a.sure(f.force, question); err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				bytes, err := a.pruneVolumes(ctx, e, all, keep)
				if err == nil {
					a.reclaimed(bytes)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also volumes that have a name")
	f.add(cmd)
	return cmd
}

// pruneVolumes removes volumes and lists them.
func (a *app) pruneVolumes(ctx context.Context, e *engine.Engine, all bool, keep filters) (int64, error) {
	now := time.Now()
	names, bytes, err := e.PruneVolumes(ctx, func(v volume.Volume) bool {
		return (all || v.Anonymous) && keep.chosen(v.Created, v.Labels, now)
	})
	a.pruned("Volumes", names)
	return bytes, err
}
