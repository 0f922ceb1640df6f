package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
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
	Container string // as the command line has it, the ID where it names none
	ID        string
	Name      string
	CPUPerc   string
	MemUsage  string
	MemPerc   string
	NetIO     string
	BlockIO   string
	PIDs      string
	Boundary  string
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
		{Header: "CONTAINER", Field: "Container"},
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

// The time between two tables of stats, for how long one waits for a workload
// that does not answer, and after how long the workload is asked anew. A single
// table has nothing to show later, and waits for as long as an answer counts.
const (
	statsInterval = time.Second
	statsPatience = time.Second
	statsLimit    = 5 * time.Second
)

func (a *app) stats(ctx context.Context, e *engine.Engine, f statsFlags, names []string) error {
	for _, name := range names {
		if _, err := f.find(ctx, e, name); err != nil {
			return err
		}
	}
	s := newSampler(func(ctx context.Context, id workload.ID) (workload.Usage, error) { return e.Measure(ctx, string(id)) })
	if f.once {
		s.patience = statsLimit
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.open.Wait()
	defer cancel()
	// The first samples are what later ones are compared with.
	if _, err := s.rows(ctx, e, f, names); err != nil {
		return err
	}
	clear := !f.once && f.format == "" && terminal.IsTerminal(a.out)
	for tick := time.NewTicker(statsInterval); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		rows, err := s.rows(ctx, e, f, names)
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
	measure  func(context.Context, workload.ID) (workload.Usage, error)
	total    int64 // the host's memory in bytes
	patience time.Duration

	open  sync.WaitGroup // questions that are under way
	mu    sync.Mutex
	last  map[workload.ID]workload.Usage
	asked map[workload.ID]*question
}

// question is one that a workload has been asked; the answer is there when done
// is closed.
type question struct {
	at    time.Time
	done  chan struct{}
	usage workload.Usage
	err   error
}

func newSampler(measure func(context.Context, workload.ID) (workload.Usage, error)) *sampler {
	return &sampler{
		measure: measure, total: memoryTotal(), patience: statsPatience,
		last: map[workload.ID]workload.Usage{}, asked: map[workload.ID]*question{},
	}
}

// sampled is a workload to measure, and what the command line calls it.
type sampled struct {
	record *engine.Record
	given  string
}

// rows measures those that are wanted.
func (s *sampler) rows(ctx context.Context, e *engine.Engine, f statsFlags, names []string) ([]statsRow, error) {
	var wanted []sampled
	if len(names) == 0 {
		all, err := e.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if (r.Tenant() != "") == f.tenants && (f.all || running(r.Status)) {
				wanted = append(wanted, sampled{record: r})
			}
		}
	}
	for _, name := range names {
		r, err := f.find(ctx, e, name)
		if errors.Is(err, workload.ErrNotFound) || errors.Is(err, engine.ErrNoTenant) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, sampled{r, name})
	}
	return s.table(ctx, wanted, f.noTrunc), nil
}

// table measures all of them at the same time, so that one that is slow to answer
// holds up no other's figures.
func (s *sampler) table(ctx context.Context, wanted []sampled, whole bool) []statsRow {
	rows := make([]statsRow, len(wanted))
	var wg sync.WaitGroup
	for i, w := range wanted {
		wg.Go(func() { rows[i] = s.row(ctx, w, whole) })
	}
	wg.Wait()
	return rows
}

// ask returns the figures of a workload. Patience counts from when it was asked:
// a question that is not answered by then stays open, and its answer is that of
// whoever asks next, so that nobody is asked two at a time.
func (s *sampler) ask(ctx context.Context, id workload.ID) (workload.Usage, error) {
	s.mu.Lock()
	q := s.asked[id]
	if q == nil {
		q = &question{at: time.Now(), done: make(chan struct{})}
		s.asked[id] = q
		s.open.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, statsLimit)
			defer cancel()
			q.usage, q.err = s.measure(ctx, id)
			close(q.done)
		})
	}
	s.mu.Unlock()
	select {
	case <-q.done:
	default:
		ctx, cancel := context.WithDeadline(ctx, q.at.Add(s.patience))
		defer cancel()
		select {
		case <-q.done:
		case <-ctx.Done():
			return workload.Usage{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[id] == q {
		delete(s.asked, id)
	}
	return q.usage, q.err
}

// row measures one workload. One without figures has "--" in their place.
func (s *sampler) row(ctx context.Context, w sampled, whole bool) statsRow {
	r := w.record
	row := statsRow{
		ID: r.Spec.ID.Short(), Name: r.Spec.Name, Boundary: r.Spec.Boundary, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--",
		NetIO: "--", BlockIO: "--", PIDs: "--", HostCPUPerc: "--", HostMemUsage: "--",
	}
	if whole {
		row.ID = string(r.Spec.ID)
	}
	row.Container = cmp.Or(w.given, row.ID)
	if t := r.Tenant(); t != "" {
		row.Name = t
	}
	u, err := s.ask(ctx, r.Spec.ID)
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
