package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	memoryTitle = "Memory of idle workloads"
	// crowd is how many workloads run at once for the second figure.
	crowd = 10
	// settle is how long a started workload is left alone before it is looked
	// at: start-up helpers end, and garbage collectors run once.
	settle = 3 * time.Second
)

// footprint is memory in bytes by proportional set size: what a process shares
// with others counts in equal parts, so that sums are right.
type footprint struct{ inside, beside, daemons int64 }

// memoryResult is what one engine's idle workloads hold.
type memoryResult struct {
	label     string
	one, many footprint // of one workload, and of crowd
	processes []string  // beside one workload, by name
	err       error
}

// memory measures one engine after the other: side by side they would share
// pages of the same files.
func (f *field) memory(ctx context.Context) []memoryResult {
	var results []memoryResult
	for _, e := range f.engines {
		r := memoryResult{label: e.label}
		r.err = e.footprints(ctx, &r)
		results = append(results, r)
	}
	return results
}

func (e engine) footprints(ctx context.Context, r *memoryResult) (err error) {
	var names, ids []string
	defer func() {
		for _, n := range names {
			err = errors.Join(err, e.remove(context.WithoutCancel(ctx), n))
		}
	}()
	before, err := processes()
	if err != nil {
		return err
	}
	for i := range crowd {
		name := fmt.Sprintf("bulkhead-bench-idle%d", i)
		id, err := e.idle(ctx, name)
		if err != nil {
			return err
		}
		names, ids = append(names, name), append(ids, strings.TrimSpace(id))
		if i != 0 && i != crowd-1 {
			continue
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := processes()
		if err != nil {
			return err
		}
		sum, found := e.sum(now, before, ids)
		if sum.inside == 0 {
			return errors.New("found no process of the workload")
		}
		if i == 0 {
			r.one, r.processes = sum, found
		} else {
			r.many = sum
		}
	}
	return nil
}

// process is what /proc tells of one.
type process struct {
	pid, parent int
	start       string // with pid, unique since boot
	name        string // of the executable
	command     string
	cgroup      string
	pidns       string
	pss         int64
}

// processes reads all of them. One that ends meanwhile is left out; so is a
// kernel thread.
func processes() (map[int]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := map[int]process{}
	for _, d := range dirs {
		if p, ok := readProcess(d); ok {
			all[p.pid] = p
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no process in /proc")
	}
	return all, nil
}

func readProcess(dir string) (process, bool) {
	var p process
	p.pid, _ = strconv.Atoi(filepath.Base(dir))
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	// The name in parentheses may hold anything; the fields follow the last one.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 20 {
		return p, false
	}
	p.parent, _ = strconv.Atoi(f[1])
	p.start = f[19]
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		return p, false
	}
	p.name = filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	command, _ := os.ReadFile(dir + "/cmdline")
	p.command = string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
	cgroup, _ := os.ReadFile(dir + "/cgroup")
	p.cgroup = string(cgroup)
	p.pidns, _ = os.Readlink(dir + "/ns/pid")
	rollup, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return p, false
	}
	for _, line := range strings.Split(string(rollup), "\n") {
		if kb, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			p.pss = n << 10
		}
	}
	return p, true
}

// sum adds up what belongs to the workloads with the given IDs: processes that
// are new since before and are the engine's helpers or name a workload in their
// command line or cgroup, and the children of those. What runs in another
// process namespace than ours is inside the workload.
func (e engine) sum(now, before map[int]process, ids []string) (footprint, []string) {
	self, _ := os.Readlink("/proc/self/ns/pid")
	var total footprint
	var beside []string
	for _, p := range now {
		if slices.Contains(e.daemons, p.name) {
			total.daemons += p.pss
			continue
		}
		if old, ok := before[p.pid]; ok && old.start == p.start || !e.owns(p, now, ids) {
			continue
		}
		if p.pidns != self {
			total.inside += p.pss
			continue
		}
		total.beside += p.pss
		beside = append(beside, p.name)
	}
	slices.Sort(beside)
	return total, beside
}

// owns follows the parents up to a process that names the workload.
func (e engine) owns(p process, now map[int]process, ids []string) bool {
	for range 64 { // deeper than any real tree, in case of a loop of reused IDs
		if slices.Contains(e.helpers, p.name) {
			return true
		}
		for _, id := range ids {
			if strings.Contains(p.command, id) || strings.Contains(p.cgroup, id) {
				return true
			}
		}
		up, ok := now[p.parent]
		if !ok {
			return false
		}
		p = up
	}
	return false
}
