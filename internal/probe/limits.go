package probe

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// limitFiles are where a limit is found: the controller of version 1 and its file,
// then that of version 2.
type limitFiles struct{ controller, v1, v2 string }

var (
	pidsFiles   = limitFiles{"pids", "pids.max", "pids.max"}
	memoryFiles = limitFiles{"memory", "memory.limit_in_bytes", "memory.max"}
	quotaFiles  = limitFiles{"cpu", "cpu.cfs_quota_us", "cpu.max"}
	periodFiles = limitFiles{"cpu", "cpu.cfs_period_us", "cpu.max"}
)

// unlimited is what is written down where there is no limit.
const unlimited = "none"

// read writes down a limit, by name.
func (l limitFiles) read(p *prober, name string) {
	list, _, err := mounts()
	if err != nil {
		p.add(name, "", err)
		return
	}
	for _, m := range list {
		file := ""
		switch {
		case m.kind == "cgroup" && hasWord(m.super, l.controller):
			file = path.Join(m.point, l.v1)
		case m.kind == "cgroup2":
			file = path.Join(m.point, l.v2)
		default:
			continue
		}
		text, err := beginning(file)
		if err != nil {
			continue // another hierarchy has the controller
		}
		value := strings.TrimSpace(text)
		if value == "max" || strings.HasPrefix(value, "-") || len(value) >= len("9223372036854771712") && value > "9223372036850000000" {
			value = unlimited
		}
		p.add(name, value, nil)
		return
	}
	p.add(name, "", unix.ENOENT)
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// fewer judges a limit that must be at most what was declared, and above 0. host is
// what it is called where the host sees it, "" where it does not.
func fewer(v *view, host, name string, declared int64, what string) outcome {
	e, ok := v.either(host, name)
	n, err := strconv.ParseInt(e.Value, 10, 64)
	switch {
	case !ok || e.Errno != "":
		return isUnclear("no cgroup shows it: " + first(e.Value, e.Errno))
	case e.Value == unlimited:
		return noLimit(v, e.Call == host)
	case err != nil:
		return isUnclear("the limit makes no sense: " + e.Value)
	case declared > 0 && n > declared:
		return isOpen(fmt.Sprintf("%d %s, %d were asked for", n, what, declared))
	}
	return isShut(fmt.Sprintf("%d %s", n, what))
}

// noLimit judges a cgroup without a limit. Another runtime makes one of its own
// below the one that has the limits, and what is above it only the host sees.
func noLimit(v *view, host bool) outcome {
	if d := v.context.Declared; !host && d != nil && (d.Boundary == "runtime" || d.Boundary == sandbox) {
		return isUnclear("the workload's own cgroup has no limit; the one around it, which cannot be seen inside, may have one")
	}
	return isOpen("no limit")
}

const (
	pidsLimit   = "read(pids.max)"
	memoryLimit = "read(memory.max)"
	quotaLimit  = "read(cpu quota)"
	periodLimit = "read(cpu period)"
	filesLimit  = "getrlimit(RLIMIT_NOFILE)"
	shmSize     = "statfs(/dev/shm)"
	oomScore    = "/proc/self/oom_score_adj"
	pidsReached = "clone until it fails"

	memoryReached = "mmap(MAP_POPULATE) of more than the limit, by a child"
	memoryKilled  = "the child is killed"
	memoryHeld    = "read(smaps_rollup, Rss) of the child"
	memorySwapped = "read(smaps_rollup, Swap) of the child"
)

func limitProbes() []Probe {
	return []Probe{
		{
			ID: "limits.processes", Door: "any number of processes", Expected: "a limit of processes",
			Enables:     "filling the host's table of processes",
			Consequence: report.Exhausts, beyond: true,
			Opens:      []string{"--pids-limit -1"},
			Fix:        "--pids-limit 4096, or what the workload needs",
			References: []string{"CIS Docker 5.29"},
			observe:    func(p *prober) { pidsFiles.read(p, pidsLimit) },
			judge: func(v *view) outcome {
				var most int64
				if d := v.context.Declared; d != nil {
					most = max(0, d.Pids)
				}
				return fewer(v, SeenPids, pidsLimit, most, "processes")
			},
		},
		{
			ID: "limits.processes-reached", Door: "a limit of processes that does not hold", Expected: "making one process too many fails",
			Enables:     "filling the host's table of processes",
			Consequence: report.Exhausts, beyond: true,
			Opens:      []string{"--pids-limit -1"},
			Fix:        "--pids-limit 4096, or what the workload needs",
			References: []string{"CIS Docker 5.29"},
			observe:    observeProcesses,
			judge: func(v *view) outcome {
				e, ok := v.call(pidsReached)
				switch {
				case v.of("limits.processes").state == open:
					return isOpen("no limit")
				case !ok:
					return notReached(v)
				case e.Errno == "EAGAIN":
					return isShut("EAGAIN after " + e.Value)
				case e.Errno != "":
					return isUnclear("clone fails: " + e.Errno)
				}
				return isOpen(e.Value + " processes, more than the limit")
			},
		},
		{
			ID: "limits.memory", Door: "more memory than was asked for", Expected: "the limit of memory that was asked for",
			Enables:     "driving the host to kill other programs",
			Consequence: report.Exhausts, beyond: true,
			Fix:        "--memory SIZE",
			References: []string{"CIS Docker 5.10"},
			observe:    func(p *prober) { memoryFiles.read(p, memoryLimit) },
			judge: func(v *view) outcome {
				if d := v.context.Declared; d == nil || d.Memory <= 0 {
					return isAbsent("no limit was asked for")
				}
				return fewer(v, SeenMemory, memoryLimit, v.context.Declared.Memory, "bytes")
			},
		},
		{
			ID: "limits.memory-reached", Door: "a limit of memory that does not hold", Expected: "a child that takes more is killed, or gets nothing",
			Enables:     "driving the host to kill other programs",
			Consequence: report.Exhausts, beyond: true,
			Fix:        "--memory SIZE",
			References: []string{"CIS Docker 5.10"},
			observe:    observeMemory,
			judge: func(v *view) outcome {
				e, ok := v.call(memoryReached)
				switch {
				case v.context.Declared == nil || v.context.Declared.Memory <= 0:
					return isAbsent("no limit was asked for")
				case v.of("limits.memory").state == open:
					return isOpen("no such limit")
				case !ok:
					return notReached(v)
				case e.Value == memoryKilled || e.Errno == "ENOMEM":
					return isShut(first(e.Value, e.Errno))
				case e.Errno != "":
					return isUnclear("mmap fails: " + e.Errno)
				}
				return judgeMemory(v, e.Value, v.context.Declared.Swap)
			},
		},
		{
			ID: "limits.processors", Door: "more processor time than was asked for", Expected: "the quota that was asked for",
			Enables:     "slowing down everybody else",
			Consequence: report.Exhausts, beyond: true,
			Fix:        "--cpus NUMBER",
			References: []string{"CIS Docker 5.11"},
			observe: func(p *prober) {
				quotaFiles.read(p, quotaLimit)
				periodFiles.read(p, periodLimit)
			},
			judge: judgeQuota,
		},
		{
			ID: "limits.files", Door: "more open files than were asked for", Expected: "the limit of open files that was asked for",
			Enables:     "filling the host's table of files",
			Consequence: report.Exhausts, beyond: true,
			Fix:        "--ulimit nofile=NUMBER",
			References: []string{"getrlimit(2)", "CIS Docker 5.18"},
			observe: func(p *prober) {
				var r syscall.Rlimit
				err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
				p.add(filesLimit, strconv.FormatUint(r.Max, 10), err)
			},
			judge: func(v *view) outcome {
				if d := v.context.Declared; d == nil || d.Files == 0 {
					return isAbsent("no limit was asked for")
				}
				return fewer(v, "", filesLimit, int64(min(v.context.Declared.Files, 1<<62)), "files")
			},
		},
		{
			ID: "limits.shared-memory", Door: "/dev/shm of any size", Expected: "/dev/shm of the size that was asked for",
			Enables:     "filling the host's memory with files",
			Consequence: report.Exhausts, beyond: true,
			Opens:      []string{"--ipc host", "--volume /dev"},
			Fix:        "--shm-size SIZE, and an IPC namespace of its own",
			References: []string{"shm_overview(7)"},
			observe: func(p *prober) {
				_, _, bytes, err := fileSystem("/dev/shm")
				p.add(shmSize, strconv.FormatUint(bytes, 10), err)
			},
			judge: func(v *view) outcome {
				d := v.context.Declared
				if d == nil || d.Shm == 0 {
					return isAbsent("nobody said how large it is to be")
				}
				if e, ok := v.call(shmSize); ok && e.Errno == "ENOENT" {
					return isShut("there is none")
				} else if ok && e.Errno == "" && e.Value == "0" {
					return isOpen("no limit: a size of 0 is none (tmpfs(5))")
				}
				return fewer(v, "", shmSize, d.Shm, "bytes")
			},
		},
		{
			ID: "limits.oom-score", Door: "being spared when memory runs out", Expected: "oom_score_adj is not negative",
			Enables:     "having the kernel kill the host's own programs first",
			Consequence: report.Exhausts, beyond: true,
			Opens:      []string{"--oom-score-adj -"},
			Fix:        "leave out --oom-score-adj",
			References: []string{"proc_pid_oom_score_adj(5)"},
			observe:    func(p *prober) { p.read(oomScore) },
			judge: func(v *view) outcome {
				e, ok := v.either(SeenOOMScore, readCall(oomScore))
				n, err := strconv.Atoi(e.Value)
				switch {
				case !ok || e.Errno != "" || err != nil:
					return isUnclear("it cannot be read: " + e.Errno)
				case n < 0:
					return isOpen(e.Value)
				}
				return isShut(e.Value)
			},
		},
	}
}

// notReached says why nobody tried whether a limit holds.
func notReached(v *view) outcome {
	if d := v.context.Declared; d != nil && d.Boundary == sandbox {
		return isAbsent("whoever reaches it ends gVisor's kernel, and the prober with it")
	}
	return isAbsent("the limit is too high to be reached without harm")
}

// toReach is the limit to reach, the one that was told before the one that is seen,
// and whether it is safe to.
func toReach(told int64, seen string, least, most int) (int, bool) {
	limit := int(told)
	if told == 0 {
		var err error
		if limit, err = strconv.Atoi(seen); err != nil {
			return 0, false
		}
	}
	return limit, limit >= least && limit <= most
}

// safeProcesses is the highest limit that is tried: that many idle children are no
// burden.
const safeProcesses = 256

// observeProcesses makes idle children up to one more than the limit, and ends
// them. Threads count, too, so that it fails earlier.
func observeProcesses(p *prober) {
	var found prober
	pidsFiles.read(&found, pidsLimit)
	limit, ok := toReach(p.targets.Pids, found.o.Calls[0].Value, 0, safeProcesses)
	if !ok {
		return
	}
	var children []*launch.Recording
	var failed error
	for len(children) <= limit && failed == nil {
		var c *launch.Recording
		if c, failed = launch.Record(0, []launch.Trial{{Call: unix.SYS_PPOLL}}); failed == nil {
			children = append(children, c)
		}
	}
	for _, c := range children {
		_ = c.Kill() // it exists until it is waited for
	}
	for _, c := range children {
		if _, _, err := c.Wait(); err != nil {
			p.trouble("wait for a child: %v", err)
		}
	}
	p.add(pidsReached, strconv.Itoa(len(children)), failed)
}

func judgeQuota(v *view) outcome {
	d := v.context.Declared
	if d == nil || d.CPUs <= 0 {
		return isAbsent("no limit was asked for")
	}
	if e, ok := v.host(SeenQuota); ok {
		return judgeProcessors(v, e, d.CPUs)
	}
	quota, ok := v.call(quotaLimit)
	period, ok2 := v.call(periodLimit)
	if !ok || !ok2 || quota.Errno != "" || period.Errno != "" {
		return isUnclear("no cgroup shows it: " + quota.Errno)
	}
	// cpu.max of version 2 holds both.
	if _, _, both := strings.Cut(quota.Value, " "); !both {
		quota.Value += " " + period.Value
	}
	return judgeProcessors(v, quota, d.CPUs)
}

// judgeProcessors judges a quota with its period.
func judgeProcessors(v *view, quota report.Evidence, declared float64) outcome {
	q, per, _ := strings.Cut(quota.Value, " ")
	switch {
	case quota.Errno != "":
		return isUnclear("no cgroup shows it: " + first(quota.Value, quota.Errno))
	case q == unlimited || q == "max":
		return noLimit(v, quota.Call == SeenQuota)
	}
	a, err := strconv.ParseFloat(q, 64)
	b, err2 := strconv.ParseFloat(per, 64)
	if err != nil || err2 != nil || b <= 0 {
		return isUnclear("the quota makes no sense: " + quota.Value)
	}
	seen := fmt.Sprintf("%.2f processors", a/b)
	if a/b > declared*1.01+0.01 {
		return isOpen(fmt.Sprintf("%s, %.2f were asked for", seen, declared))
	}
	return isShut(seen)
}
