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
		{Header: "MOUNTS", Field: "Mounts"}, {Header: "NETWORKS", Field: "Networks"},
	},
}

func (a *app) psCommand() *cobra.Command {
	var all, quiet, noTrunc, latest bool
	var format string
	var words []string
	cmd := &cobra.Command{
		Use:   "ps [flags]",
		Short: "List workloads",
		Long: `Ps lists the workloads that are running, with -a all of them, the newest
first. Filters are name=TEXT, id=BEGINNING, status=STATUS, label=KEY[=VALUE],
ancestor=IMAGE, boundary=BOUNDARY, restart-policy=POLICY, health=HEALTH,
exited=CODE, network=NAME, publish=PORT[/PROTOCOL] and expose=PORT[/PROTOCOL],
the ports inside; those of one kind are alternatives, those of different kinds
must all hold.`,
		Example: `  bulkhead ps
  bulkhead ps -a --filter status=exited --format '{{.Names}}: {{.Status}}'
  bulkhead rm $(bulkhead ps -aq --filter label=job)`,
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := parseFilters(words)
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
	cmd.Flags().StringArrayVarP(&words, "filter", "f", nil, "only those that match `KEY=VALUE`")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// newPsRow describes one workload as of now.
func newPsRow(r *engine.Record, now time.Time, whole bool) psRow {
	s := &r.Spec
	row := psRow{
		ID: s.ID.Short(), Image: familiar(s.Image.Reference), Command: strconv.Quote(clip(strings.Join(s.Process.Args, " "), 20, whole)),
		CreatedAt: s.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: output.Ago(now.Sub(s.Created)) + " ago",
		State: string(r.Status), Status: status(r, now), Boundary: s.Boundary, Names: s.Name, Networks: networkNames(s), labels: s.Labels,
	}
	if whole {
		row.ID = string(s.ID)
	}
	var mounts []string
	for _, m := range s.Mounts {
		mounts = append(mounts, clip(cmp.Or(m.Source, m.Target), 15, whole))
	}
	row.Labels, row.Mounts = joinLabels(s.Labels), strings.Join(mounts, ",")
	if running(r.Status) {
		row.Ports = describePorts(r.Ports, s.Exposed)
	}
	return row
}

// networkNames are the networks of a workload, or the mode that stands for none
// of the engine's.
func networkNames(s *workload.Spec) string {
	if len(s.Networks) == 0 {
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

// psFilters are the keys of ps --filter.
var psFilters = filterSet{keys: map[string]filterCheck{
	"name": anyText, "id": anyText, "label": anyText, "ancestor": anyText, "boundary": anyText, "exited": number(0, 255),
	"restart-policy": anyText, "should-start-on-boot": truth, "volume": anyText, "health": anyText,
	"network": anyText, "publish": anyText, "expose": anyText,
	"status": oneOf("created", "running", "paused", "restarting", "exited"),
}}

func parseFilters(all []string) (filters, error) { return psFilters.parse(all) }

// match reports whether a workload passes every filter.
func (f filters) match(r *engine.Record) bool {
	return f.all(func(key, value string) bool { return matches(r, key, value) })
}

// hasPort reports whether a workload publishes, or exposes, a port.
func hasPort(s *workload.Spec, key, value string) bool {
	if !strings.Contains(value, "/") {
		value += "/tcp"
	}
	return key == "expose" && slices.Contains(s.Exposed, value) || slices.ContainsFunc(s.Ports, func(p workload.Port) bool {
		return fmt.Sprintf("%d/%s", p.Port, p.Protocol) == value
	})
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
	case "network":
		return s.Network == value || slices.ContainsFunc(s.Networks, func(a workload.Attachment) bool { return a.Network == value })
	case "publish", "expose":
		return hasPort(s, key, value)
	case "label":
		return hasLabel(s.Labels, value)
	case "volume":
		return slices.ContainsFunc(s.Mounts, func(m workload.Mount) bool { return m.Target == value || m.Source == value })
	case "ancestor":
		return s.Image.Reference == value || familiar(s.Image.Reference) == value || s.Image.Digest == value || familiar(s.Image.Reference) == value+":latest"
	case "exited":
		return r.Status == workload.Exited && r.Exit != nil && strconv.Itoa(r.Exit.Code) == value
	}
	return false
}
