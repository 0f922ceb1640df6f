package ocispec

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ValidateProcess checks a container's or an exec's process.
func ValidateProcess(p *specs.Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return errors.New("process.args: no command")
	}
	if p.Cwd == "" {
		return errors.New("process.cwd: missing")
	}
	if !path.IsAbs(p.Cwd) {
		return fmt.Errorf("process.cwd: %q is not an absolute path", p.Cwd)
	}
	for i, e := range p.Env {
		if !strings.Contains(e, "=") || strings.HasPrefix(e, "=") {
			return fmt.Errorf("process.env[%d]: %q is not of the form NAME=value", i, e)
		}
	}
	if n := p.OOMScoreAdj; n != nil && (*n < -1000 || *n > 1000) {
		return fmt.Errorf("process.oomScoreAdj: %d is not between -1000 and 1000", *n)
	}
	if u := p.User.Umask; u != nil && *u > 0o777 {
		return fmt.Errorf("process.user.umask: %#o has more than permission bits", *u)
	}
	if c := p.ConsoleSize; c != nil && (c.Height > 0xffff || c.Width > 0xffff) {
		return errors.New("process.consoleSize: a terminal has at most 65535 rows and columns")
	}
	if err := checkRlimits(p.Rlimits); err != nil {
		return err
	}
	if err := checkIOPriority(p.IOPriority); err != nil {
		return err
	}
	if err := checkScheduler(p.Scheduler); err != nil {
		return err
	}
	return refuseProcess(p)
}

// rlimits are the resources of getrlimit(2).
var rlimits = map[string]bool{
	"RLIMIT_AS": true, "RLIMIT_CORE": true, "RLIMIT_CPU": true, "RLIMIT_DATA": true,
	"RLIMIT_FSIZE": true, "RLIMIT_LOCKS": true, "RLIMIT_MEMLOCK": true, "RLIMIT_MSGQUEUE": true,
	"RLIMIT_NICE": true, "RLIMIT_NOFILE": true, "RLIMIT_NPROC": true, "RLIMIT_RSS": true,
	"RLIMIT_RTPRIO": true, "RLIMIT_RTTIME": true, "RLIMIT_SIGPENDING": true, "RLIMIT_STACK": true,
}

func checkRlimits(list []specs.POSIXRlimit) error {
	seen := map[string]bool{}
	for i, r := range list {
		at := fmt.Sprintf("process.rlimits[%d]", i)
		switch {
		case !rlimits[r.Type]:
			return fmt.Errorf("%s.type: %q is no resource limit", at, r.Type)
		case seen[r.Type]:
			return fmt.Errorf("%s.type: %s is given twice", at, r.Type)
		case r.Soft > r.Hard:
			return fmt.Errorf("%s: the soft limit %d of %s is above the hard limit %d", at, r.Soft, r.Type, r.Hard)
		}
		seen[r.Type] = true
	}
	return nil
}

func checkIOPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	switch p.Class {
	case specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE:
	default:
		return fmt.Errorf("process.ioPriority.class: %q is no class", p.Class)
	}
	if p.Priority < 0 || p.Priority > 7 {
		return fmt.Errorf("process.ioPriority.priority: %d is not between 0 and 7", p.Priority)
	}
	return nil
}

// checkScheduler checks the rules of sched_setattr(2) that the specification
// repeats (config.md, scheduler).
func checkScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	switch s.Policy {
	case specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, specs.SchedISO,
		specs.SchedIdle, specs.SchedDeadline:
	default:
		return fmt.Errorf("process.scheduler.policy: %q is no policy", s.Policy)
	}
	if s.Nice < -20 || s.Nice > 19 {
		return fmt.Errorf("process.scheduler.nice: %d is not between -20 and 19", s.Nice)
	}
	if s.Priority != 0 && !realtime {
		return fmt.Errorf("process.scheduler.priority: %s has no priorities", s.Policy)
	}
	if s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) {
		return errors.New("process.scheduler: runtime, deadline and period are for SCHED_DEADLINE")
	}
	for _, f := range s.Flags {
		switch f {
		case specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun,
			specs.SchedFlagKeepPolicy, specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin,
			specs.SchedFlagUtilClampMax:
		default:
			return fmt.Errorf("process.scheduler.flags: %q is no flag", f)
		}
	}
	return nil
}

// checkUserMapped finds IDs that do not exist in the container's user
// namespace before the kernel says EINVAL.
func checkUserMapped(s *specs.Spec) error {
	if s.Linux == nil || len(s.Linux.UIDMappings) == 0 {
		return nil
	}
	u := s.Process.User
	if !mapped(s.Linux.UIDMappings, u.UID) {
		return fmt.Errorf("process.user.uid: %d is not in linux.uidMappings", u.UID)
	}
	for _, g := range append([]uint32{u.GID}, u.AdditionalGids...) {
		if !mapped(s.Linux.GIDMappings, g) {
			return fmt.Errorf("process.user: group %d is not in linux.gidMappings", g)
		}
	}
	return nil
}

func mapped(list []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range list {
		if id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size) {
			return true
		}
	}
	return false
}
