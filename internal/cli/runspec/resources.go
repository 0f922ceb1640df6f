package runspec

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const (
	// DefaultPids is the pids limit when none is given: enough for a busy
	// server, far below a machine's limit, so that a fork bomb stays inside.
	DefaultPids = 4096
	// DefaultShmSize is the size of /dev/shm in bytes, as with Docker.
	DefaultShmSize = 64 << 20

	minMemory = 6 << 20 // what starting a process and its kernel objects needs
	// minInitPids is enough for the threads of bulkhead-init, which is a Go
	// program, and for the program and a child.
	minInitPids = 16
	// minFiles leaves room for the standard streams and what the first process
	// holds for a moment while it is made.
	minFiles = 8
	maxPids  = 1 << 22 // the kernel's own limit of process IDs (proc(5), pid_max)
	maxCPU   = 8191    // highest processor or node number that is looked at
)

// ResourceFlags are the limits as typed; an empty string is a flag not given.
type ResourceFlags struct {
	Memory, MemorySwap, MemoryReservation  string
	CPUs                                   string
	CPUShares                              int64
	CpusetCPUs, CpusetMems                 string
	PidsLimit                              int64
	BlkioWeight                            int64
	ReadBPS, WriteBPS, ReadIOPS, WriteIOPS []string
	OOMScoreAdj                            string
	ShmSize                                string
}

