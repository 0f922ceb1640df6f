package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/extract"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/spf13/cobra"
)

// volumeFixes say what to do about errors of volumes.
var volumeFixes = []struct {
	err error
	fix string
}{
	{volume.ErrNotFound, "`bulkhead volume ls` lists the volumes; make one with `bulkhead volume create`"},
	{volume.ErrInUse, "remove those workloads first with `bulkhead rm`"},
	{volume.ErrDamaged, "look at it below the state directory's volumes, and remove it with `bulkhead volume rm`"},
	{volume.ErrName, "choose a name such as db-data"},
	{extract.ErrLimit, "mount the volume with nocopy, and fill it yourself"},
}

// localDriver is the only volume driver.
const localDriver = "local"

// volumeView is what inspect shows of a volume; the names are Docker's.
type volumeView struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
	Anonymous  bool
	Users      []string
}

func newVolumeView(v engine.VolumeRecord) volumeView {
	view := volumeView{
		CreatedAt: v.Created.UTC().Format(time.RFC3339), Driver: localDriver, Labels: v.Labels, Mountpoint: v.Mountpoint,
		Name: v.Name, Options: map[string]string{}, Scope: "local", Anonymous: v.Anonymous, Users: v.Users,
	}
	if view.Labels == nil {
		view.Labels = map[string]string{}
	}
	if view.Users == nil {
		view.Users = []string{}
	}
	return view
}

func (a *app) volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume COMMAND",
		Short: "Manage volumes",
		Long: `A volume is a directory that outlives the workloads that write to it. Run makes
those that it is asked for and that do not exist. Files in it have the owners that
workloads see, behind every boundary the same.`,
		Example: `  bulkhead volume create db-data
  bulkhead run -d --name db -v db-data:/var/lib/postgresql/data postgres
  bulkhead volume ls --filter dangling=true`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.volumeCreateCommand(), a.volumeListCommand(), a.volumeInspectCommand(), a.volumeRemoveCommand(), a.volumePruneCommand())
	return cmd
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var driver string
	var labels, options []string
	cmd := &cobra.Command{
		Use:     "create [flags] [NAME]",
		Short:   "Make a volume",
		Long:    "Create makes an empty volume and prints its name. One that exists stays as it is.\nWithout a name it gets a random one, as the volumes of `run -v TARGET` do.",
		Example: "  bulkhead volume create --label app=shop db-data",
		Args:    needs(0, 1, "a name at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if driver != localDriver {
				return advice.New(fmt.Sprintf("--driver %q: there is no such volume driver", driver), "leave it out: this version has local only")
			}
			if err := refuseVolumeOptions(options); err != nil {
				return err
			}
			var v volume.Volume
			var err error
			if v.Labels, err = runspec.ParseLabels(labels); err != nil {
				return err
			}
			if len(args) > 0 {
				v.Name = args[0]
				if err := volume.CheckName(v.Name); err != nil {
					return err
				}
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				v, err := e.CreateVolume(ctx, v)
				if err == nil {
					fmt.Fprintln(a.out, v.Name)
				}
				return err
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", localDriver, "`name` of the driver; there is local only")
	fs.StringArrayVarP(&labels, "label", "l", nil, "attach `KEY=VALUE` for your own use")
	fs.StringArrayVarP(&options, "opt", "o", nil, "refused, each with what to use instead: `OPTION` of Docker's local driver")
	return cmd
}

// refuseVolumeOptions says what to do instead of each option of Docker's local
// driver, which mounts file systems when the first container wants them.
func refuseVolumeOptions(options []string) error {
	if len(options) == 0 {
		return nil
	}
	fix := "a volume is a plain directory; for a file system in memory give run --tmpfs, for a host directory or a mounted file system -v"
	if strings.HasPrefix(options[0], "size=") {
		fix = "the size of one directory cannot be limited; give run --tmpfs TARGET:size=SIZE, or -v with a directory on a file system of that size"
	}
	return advice.New(fmt.Sprintf("--opt %q: volumes have no options", options[0]), fix)
}

// volumeRow is what templates and JSON of volume ls see; the names are Docker's.
type volumeRow struct {
	Driver     string
	Name       string
	Mountpoint string
	Scope      string
	Labels     string
	CreatedAt  string
	Links      int
	Size       string
	// Of cluster volumes, which there are not.
	Availability, Group, Status string

	labels map[string]string
}

// Label is called by {{.Label "key"}}.
func (r volumeRow) Label(key string) string { return r.labels[key] }

var volumeListing = output.Listing{
	Columns: []output.Column{{Header: "DRIVER", Field: "Driver"}, {Header: "VOLUME NAME", Field: "Name"}},
	More: []output.Column{
		{Header: "MOUNTPOINT", Field: "Mountpoint"}, {Header: "SCOPE", Field: "Scope"}, {Header: "LABELS", Field: "Labels"},
		{Header: "CREATED AT", Field: "CreatedAt"}, {Header: "LINKS", Field: "Links"}, {Header: "SIZE", Field: "Size"},
		{Header: "AVAILABILITY", Field: "Availability"}, {Header: "GROUP", Field: "Group"}, {Header: "STATUS", Field: "Status"},
	},
}

func newVolumeRow(v engine.VolumeRecord) volumeRow {
	return volumeRow{
		Driver: localDriver, Name: v.Name, Mountpoint: v.Mountpoint, Scope: "local", Labels: joinLabels(v.Labels),
		CreatedAt: v.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), Links: len(v.Users), Size: "N/A", Availability: "N/A", Group: "N/A", Status: "N/A", labels: v.Labels,
	}
}

