package container

import (
	"encoding/binary"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

var schedulerPolicies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04, specs.SchedFlagKeepPolicy: 0x08,
	specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
}

var ioClasses = map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

// planScheduling sets the scheduler (sched_setattr(2)) and the I/O priority
// (ioprio_set(2)) of a child, with the host's privileges.
func planScheduling(g *launch.Program, spec *specs.Process, pid launch.Slot) error {
	if s := spec.Scheduler; s != nil {
		policy, ok := schedulerPolicies[s.Policy]
		if !ok {
			return fmt.Errorf("unknown scheduler policy %q", s.Policy)
		}
		var flags uint64
		for _, f := range s.Flags {
			bit, ok := schedulerFlags[f]
			if !ok {
				return fmt.Errorf("unknown scheduler flag %q", f)
			}
			flags |= bit
		}
		b := make([]byte, 48) // struct sched_attr, version 0
		binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
		binary.NativeEndian.PutUint32(b[4:], policy)
		binary.NativeEndian.PutUint64(b[8:], flags)
		binary.NativeEndian.PutUint32(b[16:], uint32(s.Nice))
		binary.NativeEndian.PutUint32(b[20:], uint32(s.Priority))
		binary.NativeEndian.PutUint64(b[24:], s.Runtime)
		binary.NativeEndian.PutUint64(b[32:], s.Deadline)
		binary.NativeEndian.PutUint64(b[40:], s.Period)
		g.Do(launch.Host, launch.SchedSetattr, "scheduler", launch.Use(pid), launch.Buf(b, fmt.Sprintf("{%s, nice=%d, priority=%d}", s.Policy, s.Nice, s.Priority)), launch.Int(0))
	}
	if s := spec.IOPriority; s != nil {
		class, ok := ioClasses[s.Class]
		if !ok {
			return fmt.Errorf("unknown I/O priority class %q", s.Class)
		}
		if s.Priority < 0 || s.Priority > 7 {
			return fmt.Errorf("I/O priority %d: want 0 to 7", s.Priority)
		}
		g.Do(launch.Host, launch.IoprioSet, "I/O priority", launch.Flag(1, "IOPRIO_WHO_PROCESS"), launch.Use(pid),
			launch.Flag(uintptr(class<<13|s.Priority), fmt.Sprintf("%s|%d", s.Class, s.Priority)))
	}
	return nil
}

// planPersonality sets the execution domain, personality(2).
func planPersonality(g *launch.Program, spec *specs.Linux) error {
	if spec == nil || spec.Personality == nil {
		return nil
	}
	if len(spec.Personality.Flags) > 0 {
		return fmt.Errorf("personality flags %q are not supported", spec.Personality.Flags)
	}
	domains := map[specs.LinuxPersonalityDomain]uintptr{specs.PerLinux: 0, specs.PerLinux32: 8}
	n, ok := domains[spec.Personality.Domain]
	if !ok {
		return fmt.Errorf("unknown personality %q", spec.Personality.Domain)
	}
	g.Do(launch.Init, launch.Personality, "execution domain", launch.Flag(n, string(spec.Personality.Domain)))
	return nil
}
