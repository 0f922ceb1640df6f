package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// paused is the status of a container whose processes are frozen. It is not in
// the specification; runtimes agree on it.
const paused specs.ContainerState = "paused"

// shown is a container as state and list print it: the specification's state
// (runtime.md, state) and the fields that engines read besides.
type shown struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

// status asks the kernel what has become of the container.
func (b *box) status() (specs.ContainerState, error) {
	if b.made == nil {
		return specs.StateCreating, nil
	}
	st := specs.StateRunning
	switch b.made.Status() {
	case workload.Exited:
		return specs.StateStopped, nil
	case workload.Created:
		st = specs.StateCreated
	}
	m, err := b.cgroup()
	if err != nil || m == nil {
		return st, err
	}
	frozen, err := m.Frozen()
	if err != nil {
		return "", err
	}
	if frozen {
		return paused, nil
	}
	return st, nil
}

// cgroup returns the container's cgroup, nil if it has none or it is gone.
func (b *box) cgroup() (*cgroup.Manager, error) {
	if b.Cgroup == "" {
		return nil, nil
	}
	m, err := cgroup.Load(b.Cgroup, cgroup.Options{})
	if isNotExist(err) {
		return nil, nil
	}
	return m, err
}

func (b *box) show() (shown, error) {
	st, err := b.status()
	if err != nil {
		return shown{}, err
	}
	return shown{Version: b.Version, ID: b.ID, Pid: b.pid(st), Status: st, Bundle: b.Bundle, Rootfs: b.Rootfs,
		Created: b.Created, Annotations: b.spec.Annotations, Owner: userName(b.Owner)}, nil
}

// pid is the first process's ID, 0 when there is none.
func (b *box) pid(st specs.ContainerState) int {
	if b.made == nil || st == specs.StateStopped || st == specs.StateCreating {
		return 0
	}
	return b.made.Pid
}

func userName(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "#" + strconv.Itoa(uid)
	}
	return u.Username
}

// hookState is the state that hooks get.
func (r *record) hookState(st specs.ContainerState, pid int, spec *specs.Spec) specs.State {
	return specs.State{Version: r.Version, ID: r.ID, Status: st, Pid: pid, Bundle: r.Bundle, Annotations: spec.Annotations}
}

// pidInside is a process's ID in its own PID namespace, which is what hooks in the
// container's get (runtime.md, state): the last field of NSpid in
// proc_pid_status(5).
func pidInside(pid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if ids := strings.Fields(line); len(ids) > 1 && ids[0] == "NSpid:" {
			return strconv.Atoi(ids[len(ids)-1])
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no NSpid", pid)
}

func runState(c *command) (int, error) {
	b, err := c.store.load(c.id())
	if err != nil {
		return 0, err
	}
	defer b.Close()
	s, err := b.show()
	if err != nil {
		return 0, err
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return 0, err
	}
	_, err = c.stdout.Write(append(text, '\n'))
	return 0, err
}

func runList(c *command) (int, error) {
	ids, err := c.store.list()
	if err != nil {
		return 0, err
	}
	if err := c.store.sweep(); err != nil {
		c.log.Debugf("remove what earlier deletions left: %v", err) // whoever lists may not be who deletes
	}
	list := []shown{}
	for _, id := range ids {
		b, err := c.store.load(id)
		if isNotExist(err) {
			continue // deleted meanwhile, or not yet anything
		}
		var s shown
		if err == nil {
			s, err = b.show()
			b.Close()
		}
		if err != nil {
			c.log.Warnf("container %s: %v", id, err)
			continue
		}
		list = append(list, s)
	}
	format := c.flags.last("format", "table")
	switch {
	case c.flags.on("quiet"):
		for _, s := range list {
			fmt.Fprintln(c.stdout, s.ID)
		}
		return 0, nil
	case format == "json":
		return 0, json.NewEncoder(c.stdout).Encode(list)
	case format == "table":
		return 0, writeTable(c.stdout, list)
	}
	return 0, usagef("list --format: %q is neither table nor json", format)
}

func writeTable(w io.Writer, list []shown) error {
	rows := [][]string{{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}}
	for _, s := range list {
		rows = append(rows, []string{s.ID, strconv.Itoa(s.Pid), string(s.Status), printable(s.Bundle),
			s.Created.Format(time.RFC3339Nano), s.Owner})
	}
	return writeColumns(w, rows)
}

// writeColumns pads every column but the last to its longest cell.
func writeColumns(w io.Writer, rows [][]string) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell), 9)
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-len(cell)+3))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable quotes what would steer the terminal.
func printable(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}
