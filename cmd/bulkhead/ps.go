package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// psRow is what templates and JSON of ps see; the names are Docker's.
type psRow struct {
	ID         string
	Image      string
	Command    string
	CreatedAt  string
	RunningFor string
	State      string
	Status     string
	Boundary   string
	Names      string
	Labels     string
	Mounts     string
	Networks   string
	Ports      string
	Size       string
	// LocalVolumes is how many volumes it has, Health what its checks say.
	LocalVolumes int
	Health       string

	labels map[string]string
}

// Label is called by {{.Label "key"}}.
func (r psRow) Label(key string) string { return r.labels[key] }

var psListing = output.Listing{
	Columns: []output.Column{
		{Header: "ID", Field: "ID"}, {Header: "IMAGE", Field: "Image"}, {Header: "COMMAND", Field: "Command"},
		{Header: "CREATED", Field: "RunningFor"}, {Header: "STATUS", Field: "Status"},
		{Header: "BOUNDARY", Field: "Boundary"}, {Header: "PORTS", Field: "Ports"}, {Header: "NAMES", Field: "Names"},
	},
	More: []output.Column{
		{Header: "CREATED AT", Field: "CreatedAt"}, {Header: "STATE", Field: "State"}, {Header: "LABELS", Field: "Labels"},
		{Header: "MOUNTS", Field: "Mounts"}, {Header: "NETWORKS", Field: "Networks"}, {Header: "SIZE", Field: "Size"},
		{Header: "LOCAL VOLUMES", Field: "LocalVolumes"}, {Header: "HEALTH", Field: "Health"},
	},
}

// psFlags are the flags of ps.
type psFlags struct {
	all, quiet, noTrunc, latest, size bool
	last                              int
	format                            string
	words                             []string
}

func (a *app) psCommand() *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use:   "ps [flags]",
		Short: "List workloads",
		Long: `Ps lists the workloads that are running, with -a all of them, the newest
first. Filters are name=EXPRESSION and id=EXPRESSION, a part of it or a regular
expression such as ^web$, status=STATUS, health=HEALTH, label=KEY[=VALUE],
ancestor=IMAGE, boundary=BOUNDARY, restart-policy=POLICY, exited=CODE,
before=WORKLOAD, since=WORKLOAD, volume=NAME or PATH, network=NETWORK,
publish=PORT[/PROTOCOL] and expose=PORT[/PROTOCOL], the ports inside. All labels
must hold, of other kinds one; those of different kinds must all hold.`,
		Example: `  bulkhead ps
  bulkhead ps -a --filter status=exited --format '{{.Names}}: {{.Status}}'
  bulkhead ps -aq --filter 'name=^web$'
  bulkhead rm $(bulkhead ps -aq --filter label=job)`,
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return a.ps(cmd, f) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "all", "a", false, "also those that are not running")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "only IDs")
	fs.BoolVarP(&f.latest, "latest", "l", false, "only the newest, running or not")
	fs.IntVarP(&f.last, "last", "n", -1, "only this `number` of the newest, running or not")
	fs.BoolVarP(&f.size, "size", "s", false, "show the room that each takes on the disk")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "whole IDs and commands")
	fs.StringArrayVarP(&f.words, "filter", "f", nil, "only those that match `KEY=VALUE`")
	fs.StringVar(&f.format, "format", "", "`table`, json or a Go template")
	return cmd
}

func (a *app) ps(cmd *cobra.Command, f psFlags) error {
	keep, err := parseFilters(f.words)
	if err != nil {
		return err
	}
	if f.latest {
		f.last = 1
	}
	all := f.all || f.last >= 0 || keep.has("status") || keep.has("exited")
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		records, err := e.List(ctx)
		if err != nil {
			return err
		}
		if err := a.resolveFilters(ctx, e, keep); err != nil {
			return err
		}
		slices.Reverse(records)
		var rows []psRow
		for _, r := range records {
			if f.last >= 0 && len(rows) >= f.last {
				break
			}
			if r.Tenant() == "" && (all || running(r.Status)) && keep.match(r) {
				rows = append(rows, newPsRow(r, time.Now(), f.noTrunc))
				if f.size || strings.Contains(f.format, ".Size") {
					rows[len(rows)-1].Size = a.psSize(ctx, e, r)
				}
			}
		}
		listing := psListing
		if f.size {
			listing.Columns = append(slices.Clone(listing.Columns), output.Column{Header: "SIZE", Field: "Size"})
		}
		if f.quiet {
			f.format = "{{.ID}}"
		}
		return output.Write(a.out, listing, f.format, rows)
	})
}

