package procs

import (
	"errors"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// View says how processes look from inside.
type View struct {
	Level int                 // which of a process's IDs is the one inside
	User  func(uint32) uint32 // a user ID inside
}

// Of describes processes, which are given by their IDs here. Those that have
// ended meanwhile are left out.
func (v View) Of(pids []int) ([]workload.ProcessInfo, error) {
	boot, err := Boot()
	if err != nil {
		return nil, err
	}
	inside := map[int]int{} // by ID here
	var all []Process
	for _, pid := range pids {
		p, err := Read(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if v.Level >= len(p.IDs) {
			continue // on its way into the namespace
		}
		inside[pid] = p.IDs[v.Level]
		all = append(all, p)
	}
	out := make([]workload.ProcessInfo, 0, len(all))
	for _, p := range all {
		out = append(out, workload.ProcessInfo{
			PID: p.IDs[v.Level], PPID: inside[p.PPID], UID: v.User(p.UID), State: p.State, Started: boot.Add(p.Started),
			CPU: p.CPU, RSS: p.RSS, TTY: p.TTY, Command: p.Command,
		})
	}
	return out, nil
}
