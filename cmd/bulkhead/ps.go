package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
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

	labels map[string]string
}

// Label is called by {{.Label "key"}}.
func (r psRow) Label(key string) string { return r.labels[key] }

var psListing = output.Listing{
	Columns: []output.Column{
		{Header: "ID", Field: "ID"}, {Header: "IMAGE", Field: "Image"}, {Header: "COMMAND", Field: "Command"},
		{Header: "CREATED", Field: "RunningFor"}, {Header: "STATUS", Field: "Status"},
		{Header: "BOUNDARY", Field: "Boundary"}, {Header: "NAMES", Field: "Names"},
	},
	More: []output.Column{
		{Header: "CREATED AT", Field: "CreatedAt"}, {Header: "STATE", Field: "State"}, {Header: "LABELS", Field: "Labels"},
		{Header: "MOUNTS", Field: "Mounts"}, {Header: "NETWORKS", Field: "Networks"},
	},
}

func (a *app) psCommand() *cobra.Command {
	var all, quiet, noTrunc, latest bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use:   "ps [flags]",
		Short: "List workloads",
		Long: `Ps lists the workloads that are running, with -a all of them, the newest
first. Filters are name=TEXT, id=BEGINNING, status=STATUS, label=KEY[=VALUE],
ancestor=IMAGE, boundary=BOUNDARY, restart-policy=POLICY, health=HEALTH and
exited=CODE; those of one kind are alternatives, those of different kinds must
all hold.`,
		Example: `  bulkhead ps
  bulkhead ps -a --filter status=exited --format '{{.Names}}: {{.Status}}'
  bulkhead rm $(bulkhead ps -aq --filter label=job)`,
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := parseFilters(filters)
			if err != nil {
				return err
			}
			all = all || latest || keep.has("status") || keep.has("exited")
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				records, err := e.List(ctx)
				if err != nil {
					return err
				}
				slices.Reverse(records)
				var rows []psRow
				for _, r := range records {
					if r.Tenant() == "" && (all || running(r.Status)) && keep.match(r) {
						rows = append(rows, newPsRow(r, time.Now(), noTrunc))
					}
				}
				if latest && len(rows) > 1 {
					rows = rows[:1]
				}
				if quiet {
					format = "{{.ID}}"
				}
				return output.Write(a.out, psListing, format, rows)
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that are not running")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVarP(&latest, "latest", "l", false, "only the newest, running or not")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "whole IDs and commands")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "only those that match `KEY=VALUE`")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// newPsRow describes one workload as of now.
func newPsRow(r *engine.Record, now time.Time, whole bool) psRow {
	s := &r.Spec
	row := psRow{
		ID: s.ID.Short(), Image: familiar(s.Image.Reference), Command: strconv.Quote(clip(strings.Join(s.Process.Args, " "), 20, whole)),
		CreatedAt: s.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: output.Ago(now.Sub(s.Created)) + " ago",
		State: string(r.Status), Status: status(r, now), Boundary: s.Boundary, Names: s.Name, Networks: s.Network, labels: s.Labels,
	}
	if whole {
		row.ID = string(s.ID)
	}
	var labels, mounts []string
	for k, v := range s.Labels {
		labels = append(labels, k+"="+v)
	}
	sort.Strings(labels)
	for _, m := range s.Mounts {
		mounts = append(mounts, m.Target)
	}
	row.Labels, row.Mounts = strings.Join(labels, ","), strings.Join(mounts, ",")
	return row
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

// filters are the values of --filter by their key.
type filters map[string][]string

func (f filters) has(key string) bool { return len(f[key]) > 0 }

// filterKeys are the keys of ps --filter.
var filterKeys = []string{"name", "id", "status", "label", "ancestor", "boundary", "restart-policy", "should-start-on-boot", "health", "exited"}

func parseFilters(all []string) (filters, error) {
	out := filters{}
	for _, s := range all {
		k, v, ok := strings.Cut(s, "=")
		if !ok || v == "" || !slices.Contains(filterKeys, k) {
			return nil, advice.New(fmt.Sprintf("--filter %q: not a filter", s), "write KEY=VALUE; keys are "+strings.Join(filterKeys, ", "))
		}
		if k == "status" && !slices.Contains([]string{"created", "running", "paused", "restarting", "exited"}, v) {
			return nil, advice.New(fmt.Sprintf("--filter %q: unknown status", s), "it is created, running, paused, restarting or exited")
		}
		if _, err := strconv.ParseUint(v, 10, 8); k == "exited" && err != nil {
			return nil, advice.New(fmt.Sprintf("--filter %q: not an exit code", s), "give a number from 0 to 255")
		}
		out[k] = append(out[k], v)
	}
	return out, nil
}

// match reports whether every kind of filter holds.
func (f filters) match(r *engine.Record) bool {
	for key, values := range f {
		if !slices.ContainsFunc(values, func(v string) bool { return matches(r, key, v) }) {
			return false
		}
	}
	return true
}

// matches reports whether one filter holds.
func matches(r *engine.Record, key, value string) bool {
	s := &r.Spec
	switch key {
	case "name":
		return strings.Contains(s.Name, value)
	case "id":
		return strings.HasPrefix(string(s.ID), value)
	case "status":
		return string(r.Status) == value
	case "health":
		if r.Health == nil {
			return value == "none"
		}
		return value == r.Health.Status
	case "restart-policy":
		return value == cmp.Or(s.Restart.Policy, workload.RestartNo)
	case "should-start-on-boot":
		return value == strconv.FormatBool(startsOnBoot(r))
	case "boundary":
		return s.Boundary == value
	case "label":
		k, v, hasValue := strings.Cut(value, "=")
		got, ok := s.Labels[k]
		return ok && (!hasValue || got == v)
	case "ancestor":
		return s.Image.Reference == value || familiar(s.Image.Reference) == value || s.Image.Digest == value || familiar(s.Image.Reference) == value+":latest"
	case "exited":
		return r.Status == workload.Exited && r.Exit != nil && strconv.Itoa(r.Exit.Code) == value
	}
	return false
}
