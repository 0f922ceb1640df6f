package probing

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
)

// witnessed compares what the prober says of itself with what the host's /proc
// says of the workload's first process. An error tells the first difference: then
// nothing that came from inside is to be believed.
func witnessed(o *probe.Observations, proc string) error {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return fmt.Errorf("the workload's process cannot be looked at from outside: %w", err)
	}
	checked := 0
	for _, t := range o.Tried {
		for _, c := range t.Calls {
			name, ok := strings.CutPrefix(c.Call, "read(/proc/self/status, ")
			if ok {
				name = strings.TrimSuffix(name, ")")
				if err := same(t.Probe, c.Value, statusField(string(status), name)); err != nil {
					return err
				}
				checked++
			}
			if link, ok := strings.CutPrefix(c.Call, "readlink(/proc/self/ns/"); ok {
				to, err := os.Readlink(filepath.Join(proc, "ns", filepath.Base(strings.TrimSuffix(link, ")"))))
				if err != nil {
					return fmt.Errorf("a namespace cannot be looked at from outside: %w", err)
				}
				if err := same(t.Probe, c.Value, to); err != nil {
					return err
				}
				checked++
			}
		}
	}
	if checked < leastChecked {
		return fmt.Errorf("only %d of its statements can be compared with what the host sees", checked)
	}
	return nil
}

// leastChecked is how many statements the prober always makes: seven namespaces,
// four sets of capabilities, no_new_privs, seccomp.
const leastChecked = 13

func same(id, inside, outside string) error {
	if inside == outside {
		return nil
	}
	return fmt.Errorf("%s: the workload says %.100q, the host sees %.100q", id, inside, outside)
}

// statusField is a field of /proc/PID/status.
func statusField(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
