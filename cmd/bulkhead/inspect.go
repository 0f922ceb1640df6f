package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// inspectState is how a workload is; the names are Docker's.
type inspectState struct {
	Status        workload.Status
	Running       bool
	Paused        bool
	Restarting    bool
	OOMKilled     bool
	Pid           int
	SupervisorPid int
	ExitCode      int
	Error         string
	StartedAt     time.Time `json:",omitzero"`
	FinishedAt    time.Time `json:",omitzero"`
	// Stopped tells that a command ended the last run. Ends are how the last few
	// runs ended that the restart policy followed up.
	Stopped bool
	Ends    []workload.Exit `json:",omitempty"`
	Health  *inspectHealth  `json:",omitempty"`
}

// inspectHealth is what health checks have shown; the names are Docker's.
type inspectHealth struct {
	Status        string
	FailingStreak int
	Log           []inspectCheck
}

type inspectCheck struct {
	Start    time.Time
	End      time.Time
	ExitCode int
	Output   string
}

func newInspectHealth(h *workload.HealthState) *inspectHealth {
	if h == nil {
		return nil
	}
	v := &inspectHealth{Status: h.Status, FailingStreak: h.FailingStreak, Log: []inspectCheck{}}
	for _, r := range h.Log {
		v.Log = append(v.Log, inspectCheck(r))
	}
	return v
}

// inspectHost is where a workload lies on this machine.
type inspectHost struct {
	IDBase   uint32
	IDCount  uint32
	Cgroup   string
	Layers   []string
	Upper    string
	Dir      string
	RunDir   string
	LogPath  string
	LogError string `json:",omitempty"`
}

// inspectView is what inspect shows of a workload. The names that scripts use
// most are where Docker has them; the whole specification follows under Spec.
type inspectView struct {
	Id          workload.ID //nolint:revive // Docker's spelling
	Name        string
	Created     time.Time
	Boundary    string
	Image       string
	ImageDigest string
	State       inspectState
	// RestartCount is how often the restart policy has brought it back.
	RestartCount    int
	Weakenings      []workload.Weakening
	Warnings        []string `json:",omitempty"`
	Host            inspectHost
	Mounts          []inspectMount
	NetworkSettings inspectNetworks
	Machine         *boundary.Machine `json:",omitempty"`
	Spec            workload.Spec
}

func (a *app) inspectCommand() *cobra.Command {
	var format, kind string
	cmd := &cobra.Command{
		Use:   "inspect [flags] WORKLOAD|IMAGE|VOLUME...",
		Short: "Show all that is known of workloads, images or volumes",
		Long: `Inspect shows workloads, or where no workload has the name images, or else
volumes, as JSON.
Weakenings lists each way in which a workload is less confined than by default,
with the flag that asked for it and why it matters. Warnings tells when a virtual
machine runs under software emulation, which is no security boundary.`,
		Example: `  bulkhead inspect web
  bulkhead inspect --format '{{.State.ExitCode}}' job
  bulkhead inspect --format '{{range .Weakenings}}{{println .flag .why}}{{end}}' web`,
		Args:              needs(1, -1, "a workload or an image"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"", "workload", "container", "image", "volume"}, kind) {
				return advice.New(fmt.Sprintf("--type %q: unknown type", kind), "give workload, image or volume")
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return a.inspectAll(format, args, func(ref string) (any, error) { return a.inspectOne(ctx, e, kind, ref) })
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	cmd.Flags().StringVar(&kind, "type", "", "only `workload`, only image, or only volume")
	return cmd
}

// inspectOne finds a workload, or else an image, or else a volume.
func (a *app) inspectOne(ctx context.Context, e *engine.Engine, kind, ref string) (any, error) {
	var notFound []error
	look := func(of string, find func() (any, error), absent ...error) (any, error, bool) {
		if kind != "" && kind != of && (kind != "container" || of != "workload") {
			return nil, nil, false
		}
		v, err := find()
		if err != nil && kind == "" && slices.ContainsFunc(absent, func(a error) bool { return errors.Is(err, a) }) {
			notFound = append(notFound, err)
			return nil, nil, false
		}
		return v, err, true
	}
	if v, err, done := look("workload", func() (any, error) {
		rec, err := e.Inspect(ctx, ref)
		if err != nil {
			return nil, err
		}
		return newInspectView(rec), nil
	}, workload.ErrNotFound); done {
		return v, err
	}
	if v, err, done := look("image", func() (any, error) {
		store, err := a.images()
		if err != nil {
			return nil, err
		}
		return store.Inspect(ref)
	}, image.ErrNotFound, reference.ErrInvalid); done {
		return v, err
	}
	if v, err, done := look("volume", func() (any, error) {
		v, err := e.Volume(ctx, ref)
		if err != nil {
			return nil, err
		}
		return newVolumeView(v), nil
	}, volume.ErrNotFound, volume.ErrName); done {
		return v, err
	}
	return nil, advice.Wrap(errors.Join(notFound...), fmt.Sprintf("no workload, image or volume %q", ref), "`bulkhead ps -a`, `bulkhead images` and `bulkhead volume ls` list what there is")
}

// newInspectView arranges a record.
func newInspectView(r *engine.Record) inspectView {
	v := inspectView{
		Id: r.Spec.ID, Name: r.Spec.Name, Created: r.Spec.Created, Boundary: r.Spec.Boundary,
		Image: r.Spec.Image.Reference, ImageDigest: r.Spec.Image.Digest, Weakenings: r.Weakenings, Spec: r.Spec,
		State: inspectState{
			Status: r.Status, Running: running(r.Status), Paused: r.Status == workload.Paused,
			Restarting: r.Status == workload.Restarting, Stopped: r.Stopped, Ends: r.Ends, Health: newInspectHealth(r.Health),
			Pid: r.PID, SupervisorPid: r.SupervisorPID, StartedAt: r.Started, FinishedAt: r.Finished,
		},
		Host: inspectHost{
			IDBase: r.IDBase, IDCount: r.IDCount, Cgroup: r.Cgroup, Layers: r.Layers, Upper: r.Upper,
			Dir: r.Dir, RunDir: r.RunDir, LogPath: r.LogPath, LogError: r.LogError,
		},
		Mounts:          newInspectMounts(r),
		NetworkSettings: newInspectNetworks(r),
		RestartCount:    r.Restarts,
		Machine:         r.Machine,
	}
	if v.Weakenings == nil {
		v.Weakenings = []workload.Weakening{}
	}
	if r.Machine != nil && r.Machine.Accel == string(qemu.TCG) {
		v.Warnings = []string{qemu.NoBoundary}
	}
	if r.Exit != nil {
		v.State.ExitCode, v.State.OOMKilled, v.State.Error = r.Exit.Code, r.Exit.OOMKilled, r.Exit.Error
	}
	return v
}

// inspectAll shows what find returns for each word: an array of JSON, or each
// through a template. What was found is shown even when something else was not.
func (a *app) inspectAll(format string, words []string, find func(ref string) (any, error)) error {
	found := []any{}
	failed := a.each(words, func(ref string) error {
		v, err := find(ref)
		if err == nil {
			found = append(found, v)
		}
		return err
	})
	if len(found) == 0 && failed != nil {
		return failed
	}
	if err := a.showInspected(format, found); err != nil {
		return err
	}
	return failed
}

func (a *app) showInspected(format string, found []any) error {
	switch format {
	case "":
		return output.IndentedJSON(a.out, found)
	case "json":
		return output.JSON(a.out, found)
	}
	return output.Inspected(a.out, format, found)
}