// psSize says how much room a workload's own files take on the disk, and, in
// brackets, with its image.
func (a *app) psSize(ctx context.Context, e *engine.Engine, r *engine.Record) string {
	own, err := e.WritableSize(ctx, r)
	if err != nil {
		return "N/A"
	}
	text := output.Size(own)
	if store, err := a.images(); err == nil && r.Spec.Image.Digest != "" {
		if im, err := store.Inspect(r.Spec.Image.Digest); err == nil {
			text += fmt.Sprintf(" (virtual %s)", output.Size(own+im.DiskSize))
		}
	}
	return text
}

// newPsRow describes one workload as of now.
func newPsRow(r *engine.Record, now time.Time, whole bool) psRow {
	s := &r.Spec
	row := psRow{
		ID: s.ID.Short(), Image: familiar(s.Image.Reference), Command: strconv.Quote(clip(strings.Join(s.Process.Args, " "), 20, whole)),
		CreatedAt: s.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: output.Ago(now.Sub(s.Created)) + " ago",
		State: string(r.Status), Status: status(r, now), Boundary: s.Boundary, Names: s.Name, Networks: networkNames(s),
		Size: "N/A", Labels: joinLabels(s.Labels), Health: "none", labels: s.Labels,
	}
	if whole {
		row.ID = string(s.ID)
	}
	if running(r.Status) {
		row.Ports = describePorts(r.Ports, r.NICs, s.Exposed)
	}
	if r.Health != nil {
		row.Health = r.Health.Status
	}
	var mounts []string
	for _, m := range s.Mounts {
		mounts = append(mounts, clip(cmp.Or(m.Source, m.Target), 15, whole))
		if m.Type == "volume" {
			row.LocalVolumes++
		}
	}
	row.Mounts = strings.Join(mounts, ",")
	return row
}

// networkNames are the networks of a workload, or the mode that stands for none
// of the engine's.
func networkNames(s *workload.Spec) string {
	if s.Network != workload.NetworkBridge {
		return s.Network
	}
	var names []string
	for _, n := range s.Networks {
		names = append(names, n.Network)
	}
	return strings.Join(names, ",")
}

// clip shortens s to n characters, the last an ellipsis, unless whole.
func clip(s string, n int, whole bool) string {
	if r := []rune(s); !whole && len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// status says in words how a workload is.
func status(r *engine.Record, now time.Time) string {
	switch r.Status {
	case workload.Running:
		return "Up " + output.Ago(now.Sub(r.Started)) + health(r)
	case workload.Paused:
		return "Up " + output.Ago(now.Sub(r.Started)) + " (Paused)"
	case workload.Exited:
		return fmt.Sprintf("Exited (%s) %s ago", ending(r.Exit), output.Ago(now.Sub(r.Finished)))
	case workload.Restarting:
		return fmt.Sprintf("Restarting (%s) %s ago", ending(r.Exit), output.Ago(now.Sub(r.Finished)))
	}
	return "Created"
}

// health is what ps says of health checks: Docker's words.
func health(r *engine.Record) string {
	switch {
	case r.Health == nil:
		return ""
	case r.Health.Status == workload.Starting:
		return " (health: starting)"
	}
	return " (" + r.Health.Status + ")"
}

// ending says in a few words how a run ended.
func ending(e *workload.Exit) string {
	switch {
	case e == nil:
		return "unknown"
	case e.Error != "":
		first, _, _ := strings.Cut(e.Error, "\n") // inspect has the guest's console, too
		return first
	case e.OOMKilled:
		return strconv.Itoa(e.Code) + ", out of memory"
	}
	return strconv.Itoa(e.Code)
}

// startsOnBoot reports whether a restart policy wants the workload to run after
// a boot: always does, unless-stopped does if no command had ended it.
func startsOnBoot(r *engine.Record) bool {
	switch r.Spec.Restart.Policy {
	case workload.RestartAlways:
		return true
	case workload.RestartUnlessStopped:
		return !r.Stopped && r.Status != workload.Created
	}
	return false
}
