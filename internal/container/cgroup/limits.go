package cgroup

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The names of the limits that most callers offer. See Options.Names.
const (
	MemoryLimit       = "memory limit"
	SwapLimit         = "swap limit" // of memory and swap together
	MemoryReservation = "memory reservation"
	CPUShares         = "cpu shares"
	CPUQuota          = "cpu quota"
	CpusetCPUs        = "cpuset cpus"
	CpusetMems        = "cpuset mems"
	PidsLimit         = "pids limit"
	IOWeight          = "io weight"
	IOReadRate        = "io read rate"
	IOWriteRate       = "io write rate"
	IOReadOpsRate     = "io read operations rate"
	IOWriteOpsRate    = "io write operations rate"
)

// limit is one thing that was asked for, ready to be put in force.
type limit struct {
	name       string // as the user would say it, such as "memory limit"
	controller string // the kernel's name on the hierarchy that has it
	v2         bool   // which hierarchy that is
	// files must each exist in the cgroup; an entry may name alternatives
	// separated by "|". The library passes over some that are missing.
	files []string
	hint  string // what would provide a missing file
	// absent is the limit that a missing file prevents; "" for name.
	absent string
	// optional is a file without which a request for "no limit" is already met.
	optional string
	res      cgroups.Resources
	raw      []setting // written after res, for what the library cannot say
}

// setting is one write of one value.
type setting struct{ file, value string }

// demand collects the limits of one LinuxResources. Its methods record the
// first error and go on, so that the conversion reads as a list.
type demand struct {
	lay    *Layout
	names  map[string]string // see Options
	limits []limit
	notes  []string
	err    error
}

// limitsFor turns resources into limits for the given layout. It checks every
// field: each is put in force, known to be in force anyway, or an error. A
// nil or zero field asks for nothing, -1 for no limit.
//
// names are Options.Names. Notes are what the kernel accepts though nothing enforces it at present.
func limitsFor(r *specs.LinuxResources, lay *Layout, names map[string]string) (limits []limit, notes []string, err error) {
	d := demand{lay: lay, names: names}
	if r != nil {
		d.memory(r.Memory)
		d.cpu(r.CPU)
		d.cpuset(r.CPU)
		d.pids(r.Pids)
		d.blockIO(r.BlockIO)
		d.hugepages(r.HugepageLimits)
		d.network(r.Network)
		d.rdma(r.Rdma)
		d.unified(r.Unified)
	}
	return d.limits, d.notes, d.err
}

func (d *demand) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *demand) invalid(name, format string, args ...any) {
	d.fail(invalid(d.say(name), format, args...))
}

func (d *demand) note(name, format string, args ...any) {
	d.notes = append(d.notes, d.say(name)+": "+fmt.Sprintf(format, args...))
}

// say returns the user's words for a limit.
func (d *demand) say(name string) string { return cmp.Or(d.names[name], name) }

// place says where a controller lives. The names differ for block devices.
func (d *demand) place(v1, v2 string) (controller string, onV2, ok bool) {
	if v1 != "" {
		if _, ok := d.lay.onV1(v1); ok {
			return v1, false, true
		}
	}
	if v2 != "" && d.lay.onV2(v2) {
		return v2, true, true
	}
	return "", false, false
}

// add records a limit on a controller, v1 and v2 being its names on the two
// generations, "" where that one has no such limit. fill completes the limit
// once it is known where it goes.
func (d *demand) add(name, v1, v2 string, fill func(l *limit)) {
	controller, onV2, ok := d.place(v1, v2)
	if !ok {
		d.fail(d.missing(name, v1, v2))
		return
	}
	l := limit{name: d.say(name), controller: controller, v2: onV2}
	fill(&l)
	d.limits = append(d.limits, l)
}

func (d *demand) missing(name, v1, v2 string) error {
	e := &MissingError{Limit: d.say(name), Controller: v1}
	if v1 == "" || d.lay.Mode == ModeV2 && v2 != "" {
		e.Controller = v2
	}
	_, mounted := d.lay.onV1(v1)
	switch {
	case d.lay.Mode == ModeNone:
		e.Reason = "no cgroup file system is mounted"
	case v2 == "" && d.lay.Mode == ModeV2:
		e.Reason = "cgroup v2 has no such limit"
	case v1 == "" && mounted:
		e.Reason = "cgroup v1 has no such limit"
	case d.lay.Mode == ModeV2:
		e.Reason = "the kernel lacks it, or it was not handed down to this cgroup file system"
	default:
		e.Reason = "no hierarchy with it is mounted (see /proc/cgroups)"
	}
	return e
}

// v2Needs returns the controllers that the v2 directory must have, each
// with the first limit that needs it.
func v2Needs(limits []limit) map[string]string {
	need := make(map[string]string)
	for _, l := range limits {
		if l.v2 && l.controller != "" {
			if _, ok := need[l.controller]; !ok {
				need[l.controller] = l.name
			}
		}
	}
	return need
}

// accounted are the v2 controllers that are enabled even without a limit,
// where they are to be had, because statistics and the out-of-memory report
// come from them.
var accounted = []string{"cpu", "memory", "pids", "io"}

// wanted returns the controllers of accounted that lay offers on v2.
func wanted(lay *Layout) []string {
	var list []string
	for _, c := range accounted {
		if slices.Contains(lay.V2Controllers, c) {
			list = append(list, c)
		}
	}
	return list
}
