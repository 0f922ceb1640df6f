package workload

import "fmt"

// Merge returns r with the fields of changed in place of its own that are not
// nil or zero, as package boundary's Updater means it.
func (r Resources) Merge(changed Resources) Resources {
	pointers := []struct{ to, from **int64 }{
		{&r.Memory, &changed.Memory}, {&r.MemorySwap, &changed.MemorySwap},
		{&r.MemoryReservation, &changed.MemoryReservation}, {&r.Pids, &changed.Pids},
	}
	for _, p := range pointers {
		if *p.from != nil {
			*p.to = *p.from
		}
	}
	if changed.CPUs != 0 {
		r.CPUs = changed.CPUs
	}
	if changed.CPUWeight != 0 {
		r.CPUWeight = changed.CPUWeight
	}
	if changed.CpusetCPUs != "" {
		r.CpusetCPUs = changed.CpusetCPUs
	}
	if changed.CpusetMems != "" {
		r.CpusetMems = changed.CpusetMems
	}
	if changed.IOWeight != 0 {
		r.IOWeight = changed.IOWeight
	}
	if changed.OOMScoreAdj != nil {
		r.OOMScoreAdj = changed.OOMScoreAdj
	}
	return r
}

// Before returns the limits of r that changed names, which put r in force again after
// a change that failed in the middle. What r does not limit is left out: a limit that
// was to be new may stay.
func (r Resources) Before(changed Resources) Resources {
	var had Resources
	for _, p := range []struct{ to, from, named **int64 }{
		{&had.Memory, &r.Memory, &changed.Memory}, {&had.MemorySwap, &r.MemorySwap, &changed.MemorySwap},
		{&had.MemoryReservation, &r.MemoryReservation, &changed.MemoryReservation}, {&had.Pids, &r.Pids, &changed.Pids},
	} {
		if *p.named != nil {
			*p.to = *p.from
		}
	}
	if changed.CPUs != 0 {
		had.CPUs = r.CPUs
	}
	if changed.CPUWeight != 0 {
		had.CPUWeight = r.CPUWeight
	}
	if changed.CpusetCPUs != "" {
		had.CpusetCPUs = r.CpusetCPUs
	}
	if changed.CpusetMems != "" {
		had.CpusetMems = r.CpusetMems
	}
	if changed.IOWeight != 0 {
		had.IOWeight = r.IOWeight
	}
	return had
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
