package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
)

func runPs(c *command) (int, error) {
	b, err := c.store.load(c.id())
	if err != nil {
		return 0, err
	}
	defer b.Close()
	pids := []int{}
	m, err := b.cgroup()
	if err == nil && m != nil {
		pids, err = m.Pids(true)
	}
	if err = ignoreNotExist(err); err != nil {
		return 0, err
	}
	switch format := c.flags.last("format", "table"); format {
	case "json":
		if pids == nil {
			pids = []int{}
		}
		return 0, json.NewEncoder(c.stdout).Encode(pids)
	case "table":
	default:
		return 0, usagef("ps --format: %q is neither table nor json", format)
	}
	args := c.args[1:]
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(c.ctx, "ps", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("ps: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return 0, c.filterPs(out, pids)
}

// filterPs prints the header of ps's output and the lines of the container's
// processes.
func (c *command) filterPs(out []byte, pids []int) error {
	lines := bytes.Split(bytes.TrimRight(out, "\n"), []byte("\n"))
	column := -1
	for i, name := range bytes.Fields(lines[0]) {
		if string(name) == "PID" {
			column = i
		}
	}
	if column < 0 {
		return errors.New("ps: its output has no PID column, the container's processes cannot be told apart")
	}
	ours := map[string]bool{}
	for _, pid := range pids {
		ours[strconv.Itoa(pid)] = true
	}
	for i, line := range lines {
		fields := bytes.Fields(line)
		if i == 0 || len(fields) > column && ours[string(fields[column])] {
			if _, err := fmt.Fprintf(c.stdout, "%s\n", line); err != nil {
				return err
			}
		}
	}
	return nil
}
