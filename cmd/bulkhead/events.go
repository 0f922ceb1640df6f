package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// eventView is what templates and JSON of events see: Docker's form. The first
// three are the older one, for workloads only.
type eventView struct {
	Status   string     `json:"status,omitempty"`
	ID       string     `json:"id,omitempty"`
	From     string     `json:"from,omitempty"`
	Type     string     `json:"Type"`
	Action   string     `json:"Action"`
	Actor    eventActor `json:"Actor"`
	Scope    string     `json:"scope"`
	Time     int64      `json:"time"`
	TimeNano int64      `json:"timeNano"`
}

type eventActor struct {
	ID         string
	Attributes map[string]string
}

func newEventView(e events.Event) eventView {
	v := eventView{
		Type: e.Type, Action: e.Action, Actor: eventActor{e.ID, e.Attributes}, Scope: "local",
		Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
	if v.Actor.Attributes == nil {
		v.Actor.Attributes = map[string]string{}
	}
	if e.Type == events.Workload {
		v.Status, v.ID, v.From = e.Action, e.ID, e.Attributes["image"]
	}
	return v
}

// happened records an event of what the engine does not know: an image or a
// network. One that cannot be recorded is lost.
func (a *app) happened(kind, action, id, name string) {
	attributes := map[string]string{"name": name}
	if kind == events.Network {
		attributes["type"] = workload.NetworkBridge
	}
	if _, run, err := a.roots(); err == nil {
		_ = events.Log{Dir: run}.Append(events.Event{Type: kind, Action: action, ID: id, Attributes: attributes})
	}
}

// eventFilters are the filters of events.
var eventFilters = filterSet{keys: map[string]filterCheck{
	"container": anyText, "workload": anyText, "event": anyText, "image": anyText, "label": anyText, "network": anyText,
	"volume": anyText, "boundary": anyText, "scope": oneOf("local", "swarm"),
	"type": oneOf(events.Workload, "workload", events.Image, events.Network, events.Volume, events.Tenant,
		"builder", "config", "daemon", "node", "plugin", "secret", "service"), // Docker's, of which nothing happens here
}}

func (a *app) eventsCommand() *cobra.Command {
	var since, until, format string
	var filter []string
	cmd := &cobra.Command{
		Use:   "events [flags]",
		Short: "Show what happens to workloads, images, networks and volumes",
		Long: `Events shows what happens from now on, until it is interrupted. With --since it
begins with what happened before, as far back as is kept; with --until it ends at
that time. Filters are type=container|image|network|volume|tenant,
event=ACTION, container=NAME or ID, image=IMAGE, label=KEY[=VALUE], network=NAME, volume=NAME and
boundary=BOUNDARY; of one kind one must hold, of different kinds each.

Events of workloads have Docker's words and the type container, whatever isolates
the workload: create, start, die, stop, kill, restart, oom, pause, unpause,
exec_create, exec_start, exec_die, health_status, rename, update and destroy.
Networks have create, connect, disconnect and destroy. They
lie in a file of limited size that a reboot clears; no daemon is needed, and
nobody waits for who reads them.`,
		Example: `  bulkhead events --filter event=die
  bulkhead events --since 10m --until 0s --format json
  bulkhead events --format '{{.Action}} {{index .Actor.Attributes "name"}}'`,
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			o := events.Options{New: since == "", Follow: true}
			var err error
			if o.Since, err = parseTime("--since", since, now); err != nil {
				return err
			}
			if o.Until, err = parseUntil(until, now); err != nil {
				return err
			}
			if !o.Until.IsZero() && !o.Until.After(now) {
				// What is over is read to its end, once.
				o.New, o.Follow = false, false
			}
			keep, err := eventFilters.parse(filter)
			if err != nil {
				return err
			}
			show, err := eventWriter(a, format)
			if err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return e.Events(ctx, o, func(ev events.Event) error {
					if image := ev.Attributes["image"]; image != "" {
						ev.Attributes["image"] = familiar(image) // as in every listing
					}
					if !keep.all(func(key, value string) bool { return eventMatches(ev, key, value) }) {
						return nil
					}
					return show(ev)
				})
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "begin with what happened since this `time`")
	cmd.Flags().StringVar(&until, "until", "", "end at this `time`")
	cmd.Flags().StringArrayVarP(&filter, "filter", "f", nil, "only those that match `KEY=VALUE`")
	cmd.Flags().StringVar(&format, "format", "", "json, or a Go `template`")
	return cmd
}

// parseUntil is parseTime for --until, where "0s" is now and a duration with a
// minus sign is in the future.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return now.Add(-d), nil
	}
	return parseTime("--until", s, now)
}

// eventWriter returns what writes an event in a format.
func eventWriter(a *app, format string) (func(events.Event) error, error) {
	switch format {
	case "":
		return func(e events.Event) error {
			_, err := fmt.Fprintln(a.out, safetext.Line(eventLine(e)))
			return err
		}, nil
	case "json", "{{json .}}":
		return func(e events.Event) error { return output.JSON(a.out, newEventView(e)) }, nil
	}
	if err := output.Each(a.out, format, []eventView(nil)); err != nil {
		return nil, advice.Wrap(err, err.Error(), "give json, or a template such as '{{.Action}} {{.Actor.ID}}'")
	}
	return func(e events.Event) error { return output.Each(a.out, format, []eventView{newEventView(e)}) }, nil
}

// eventLine is an event as Docker writes it.
func eventLine(e events.Event) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		pairs = append(pairs, k+"="+e.Attributes[k])
	}
	line := fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.ID)
	if len(pairs) > 0 {
		line += " (" + strings.Join(pairs, ", ") + ")"
	}
	return line
}

// eventMatches reports whether one filter holds.
func eventMatches(e events.Event, key, value string) bool {
	name := e.Attributes["name"]
	switch key {
	case "type":
		return e.Type == value || value == "workload" && e.Type == events.Workload
	case "scope":
		return value == "local"
	case "event":
		word, _, _ := strings.Cut(e.Action, ":")
		return word == value || e.Action == value
	case "container", "workload":
		return e.Type == events.Workload && (name == value || strings.HasPrefix(e.ID, value))
	case "image":
		image := e.Attributes["image"]
		if e.Type == events.Image {
			image = cmp.Or(name, e.ID)
		}
		return image == value || image == value+":latest" || familiar(value) == image || e.Type == events.Image && strings.HasPrefix(e.ID, value)
	case "label":
		return hasLabel(e.Attributes, value)
	case "network", "volume":
		return e.Type == key && (e.ID == value || name == value)
	case "boundary":
		return e.Attributes["boundary"] == value
	}
	return false
}
