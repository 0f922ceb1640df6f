package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

// How often the command runs, and how long its processor time is counted.
const (
	healthInterval = 100 * time.Millisecond
	healthWindow   = 4 * time.Second
	// healthCommand leaves a byte for each time that it ran.
	healthCommand = "echo >>/tmp/probes"
	healthFile    = "tmp/probes"
)

// health: what one run of a health command costs.
func (f *field) health() testcase {
	c := testcase{
		name:  "health",
		title: "Processor time of one health check",
		about: fmt.Sprintf("A workload that sleeps is checked every %v by a shell that writes one byte. Counted over %v is the processor "+
			"time of the engine's daemons and helpers and of all that they start, the check itself included, divided by the checks.",
			healthInterval, healthWindow),
		share: 10,
		table: healthTable,
	}
	for _, e := range f.engines {
		c.contenders = append(c.contenders, e.healthContender())
	}
	return c
}

func (e engine) healthContender() contender {
	const name = "bulkhead-bench-health"
	var id, pid string
	why := ""
	if strings.HasPrefix(e.label, "podman") {
		why = ": it leaves them to timers of systemd"
	}
	return contender{
		label: e.label,
		setup: func(ctx context.Context) error {
			out, err := command(ctx, e.detached("none", name, imageName, []string{
				"--health-cmd", healthCommand, "--health-interval", healthInterval.String(), "--health-timeout", "10s",
			}, "/bin/sleep", "3600")...)
			if err != nil {
				return err
			}
			id = strings.TrimSpace(out)
			out, err = command(ctx, e.cmd("inspect", "--format", "{{.State.Pid}}", name)...)
			pid = strings.TrimSpace(out)
			return err
		},
		teardown: func(ctx context.Context) error { return e.remove(ctx, name) },
		sampled: func(ctx context.Context) (sample, error) {
			probes, err := countProbes(pid)
			if err != nil {
				return sample{}, err
			}
			spent, err := e.spent(id)
			if err != nil {
				return sample{}, err
			}
			select {
			case <-ctx.Done():
				return sample{}, ctx.Err()
			case <-time.After(healthWindow):
			}
			later, err := e.spent(id)
			if err != nil {
				return sample{}, err
			}
			n, err := countProbes(pid)
			if err == nil && n-probes < 3 {
				err = fmt.Errorf("%d checks in %v%s", n-probes, healthWindow, why)
			}
			if err != nil {
				return sample{}, err
			}
			return sample{cpu: (later - spent) / time.Duration(n-probes)}, nil
		},
	}
}

// countProbes looks into the workload's root.
func countProbes(pid string) (int, error) {
	b, err := os.ReadFile("/proc/" + pid + "/root/" + healthFile)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return bytes.Count(b, []byte{'\n'}), err
}

// spent is the processor time until now of everything that serves the workload:
// the benchmark's own daemons, what names the workload, and children that have
// ended. Others may have workloads of the same engine.
func (e engine) spent(id string) (time.Duration, error) {
	now, err := pss.Snapshot()
	if err != nil {
		return 0, err
	}
	if len(id) > shortID {
		id = id[:shortID] // which every helper has in its command line
	}
	helpersOf := engine{}
	var total time.Duration
	for _, p := range now {
		if !e.serves(p) && !helpersOf.owns(p, now, []string{id}) {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			continue // it ended meanwhile, and is its parent's
		}
		d, err := processorTime(string(stat))
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

const shortID = 12

// tick is the unit of times in proc_pid_stat(5), the same on all machines that
// this runs on.
const tick = 10 * time.Millisecond

// processorTime adds up utime, stime, and those of children that were waited for.
func processorTime(stat string) (time.Duration, error) {
	// The name in parentheses may hold anything; the fields follow the last one.
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 15 {
		return 0, fmt.Errorf("a process's state is %q", stat)
	}
	var ticks int64
	for _, s := range f[11:15] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("a process's state is %q", stat)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

func healthTable(b *strings.Builder, results []result) {
	fmt.Fprintln(b, "| | median ms | min | × first | rounds | |")
	fmt.Fprintln(b, "|---|---:|---:|---:|---:|---|")
	var reference time.Duration
	for i, r := range results {
		if r.err != nil {
			fmt.Fprintf(b, "| %s | – | – | – | – | left out: %s |\n", r.label, cell(r.err.Error()))
			continue
		}
		if len(r.samples) == 0 {
			continue
		}
		all := of(r.samples, func(s sample) time.Duration { return s.cpu })
		if i == 0 {
			reference = median(all)
		}
		ratio := "–"
		if reference > 0 {
			ratio = fmt.Sprintf("%.2f", float64(median(all))/float64(reference))
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %d | %s |\n", r.label, ms(median(all)), ms(quantile(all, 0)), ratio, len(all), r.note)
	}
}
