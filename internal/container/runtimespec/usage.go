package runtimespec

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Update changes limits of a workload's cgroup. A memory limit below what is in
// use is refused: on cgroup v2 the kernel would kill for it, on v1 it would
// refuse it with a word that explains nothing.
func Update(m *cgroup.Manager, r workload.Resources) error {
	if r.OOMScoreAdj != nil || r.ShmSize != 0 {
		return fmt.Errorf("%w: --oom-score-adj and --shm-size are settled when a workload starts", workload.ErrUnsupported)
	}
	res, err := Resources(r)
	if err != nil {
		return err
	}
	res.Devices = nil // they stay
	if r.Memory != nil && *r.Memory > 0 {
		st, err := m.Stats()
		if err != nil {
			return Gone(err)
		}
		if used := st.Memory.Current - min(st.Memory.Cache, st.Memory.Current); used > uint64(*r.Memory) {
			return fmt.Errorf("--memory %d: the workload uses %d bytes now", *r.Memory, used)
		}
	}
	err = m.Change(res, cgroup.Options{Strict: true, Names: LimitNames(r)})
	if m.Exists() {
		return err // a file that is missing is one that this machine does not have
	}
	return Gone(err)
}

// Gone says that a cgroup or process that is not there is the workload's end.
func Gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", workload.ErrNotRunning, err)
	}
	return err
}

// UsageOf are the figures of a cgroup as a workload's.
func UsageOf(st cgroup.Stats) workload.Usage {
	return workload.Usage{
		At: time.Now(), CPU: st.CPU.Usage,
		Memory: figure(st.Memory.Current - min(st.Memory.Inactive, st.Memory.Current)), MemoryLimit: figure(st.Memory.Limit),
		Pids: figure(st.Pids.Current), PidsLimit: figure(st.Pids.Limit),
		BlockRead: figure(st.IO.ReadBytes), BlockWrite: figure(st.IO.WriteBytes),
	}
}

// figure is n, 0 for no limit.
func figure(n uint64) int64 {
	if n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}