// resources checks every limit and returns them in the kernel's terms.
func (f *ResourceFlags) resources(host Host) (workload.Resources, error) {
	var r workload.Resources
	for _, step := range []func(*workload.Resources, Host) error{
		f.memory, f.cpu, f.cpusets, f.pids, f.io, f.other,
	} {
		if err := step(&r, host); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (f *ResourceFlags) memory(r *workload.Resources, _ Host) (err error) {
	if r.Memory, err = parseOptionalSize("--memory", f.Memory); err != nil {
		return err
	}
	if r.Memory != nil && *r.Memory == 0 {
		r.Memory = nil // as with Docker: no limit
	}
	if r.Memory != nil && *r.Memory < minMemory {
		return bad("--memory", f.Memory, "less than the 6 MiB that starting a process needs", "give at least 6m")
	}
	if r.MemoryReservation, err = parseOptionalSize("--memory-reservation", f.MemoryReservation); err != nil {
		return err
	}
	if res := r.MemoryReservation; res != nil && r.Memory != nil && *res > *r.Memory {
		return bad("--memory-reservation", f.MemoryReservation, "more than the limit of --memory "+f.Memory, "the reservation is the lower of the two")
	}
	return f.swap(r)
}

// swap checks --memory-swap, which counts memory and swap together.
func (f *ResourceFlags) swap(r *workload.Resources) (err error) {
	const flag, fix = "--memory-swap", "it is the sum of memory and swap: at least --memory, or -1 for swap without limit"
	switch f.MemorySwap {
	case "", "0":
		return nil
	case "-1":
		unlimited := int64(-1)
		r.MemorySwap = &unlimited
	default:
		if r.MemorySwap, err = parseOptionalSize(flag, f.MemorySwap); err != nil {
			return err
		}
	}
	if r.Memory == nil {
		return bad(flag, f.MemorySwap, "there is no --memory limit to add swap to", "give --memory too")
	}
	if *r.MemorySwap >= 0 && *r.MemorySwap < *r.Memory {
		return bad(flag, f.MemorySwap, "less than --memory "+f.Memory, fix)
	}
	return nil
}

// boundSwap limits swap where memory alone was limited, to as much again, as Docker
// does; see Features.Memory. A guest has none.
func boundSwap(r *workload.Resources, boundary string, host Host) error {
	if r.Memory == nil || r.MemorySwap != nil || boundary == "vm" {
		return nil
	}
	has, err := host.Cgroups()
	if err == nil {
		r.MemorySwap = has.Memory(*r.Memory).Swap
	}
	return err
}

func (f *ResourceFlags) cpu(r *workload.Resources, host Host) error {
	if f.CPUs != "" {
		n, err := strconv.ParseFloat(f.CPUs, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 || n > 0 && n < 0.01 {
			return bad("--cpus", f.CPUs, "not a number of processors", "write a decimal number from 0.01, such as 1.5")
		}
		if n > float64(host.CPUs) {
			return bad("--cpus", f.CPUs, fmt.Sprintf("this machine has %d", host.CPUs), fmt.Sprintf("give 0.01 to %d", host.CPUs))
		}
		r.CPUs = n
	}
	if f.CPUShares != 0 && (f.CPUShares < 2 || f.CPUShares > 262144) {
		return bad("--cpu-shares", strconv.FormatInt(f.CPUShares, 10), "out of range", "give 2 to 262144; 1024 is the usual share")
	}
	r.CPUWeight = uint64(f.CPUShares)
	return nil
}

func (f *ResourceFlags) cpusets(r *workload.Resources, _ Host) error {
	if err := checkList("--cpuset-cpus", f.CpusetCPUs); err != nil {
		return err
	}
	r.CpusetCPUs, r.CpusetMems = f.CpusetCPUs, f.CpusetMems
	return checkList("--cpuset-mems", f.CpusetMems)
}

// checkList checks the list format of cpuset(7): 0-3,7. Whether the machine has
// these processors is the kernel's to say.
func checkList(flag, s string) error {
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, errA := strconv.ParseUint(lo, 10, 16)
		b, errB := strconv.ParseUint(hi, 10, 16)
		if errA != nil || errB != nil || a > b || b > maxCPU {
			return bad(flag, s, "not a list of numbers and ranges", "write such as 0-3,7")
		}
	}
	return nil
}

func (f *ResourceFlags) pids(r *workload.Resources, _ Host) error {
	n := f.PidsLimit
	value := strconv.FormatInt(n, 10)
	switch {
	case n == 0:
		n = -1 // as with Docker: no limit
	case n < -1:
		return bad("--pids-limit", value, "a limit cannot be negative", "give a number of processes, or -1 for no limit")
	case n == 1:
		return bad("--pids-limit", value, "starting a program takes two processes", "give at least 2")
	case n > maxPids:
		return bad("--pids-limit", value, "more than the kernel can ever run", fmt.Sprintf("give at most %d, or -1 for no limit", maxPids))
	}
	r.Pids = &n
	return nil
}

func (f *ResourceFlags) io(r *workload.Resources, _ Host) error {
	if w := f.BlkioWeight; w != 0 && (w < 10 || w > 1000) {
		return bad("--blkio-weight", strconv.FormatInt(w, 10), "out of range", "give 10 to 1000; 500 is the usual weight")
	}
	r.IOWeight = uint16(f.BlkioWeight)
	for _, rate := range []struct {
		flag   string
		values []string
		bytes  bool
		field  func(*workload.IOLimit) *uint64
	}{
		{"--device-read-bps", f.ReadBPS, true, func(l *workload.IOLimit) *uint64 { return &l.ReadBPS }},
		{"--device-write-bps", f.WriteBPS, true, func(l *workload.IOLimit) *uint64 { return &l.WriteBPS }},
		{"--device-read-iops", f.ReadIOPS, false, func(l *workload.IOLimit) *uint64 { return &l.ReadIOPS }},
		{"--device-write-iops", f.WriteIOPS, false, func(l *workload.IOLimit) *uint64 { return &l.WriteIOPS }},
	} {
		for _, s := range rate.values {
			device, n, err := parseRate(rate.flag, s, rate.bytes)
			if err != nil {
				return err
			}
			*rate.field(ioLimit(r, device)) = n
		}
	}
	return nil
}

// ioLimit returns the limit of a device, made if there is none yet.
func ioLimit(r *workload.Resources, device string) *workload.IOLimit {
	i := slices.IndexFunc(r.IOLimits, func(l workload.IOLimit) bool { return l.Device == device })
	if i < 0 {
		i = len(r.IOLimits)
		r.IOLimits = append(r.IOLimits, workload.IOLimit{Device: device})
	}
	return &r.IOLimits[i]
}

// parseRate reads DEVICE:RATE.
func parseRate(flag, s string, bytes bool) (device string, rate uint64, err error) {
	example := "/dev/sda:1000"
	if bytes {
		example = "/dev/sda:10m"
	}
	fix := "write DEVICE:RATE a second, such as " + example
	i := strings.LastIndexByte(s, ':')
	if i < 0 || !path.IsAbs(s[:i]) || strings.ContainsRune(s, 0) {
		return "", 0, bad(flag, s, "not a device and a rate", fix)
	}
	if bytes {
		n, err := ParseSize(flag, s[i+1:])
		if err != nil {
			return "", 0, bad(flag, s, "not a rate", fix)
		}
		rate = uint64(n)
	} else if rate, err = strconv.ParseUint(s[i+1:], 10, 63); err != nil {
		return "", 0, bad(flag, s, "not a rate", fix)
	}
	if rate == 0 {
		return "", 0, bad(flag, s, "a rate of 0 would stop everything", fix)
	}
	return path.Clean(s[:i]), rate, nil
}

func (f *ResourceFlags) other(r *workload.Resources, _ Host) error {
	if f.OOMScoreAdj != "" {
		n, err := strconv.Atoi(f.OOMScoreAdj)
		if err != nil || n < -1000 || n > 1000 {
			return bad("--oom-score-adj", f.OOMScoreAdj, "out of range", "give -1000 to 1000 (proc(5))")
		}
		r.OOMScoreAdj = &n
	}
	r.ShmSize = DefaultShmSize
	if f.ShmSize != "" {
		n, err := ParseSize("--shm-size", f.ShmSize)
		if err != nil {
			return err
		}
		if n < 4096 {
			return bad("--shm-size", f.ShmSize, "less than a page", "give at least 4k")
		}
		r.ShmSize = n
	}
	return nil
}

// rlimitNames are the resources of setrlimit(2) by the name of --ulimit.
var rlimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
	"rtprio", "rttime", "sigpending", "stack",
}

// parseUlimits reads every --ulimit NAME=SOFT[:HARD], -1 for no limit; a later
// one wins.
func parseUlimits(all []string) ([]workload.Rlimit, error) {
	const flag, fix = "--ulimit", "write NAME=SOFT[:HARD], such as nofile=1024:4096; -1 is no limit"
	var out []workload.Rlimit
	for _, s := range all {
		name, value, _ := strings.Cut(s, "=")
		if !slices.Contains(rlimitNames, name) {
			return nil, bad(flag, s, "unknown limit", "limits are "+strings.Join(rlimitNames, ", "))
		}
		softText, hardText, hasHard := strings.Cut(value, ":")
		if !hasHard {
			hardText = softText
		}
		soft, errSoft := parseRlimit(softText)
		hard, errHard := parseRlimit(hardText)
		if errSoft != nil || errHard != nil {
			return nil, bad(flag, s, "not a limit", fix)
		}
		if soft > hard {
			return nil, bad(flag, s, "the soft limit is above the hard one", fix)
		}
		if name == "nofile" && soft < minFiles {
			return nil, bad(flag, s, fmt.Sprintf("less than the %d open files that starting a program needs", minFiles), fmt.Sprintf("give at least %d", minFiles))
		}
		r := workload.Rlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard}
		out = slices.DeleteFunc(out, func(o workload.Rlimit) bool { return o.Type == r.Type })
		out = append(out, r)
	}
	return out, nil
}

// parseRlimit reads one value; -1 and unlimited are RLIM_INFINITY.
func parseRlimit(s string) (uint64, error) {
	if s == "-1" || s == "unlimited" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(s, 10, 64)
}
