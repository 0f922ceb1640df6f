package runspec

import (
	"fmt"
	"strconv"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// UpdateOptions are the flags of update as typed.
type UpdateOptions struct {
	Resources ResourceFlags
	Restart   string
}

// AddFlags binds every flag of update to o.
func (o *UpdateOptions) AddFlags(fs *pflag.FlagSet) {
	r := &o.Resources
	fs.StringVarP(&r.Memory, "memory", "m", "", "limit of memory as a `size`, such as 512m")
	fs.StringVar(&r.MemorySwap, "memory-swap", "", "limit of memory and swap together as a `size`; -1 for any swap")
	fs.StringVar(&r.MemoryReservation, "memory-reservation", "", "`size` of memory that is protected from being reclaimed")
	fs.StringVar(&r.CPUs, "cpus", "", "limit of processor time as a `number` of processors, such as 1.5")
	fs.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "relative `share` of busy processors, 2 to 262144")
	fs.StringVar(&r.CpusetCPUs, "cpuset-cpus", "", "processors that may be used, as a `list` such as 0-3,7")
	fs.StringVar(&r.CpusetMems, "cpuset-mems", "", "memory nodes that may be used, as a `list` such as 0")
	fs.Int64Var(&r.PidsLimit, "pids-limit", 0, "limit of the `number` of processes and threads; -1 for none")
	fs.Int64Var(&r.BlkioWeight, "blkio-weight", 0, "relative `weight` of disk access, 10 to 1000")
	fs.StringVar(&o.Restart, "restart", "", "restart `policy`: no, on-failure[:MAX], always or unless-stopped")
}

// Update is a checked command line of update.
type Update struct {
	Resources workload.Resources
	Restart   *workload.Restart // nil where it is not to change
	flags     *ResourceFlags
}

// Check validates the flags. changed reports whether one was given.
func (o *UpdateOptions) Check(host Host, changed func(flag string) bool) (*Update, error) {
	u := &Update{flags: &o.Resources}
	f := &o.Resources
	r := &u.Resources
	var err error
	if r.Memory, err = parseOptionalSize("--memory", f.Memory); err != nil {
		return nil, err
	}
	if r.Memory != nil && *r.Memory < minMemory {
		return nil, bad("--memory", f.Memory, "less than the 6 MiB that starting a process needs", "give at least 6m")
	}
	if f.MemorySwap == "-1" {
		unlimited := int64(-1)
		r.MemorySwap = &unlimited
	} else if r.MemorySwap, err = parseOptionalSize("--memory-swap", f.MemorySwap); err != nil {
		return nil, err
	}
	if r.MemoryReservation, err = parseOptionalSize("--memory-reservation", f.MemoryReservation); err != nil {
		return nil, err
	}
	steps := []func(*workload.Resources, Host) error{f.cpu, f.cpusets, f.io}
	if changed("pids-limit") {
		steps = append(steps, f.pids)
	}
	for _, step := range steps {
		if err := step(r, host); err != nil {
			return nil, err
		}
	}
	if changed("cpus") && r.CPUs == 0 {
		return nil, bad("--cpus", f.CPUs, "not a number of processors to limit to", fmt.Sprintf("give 0.01 to %d", host.CPUs))
	}
	if changed("restart") {
		p, err := ParseRestart(o.Restart)
		if err != nil {
			return nil, err
		}
		u.Restart = &p
	}
	if u.Restart == nil && f.nothing() && r.Pids == nil {
		return nil, advice.New("update needs something to change", "give a limit such as --memory 512m, or --restart POLICY; `bulkhead update --help` lists the flags")
	}
	return u, nil
}

// nothing reports whether no limit was given but that of processes.
func (f *ResourceFlags) nothing() bool {
	return f.Memory == "" && f.MemorySwap == "" && f.MemoryReservation == "" && f.CPUs == "" && f.CPUShares == 0 &&
		f.CpusetCPUs == "" && f.CpusetMems == "" && f.BlkioWeight == 0
}

// For returns the limits that change for one workload. Where memory alone is changed,
// memory and swap together go with it if they were twice as much, as by default, or not
// limited for want of a limit.
func (u *Update) For(s *workload.Spec, host Host) (workload.Resources, error) {
	r, had := u.Resources, s.Resources
	if r.Memory == nil || had.MemorySwap != nil && (had.Memory == nil || *had.MemorySwap != 2**had.Memory) {
		return r, nil
	}
	return r, boundSwap(&r, s.Boundary, host)
}

// Suits reports what a workload cannot be given, whether it runs or not.
func (u *Update) Suits(s *workload.Spec) error {
	if s.AutoRemove && u.Restart != nil && u.Restart.Policy != "" {
		return advice.New("a workload of --rm, which is removed at its end, cannot be restarted", "leave out --restart")
	}
	if u.Resources.Pids != nil && s.Init && *u.Resources.Pids > 0 && *u.Resources.Pids < minInitPids {
		return bad("--pids-limit", strconv.FormatInt(*u.Resources.Pids, 10), "the first process of --init has several threads", fmt.Sprintf("give at least %d", minInitPids))
	}
	if s.Boundary != "vm" {
		return nil
	}
	if s.VM.System && (u.Resources.Pids != nil || u.Resources.MemoryReservation != nil) {
		return advice.New("--pids-limit and --memory-reservation have no meaning for a whole system, which is not one process", "leave them out; --memory is the machine's, from its next start on")
	}
	o := Options{Boundary: "vm", Resources: *u.flags}
	return o.ownKernel()
}
