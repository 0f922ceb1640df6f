package workload

import "fmt"

// Merge returns r with the fields of changed in place of its own that are not
// nil or zero, as package boundary's Updater means it.
func (r Resources) Merge(changed Resources) Resources {
	r.take(changed, changed)
	return r
}

// Before returns the limits of r that changed names, which put r in force again after
// a change that failed in the middle. What r does not limit is left out: a limit that
// was to be new may stay. So is the OOM score adjustment.
func (r Resources) Before(changed Resources) (had Resources) {
	changed.OOMScoreAdj = nil
	had.take(r, changed)
	return had
}

// take takes those fields from another's that are neither nil nor zero in named.
func (r *Resources) take(from, named Resources) {
	for _, p := range []struct{ to, from, named **int64 }{
		{&r.Memory, &from.Memory, &named.Memory}, {&r.MemorySwap, &from.MemorySwap, &named.MemorySwap},
		{&r.MemoryReservation, &from.MemoryReservation, &named.MemoryReservation}, {&r.Pids, &from.Pids, &named.Pids},
	} {
		if *p.named != nil {
			*p.to = *p.from
		}
	}
	if named.CPUs != 0 {
		r.CPUs = from.CPUs
	}
	if named.CPUWeight != 0 {
		r.CPUWeight = from.CPUWeight
	}
	if named.CpusetCPUs != "" {
		r.CpusetCPUs = from.CpusetCPUs
	}
	if named.CpusetMems != "" {
		r.CpusetMems = from.CpusetMems
	}
	if named.IOWeight != 0 {
		r.IOWeight = from.IOWeight
	}
	if named.OOMScoreAdj != nil {
		r.OOMScoreAdj = from.OOMScoreAdj
	}
}

// Coherent reports limits that contradict each other.
func (r Resources) Coherent() error {
	if r.MemorySwap != nil && *r.MemorySwap >= 0 && (r.Memory == nil || *r.MemorySwap < *r.Memory) {
		return fmt.Errorf("memory and swap together are %d bytes, which is less than memory alone: give --memory-swap too, at least --memory, or -1", *r.MemorySwap)
	}
	if r.MemoryReservation != nil && r.Memory != nil && *r.MemoryReservation > *r.Memory {
		return fmt.Errorf("the memory reservation of %d bytes is more than the limit of %d: give --memory-reservation too", *r.MemoryReservation, *r.Memory)
	}
	return nil
}
