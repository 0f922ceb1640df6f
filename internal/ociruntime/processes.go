package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/procs"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Lister    = (*instance)(nil)
	_ boundary.Describer = (*instance)(nil)
	_ boundary.Group     = (*executed)(nil)
)

// Processes lists the workload's processes by their IDs on the host, or in
// gVisor, where they have none on the host.
func (i *instance) Processes(ctx context.Context) ([]int, error) {
	if !i.runtime.Sentry {
		pids, _, err := i.members()
		return pids, err
	}
	all, err := i.dump(ctx)
	pids := make([]int, 0, len(all))
	for _, p := range all {
		pids = append(pids, p.Status.PID)
	}
	return pids, err
}

// members are the processes of the cgroup but those of the runtime, which are not
// in the workload's pid namespace, and that namespace's depth.
func (i *instance) members() (pids []int, level int, err error) {
	all, err := i.cgroup.Pids(true)
	if err != nil {
		return nil, 0, runtimespec.Gone(err)
	}
	first, err := procs.Read(i.PID())
	if err != nil {
		return nil, 0, runtimespec.Gone(err)
	}
	for _, pid := range all {
		switch p, err := procs.Read(pid); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, 0, err
		case len(p.IDs) >= len(first.IDs):
			pids = append(pids, pid)
		}
	}
	return pids, len(first.IDs) - 1, nil
}

// Describe reads about each process. IDs of processes and users are those inside.
func (i *instance) Describe(ctx context.Context) ([]workload.ProcessInfo, error) {
	if !i.runtime.Sentry {
		pids, level, err := i.members()
		if err != nil {
			return nil, err
		}
		return procs.View{Level: level, User: runtimespec.UserInside(i.spec, i.idBase, i.idCount)}.Of(pids)
	}
	all, err := i.dump(ctx)
	out := make([]workload.ProcessInfo, 0, len(all))
	for _, p := range all {
		out = append(out, p.info())
	}
	return out, err
}

// sentryProcess is what gVisor's kernel tells of a process, `runsc trace procfs`.
type sentryProcess struct {
	Args    []string `json:"args"`
	Started int64    `json:"clone_ts"` // nanoseconds since 1970
	Status  struct {
		Comm string `json:"comm"`
		PID  int    `json:"pid"`
		PPID int    `json:"ppid"`
		UID  struct {
			Effective uint32 `json:"effective"`
		} `json:"uid"`
		RSS int64 `json:"vm_rss"` // KiB
	} `json:"status"`
	Stat struct {
		PGID int `json:"pgid"`
	} `json:"stat"`
}

func (p sentryProcess) info() workload.ProcessInfo {
	command := "[" + p.Status.Comm + "]"
	if len(p.Args) > 0 {
		command = strings.Join(p.Args, " ")
	}
	return workload.ProcessInfo{
		PID: p.Status.PID, PPID: p.Status.PPID, UID: p.Status.UID.Effective, State: unknownState, Started: time.Unix(0, p.Started),
		RSS: min(max(0, p.Status.RSS), 1<<50) << 10, Command: short(command),
	}
}

// unknownState stands for what gVisor does not tell.
const unknownState = "?"

// maxProcesses bounds how many are believed, maxList in how many bytes.
const (
	maxProcesses = 1 << 16
	maxList      = 64 << 20
)

// dump asks gVisor's kernel for its processes.
func (i *instance) dump(ctx context.Context) ([]sentryProcess, error) {
	out, err := i.run(ctx, boundary.Stdio{}, "trace", "procfs", containerID)
	if err != nil {
		if i.first == nil || i.first.Signal(0) != nil {
			return nil, workload.ErrNotRunning
		}
		return nil, err
	}
	all, err := parseDump(out)
	if err != nil {
		return nil, fmt.Errorf("runtime %s: processes: %w", i.runtime.Name, err)
	}
	return all, nil
}

// parseDump reads a title and then one JSON object for each process.
func parseDump(text []byte) (all []sentryProcess, err error) {
	start := bytes.IndexByte(text, '{')
	if start < 0 {
		return nil, fmt.Errorf("no list in %q", short(string(text)))
	}
	for d := json.NewDecoder(bytes.NewReader(text[start:])); d.More(); {
		var p sentryProcess
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("malformed list: %w", err)
		}
		if p.Status.PID <= 0 || len(all) == maxProcesses {
			return nil, errors.New("malformed list: a process without an ID, or too many")
		}
		all = append(all, p)
	}
	return all, nil
}

// rounds is how often a group of processes in gVisor is looked for, which may
// grow meanwhile.
const rounds = 3

// SignalGroup signals the process and what it has started.
func (e *executed) SignalGroup(ctx context.Context, sig syscall.Signal) error {
	if !e.i.runtime.Sentry {
		return notRunning(e.p.While(func(pid int) error {
			// Its own, or that of the command that made it, which was a session's leader.
			group, err := syscall.Getpgid(pid)
			if err != nil || group <= 1 || group == syscall.Getpgrp() {
				return fmt.Errorf("%w: the process has no group of its own", workload.ErrUnsupported)
			}
			return syscall.Kill(-group, sig)
		}))
	}
	if err := e.p.Signal(0); err != nil {
		return notRunning(err)
	}
	for range rounds {
		all, err := e.i.dump(ctx)
		if err != nil {
			return err
		}
		found := false
		for _, p := range all {
			if p.Stat.PGID != e.inside {
				continue
			}
			found = true
			// One that has ended meanwhile is no error.
			e.i.killInside(ctx, p.Status.PID, sig) //nolint:errcheck
		}
		if !found || sig != syscall.SIGKILL {
			break
		}
	}
	return nil
}