// joinLabels writes labels as listings do.
func joinLabels(labels map[string]string) string {
	var all []string
	for k, v := range labels {
		all = append(all, k+"="+v)
	}
	sort.Strings(all)
	return strings.Join(all, ",")
}

// volumeFilters are the keys of --filter.
var volumeFilters = filterSet{
	keys: map[string]filterCheck{"name": expression, "label": anyText, "dangling": truth, "driver": anyText},
}

// matchVolume reports whether a filter of volumes holds.
func matchVolume(v engine.VolumeRecord, key, value string) bool {
	switch key {
	case "name":
		return isMatch(value, v.Name)
	case "label":
		return hasLabel(v.Labels, value)
	case "label!":
		return !hasLabel(v.Labels, value)
	case "dangling":
		return isTrue(value) == (len(v.Users) == 0)
	case "driver":
		return value == localDriver
	}
	return false
}

func (a *app) volumeListCommand() *cobra.Command {
	var quiet bool
	var format string
	var words []string
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Long: `Ls lists the volumes in the order of their names. Filters are name=EXPRESSION,
a part of a name or a regular expression such as ^data$, label=KEY[=VALUE],
driver=local and dangling=true for those that no workload has, running or not.`,
		Example:           "  bulkhead volume ls\n  bulkhead volume ls -q --filter dangling=true\n  bulkhead volume ls --format '{{.Name}} {{.Mountpoint}}'",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := volumeFilters.parse(words)
			if err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				all, err := a.listVolumes(ctx, e)
				if err != nil {
					return err
				}
				var rows []volumeRow
				for _, v := range all {
					if keep.all(func(key, value string) bool { return matchVolume(v, key, value) }) {
						rows = append(rows, newVolumeRow(v))
					}
				}
				if quiet && isTable(format) {
					format = "{{.Name}}"
				}
				return output.Write(a.out, volumeListing, format, rows)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
	cmd.Flags().StringArrayVarP(&words, "filter", "f", nil, "only those that match `KEY=VALUE`")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// listVolumes returns the volumes; what is damaged is a warning.
func (a *app) listVolumes(ctx context.Context, e *engine.Engine) ([]engine.VolumeRecord, error) {
	all, err := e.Volumes(ctx)
	if err != nil && !errors.Is(err, volume.ErrDamaged) {
		return nil, err
	}
	if err != nil {
		a.warn(err.Error())
	}
	return all, nil
}

func (a *app) volumeInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:               "inspect [flags] VOLUME...",
		Short:             "Show all that is known of volumes",
		Long:              "Inspect shows volumes as JSON. Users are the workloads that have it, running or\nnot.",
		Example:           "  bulkhead volume inspect --format '{{.Mountpoint}}' db-data",
		Args:              needs(1, -1, "a volume"),
		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return a.inspectAll(format, args, func(name string) (any, error) {
					v, err := e.Volume(ctx, name)
					if err != nil {
						return nil, err
					}
					return newVolumeView(v), nil
				})
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	return cmd
}

func (a *app) volumeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm [flags] VOLUME...",
		Aliases:           []string{"remove"},
		Short:             "Remove volumes with what is in them",
		Long:              "Rm removes volumes. One that a workload has, running or not, is refused.",
		Example:           "  bulkhead volume rm db-data",
		Args:              needs(1, -1, "a volume"),
		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, name string) error {
				err := e.RemoveVolume(ctx, name)
				if force && errors.Is(err, volume.ErrNotFound) {
					return nil
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "say nothing about what does not exist")
	return cmd
}

// completeVolumes offers the names of volumes.
func (a *app) completeVolumes(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	_ = a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		all, err := e.Volumes(ctx)
		for _, v := range all {
			if strings.HasPrefix(v.Name, toComplete) {
				names = append(names, v.Name)
			}
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeVolumeFlag offers volumes and, where a path is begun, files.
func (a *app) completeVolumeFlag(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if strings.HasPrefix(toComplete, "/") || strings.HasPrefix(toComplete, ".") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, _ := a.completeVolumes(cmd, args, toComplete)
	for i, n := range names {
		names[i] = n + ":"
	}
	return names, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
