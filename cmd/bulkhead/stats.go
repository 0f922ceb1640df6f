package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// statsRow is what templates and JSON of stats see; the names are Docker's.
type statsRow struct {
	ID       string
	Name     string
	CPUPerc  string
	MemUsage string
	MemPerc  string
	NetIO    string
	BlockIO  string
	PIDs     string
	Boundary string
	// HostCPUPerc and HostMemUsage are what a virtual machine takes of the host.
	HostCPUPerc  string
	HostMemUsage string
}

var statsListing = output.Listing{
	Columns: []output.Column{
		{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "CPU %", Field: "CPUPerc"},
		{Header: "MEM USAGE / LIMIT", Field: "MemUsage"}, {Header: "MEM %", Field: "MemPerc"}, {Header: "NET I/O", Field: "NetIO"},
		{Header: "BLOCK I/O", Field: "BlockIO"}, {Header: "PIDS", Field: "PIDs"},
	},
	More: []output.Column{
		{Header: "BOUNDARY", Field: "Boundary"}, {Header: "HOST CPU %", Field: "HostCPUPerc"}, {Header: "HOST MEM", Field: "HostMemUsage"},
	},
}

// statsFlags are the flags of stats.
type statsFlags struct {
	all, once, noTrunc bool
	format             string
	// tenants asks for the machines of tenants in place of workloads.
	tenants bool
}

// find returns what a name of the command line stands for.
func (f statsFlags) find(ctx context.Context, e *engine.Engine, name string) (*engine.Record, error) {
	if f.tenants {
		return e.InspectTenant(ctx, name)
	}
	return e.Inspect(ctx, name)
}

func (f statsFlags) listing() output.Listing {
	if f.tenants {
		return tenantStatsListing
	}
	return statsListing
}

func (a *app) statsCommand() *cobra.Command {
	var f statsFlags
	cmd := &cobra.Command{
		Use:   "stats [flags] [WORKLOAD...]",
		Short: "Show what workloads use, once a second",
		Long: `Stats shows processor time, memory, processes and traffic of workloads, of all
that run where none is named, until it is interrupted. 100 % is one processor.
Memory is without page cache that can be dropped. Behind the boundary vm the
figures are those inside, by the guest's word; what its machine takes of the host
is in HostCPUPerc and HostMemUsage of --format.`,
		Example: `  bulkhead stats
  bulkhead stats --no-stream --format json web
  bulkhead stats --format 'table {{.Name}}\t{{.MemUsage}}\t{{.HostMemUsage}}'`,
		ValidArgsFunction: a.completeWorkloads(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.stats(ctx, e, f, args) })
		},
	}
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "also those that are not running")
	cmd.Flags().BoolVar(&f.once, "no-stream", false, "show the figures of one second and end")
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "whole IDs")
	cmd.Flags().StringVar(&f.format, "format", "", "`table`, json or a Go template")
	return cmd
}

// The time between two lines of stats, and how long a workload that does not
// answer is waited for.
const (
	statsInterval = time.Second
	statsPatience = 5 * time.Second
)

func (a *app) stats(ctx context.Context, e *engine.Engine, f statsFlags, names []string) error {
	for _, name := range names {
		if _, err := f.find(ctx, e, name); err != nil {
			return err
		}
	}
	s := &sampler{e: e, last: map[workload.ID]workload.Usage{}, total: memoryTotal()}
	// The first samples are what later ones are compared with.
	if _, err := s.rows(ctx, f, names); err != nil {
		return err
	}
	clear := !f.once && f.format == "" && terminal.IsTerminal(a.out)
	for tick := time.NewTicker(statsInterval); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		rows, err := s.rows(ctx, f, names)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if clear {
			b.WriteString("\x1b[H\x1b[J")
		}
		if err := output.Write(&b, f.listing(), f.format, rows); err != nil {
			return err
		}
		if _, err := a.out.Write(b.Bytes()); err != nil || f.once {
			return err
		}
	}
}

// sampler measures workloads and remembers the last figures of each.
type sampler struct {
	e     *engine.Engine
	total int64 // the host's memory in bytes

	mu   sync.Mutex
	last map[workload.ID]workload.Usage
}

// rows measures those that are wanted, all at the same time, so that one that is
// slow to answer holds up no other's figures.
func (s *sampler) rows(ctx context.Context, f statsFlags, names []string) ([]statsRow, error) {
	var records []*engine.Record
	if len(names) == 0 {
		all, err := s.e.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if (r.Tenant() != "") == f.tenants && (f.all || running(r.Status)) {
				records = append(records, r)
			}
		}
	}
	for _, name := range names {
		r, err := f.find(ctx, s.e, name)
		if errors.Is(err, workload.ErrNotFound) || errors.Is(err, engine.ErrNoTenant) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	rows := make([]statsRow, len(records))
	var wg sync.WaitGroup
	for i, r := range records {
		wg.Go(func() { rows[i] = s.row(ctx, r, f.noTrunc) })
	}
	wg.Wait()
	return slices.DeleteFunc(rows, func(r statsRow) bool { return r.ID == "" }), nil
}

// row measures one workload. One without figures has "--" in their place.
func (s *sampler) row(ctx context.Context, r *engine.Record, whole bool) statsRow {
	row := statsRow{
		ID: r.Spec.ID.Short(), Name: r.Spec.Name, Boundary: r.Spec.Boundary, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--",
		NetIO: "--", BlockIO: "--", PIDs: "--", HostCPUPerc: "--", HostMemUsage: "--",
	}
	if whole {
		row.ID = string(r.Spec.ID)
	}
	if t := r.Tenant(); t != "" {
		row.Name = t
	}
	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
	u, err := s.e.Measure(ctx, string(r.Spec.ID))
	if err != nil {
		return row
	}
	s.mu.Lock()
	before, known := s.last[r.Spec.ID]
	s.last[r.Spec.ID] = u
	s.mu.Unlock()
	if known {
		row.CPUPerc = share(u.CPU-before.CPU, u.At.Sub(before.At))
	}
	limit := u.MemoryLimit
	if limit == 0 {
		limit = s.total
	}
	row.MemUsage = binarySize(u.Memory) + " / " + binarySize(limit)
	row.MemPerc = percent(float64(u.Memory), float64(limit))
	if r.Tenant() == "" { // a machine's traffic is its workloads'
		row.NetIO = output.Size(u.NetReceived) + " / " + output.Size(u.NetSent)
	}
	row.BlockIO = output.Size(u.BlockRead) + " / " + output.Size(u.BlockWrite)
	row.PIDs = fmt.Sprint(u.Pids)
	if u.HostMemory > 0 {
		row.HostMemUsage = binarySize(u.HostMemory)
		if known {
			row.HostCPUPerc = share(u.HostCPU-before.HostCPU, u.At.Sub(before.At))
		}
	}
	return row
}

// share is processor time as a part of time, 100 % for one processor. A workload
// that was started again has used less than before: that is nothing to show.
func share(cpu, wall time.Duration) string {
	if cpu < 0 {
		return "--"
	}
	return percent(float64(cpu), float64(wall))
}

func percent(part, whole float64) string {
	if whole <= 0 {
		return "--"
	}
	return fmt.Sprintf("%.2f%%", 100*part/whole)
}

// binarySize is a number of bytes in the units that memory has: "1.5MiB".
func binarySize(n int64) string {
	f, i := float64(n), 0
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}

// memoryTotal is the host's memory in bytes, 0 where it cannot be told.
func memoryTotal() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	var kib int64
	if _, err := fmt.Fscanf(f, "MemTotal: %d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}
