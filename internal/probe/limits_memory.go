package probe

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// safeMemory is the highest limit that is tried, in bytes.
const safeMemory = 128 << 20

// beyondMemory is how much more than the limit is taken, in bytes.
const beyondMemory = 32 << 20

// observeMemory has a child take more than the limit. It is far larger than this
// process, so that it is the one that is killed. Where it is not, part of it may be in
// swap, which a limit of memory does not count: it waits until somebody has looked.
func observeMemory(p *prober) {
	var found prober
	memoryFiles.read(&found, memoryLimit)
	limit, ok := toReach(p.targets.Memory, found.o.Calls[0].Value, safeMemory/4, safeMemory)
	if !ok {
		return
	}
	child, err := launch.Record(0, []launch.Trial{
		{Call: unix.SYS_MMAP, Args: [6]uintptr{
			0, uintptr(limit + beyondMemory), unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_POPULATE, ^uintptr(0), 0,
		}},
		{Call: unix.SYS_PPOLL},
	})
	if err != nil {
		p.trouble("make a child: %v", err)
		return
	}
	made, waited := firstCall(child)
	var smaps string
	var unread error
	if made {
		smaps, unread = beginning(fmt.Sprintf("/proc/%d/smaps_rollup", child.PID())) // status counts less exactly
	}
	if made || waited != nil {
		_ = child.Kill() // it exists until it is waited for
	}
	results, ws, err := child.Wait()
	switch {
	case waited != nil || err != nil:
		p.trouble("wait for a child: %v", errors.Join(waited, err))
	case made && results[0].Errno != 0:
		p.add(memoryReached, "", results[0].Errno)
	case made:
		p.add(memoryReached, strconv.Itoa(limit+beyondMemory), nil)
		p.add(memoryHeld, field(smaps, "Rss:"), unread)
		p.add(memorySwapped, field(smaps, "Swap:"), unread)
	case ws.Signaled() && ws.Signal() == unix.SIGKILL:
		p.add(memoryReached, memoryKilled, nil)
	default:
		p.trouble("the child ended with status %#x", uint32(ws))
	}
}

// firstCall waits until a child has made its first call, or ended without.
func firstCall(child *launch.Recording) (made bool, err error) {
	for {
		if child.Result(0).Ended {
			return true, nil
		}
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, child.PID(), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || info.Signo != 0 {
			return child.Result(0).Ended && err == nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

// judgeMemory judges a child that has taken more than the limit and lives. The limit
// holds if no more than that is in memory, and the rest in as much swap as was asked
// for: swap is what memory and swap together may be, 0 or less for any amount.
func judgeMemory(v *view, taken string, swap int64) outcome {
	var n [3]int64
	for i, text := range []string{taken, kibibytes(v, memoryHeld), kibibytes(v, memorySwapped)} {
		var err error
		if n[i], err = strconv.ParseInt(text, 10, 64); err != nil || n[i] < 0 {
			return isUnclear("the child got more than the limit; how much of it is in memory and how much in swap cannot be read")
		}
	}
	took, held, swapped := n[0], n[1], n[2]
	seen := fmt.Sprintf("%d bytes in memory and %d in swap", held, swapped)
	switch {
	case held > took-beyondMemory:
		return isOpen("more than the limit: " + seen)
	case swap > 0 && held+swapped > swap:
		return isOpen(fmt.Sprintf("%s, %d were asked for", seen, swap))
	case held+swapped < took-pageTables:
		return isUnclear("part of what the child took is neither in memory nor in swap: " + seen)
	}
	return isShut(seen)
}

// pageTables is by how much figures of memory may differ from what was asked for.
const pageTables = 1 << 20

// kibibytes is a figure of /proc in bytes, "" for none.
func kibibytes(v *view, call string) string {
	e, ok := v.call(call)
	n, err := strconv.ParseInt(e.Value, 10, 64)
	if !ok || e.Errno != "" || err != nil || n < 0 || n > 1<<50 {
		return ""
	}
	return strconv.FormatInt(n<<10, 10)
}
