package system

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/procs"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Measurer  = (*instance)(nil)
	_ boundary.Describer = (*instance)(nil)
)

// Describe describes the processes of the system.
func (i *instance) Describe(ctx context.Context) ([]workload.ProcessInfo, error) {
	pids, err := i.Processes(ctx)
	if err != nil {
		return nil, err
	}
	return procs.View{User: func(uid uint32) uint32 { return uid }}.Of(pids)
}

// Measure reads what the whole guest uses, as the machine is the system's.
func (i *instance) Measure(ctx context.Context) (u workload.Usage, err error) {
	u.At = time.Now()
	if u.CPU, err = processorTime(); err != nil {
		return u, err
	}
	total, available, err := procs.Memory()
	if err != nil {
		return u, err
	}
	u.Memory, u.MemoryLimit = max(0, total-available), total
	pids, err := i.Processes(ctx)
	if err != nil {
		return u, err
	}
	u.Pids = int64(len(pids))
	if u.NetReceived, u.NetSent, err = procs.Traffic(1); err != nil {
		return u, err
	}
	u.BlockRead, u.BlockWrite = blocks()
	return u, nil
}

// processorTime is the time that was not idle, see proc_stat(5).
func processorTime() (time.Duration, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return 0, err
	}
	words := strings.Fields(line)
	if len(words) < 9 || words[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for n, w := range words[1:9] {
		if n == 3 || n == 4 { // idle, and waiting for a disk
			continue
		}
		t, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += t
	}
	return time.Duration(ticks) * (time.Second / 100), nil // USER_HZ is 100
}

// blocks sums over the machine's disks, see
// Documentation/block/stat.rst. A sector has 512 bytes there.
func blocks() (read, written int64) {
	files, _ := filepath.Glob("/sys/block/vd*/stat")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		words := strings.Fields(string(text))
		if len(words) < 7 {
			continue
		}
		r, err1 := strconv.ParseInt(words[2], 10, 64)
		w, err2 := strconv.ParseInt(words[6], 10, 64)
		if err1 == nil && err2 == nil {
			read, written = read+r*512, written+w*512
		}
	}
	return read, written
}
