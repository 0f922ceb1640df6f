package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Set changes limits of a cgroup that exists. Fields of r that are nil or zero
// keep what is in force, and so do device rules when r has none. Limits are
// set one after the other: when one fails, the error names it, and those
// before it are in force.
//
// On v1 new device rules are preceded by denying all, so that an access in
// that moment may be refused; on v2 the exchange is atomic.
func (m *Manager) Set(r *specs.LinuxResources) error { return m.Change(r, Options{Names: m.names}) }

// Change is Set with the options Strict and Names for these limits alone.
func (m *Manager) Change(r *specs.LinuxResources, o Options) error {
	if r == nil {
		return nil
	}
	r, err := m.complete(r)
	if err != nil {
		return fmt.Errorf("update cgroup %s: %w", m.path, err)
	}
	next := *m
	next.names = o.Names
	if err := next.want(r, o.Strict); err != nil {
		return err
	}
	if err := next.apply(); err != nil {
		return fmt.Errorf("update cgroup %s: %w", m.path, noAccess(err))
	}
	return nil
}

// complete fills in what is in force where v2 keeps two settings in one file
// or computes one from the other: quota and period, memory and swap.
func (m *Manager) complete(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	out := *r
	if mem := r.Memory; mem != nil && value(mem.Swap) > 0 && value(mem.Limit) == 0 {
		current, err := m.currentMemoryLimit()
		if err != nil {
			return nil, err
		}
		c := *mem
		c.Limit = &current
		out.Memory = &c
	}
	if cpu := r.CPU; cpu != nil && m.v2 != "" && (value(cpu.Quota) == 0) != (value(cpu.Period) == 0) {
		text, err := readFile(m.v2, "cpu.max")
		if errors.Is(err, os.ErrNotExist) {
			return &out, nil // the limit itself will fail, with a better error
		}
		if err != nil {
			return nil, err
		}
		c := *cpu
		var quota string
		var period uint64
		if _, err := fmt.Sscan(text, &quota, &period); err != nil {
			return nil, fmt.Errorf("read cpu.max %q: %w", text, err)
		}
		if value(cpu.Period) == 0 {
			c.Period = &period
		} else {
			q := int64(-1)
			if quota != "max" {
				if _, err := fmt.Sscan(quota, &q); err != nil {
					return nil, fmt.Errorf("read cpu.max %q: %w", text, err)
				}
			}
			c.Quota = &q
		}
		out.CPU = &c
	}
	return &out, nil
}

// currentMemoryLimit returns the limit in force, -1 for none.
func (m *Manager) currentMemoryLimit() (int64, error) {
	dir, file := m.dirOn("memory"), "memory.limit_in_bytes"
	if dir == "" {
		dir, file = m.v2, "memory.max"
	}
	if dir == "" {
		return 0, &MissingError{Limit: SwapLimit, Controller: "memory"}
	}
	n, err := readNumber(dir, file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, &MissingError{Limit: SwapLimit, Controller: "memory"}
	}
	if err != nil || n >= v1Unlimited {
		return -1, err
	}
	return int64(n), nil
}

// apply puts device rules and limits in force in directories that exist.
func (m *Manager) apply() error {
	if m.policy != nil {
		if err := m.applyDevices(); err != nil {
			return err
		}
	}
	for i := range m.limits {
		if err := m.applyLimit(&m.limits[i]); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) applyDevices() error {
	dir := m.dirOn("devices")
	if dir == "" {
		if m.v2 == "" {
			return &MissingError{deviceLimit, "devices", "no hierarchy with it is mounted"}
		}
		return m.policy.attach(m.v2)
	}
	first, then, lines := m.policy.v1Lines()
	err := writeFile(dir, first, "a")
	if err == nil && len(lines) > 0 {
		err = writeFile(dir, then, lines...)
	}
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%s: %w (the parent cgroup allows less, or CAP_SYS_ADMIN is missing)", deviceLimit, err)
	}
	return err
}

func (m *Manager) applyLimit(l *limit) error {
	dir := m.dirOn(l.controller)
	if l.v2 {
		dir = m.v2
	}
	if dir == "" {
		return &MissingError{Limit: l.name, Controller: l.controller}
	}
	for _, f := range l.files {
		if !slices.ContainsFunc(strings.Split(f, "|"), func(f string) bool { return exists(dir, f) }) {
			return &MissingError{cmp.Or(l.absent, l.name), l.controller, strings.ReplaceAll(f, "|", " or ") + " is missing; " + l.want(dir)}
		}
	}
	res := l.res
	if l.optional != "" && !exists(dir, l.optional) {
		res.MemorySwap = 0
	}
	if err := m.checkCpuset(l, dir); err != nil {
		return err
	}
	if err := m.setLibrary(l.v2, &res); err != nil {
		return l.explain(dir, err)
	}
	for _, s := range l.raw {
		if err := writeFile(dir, s.file, s.value); err != nil {
			return l.explain(dir, err)
		}
	}
	return nil
}

func (l *limit) want(dir string) string {
	if l.hint != "" {
		return l.hint
	}
	return "the kernel does not offer it in " + dir
}

// setLibrary lets the library write. It copies nothing of res.
func (m *Manager) setLibrary(v2 bool, res *cgroups.Resources) error {
	if v2 {
		lib, err := m.v2Library()
		if err != nil {
			return err
		}
		return lib.Set(res)
	}
	lib, err := m.v1Library()
	if err != nil {
		return err
	}
	return lib.Set(res)
}

// explain says what the kernel's error number means for a limit.
func (l *limit) explain(dir string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &MissingError{l.name, l.controller, err.Error()}
	case errors.Is(err, syscall.EOPNOTSUPP):
		return &MissingError{l.name, l.controller, "the kernel does not support it: " + err.Error()}
	case errors.Is(err, syscall.ENODEV) && exists(dir, "."):
		return fmt.Errorf("%s: %w (no such block device, or a partition: limits apply to whole devices)", l.name, err)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		return fmt.Errorf("%s: %w (the kernel refuses the value; a parent cgroup may allow less)", l.name, err)
	}
	return fmt.Errorf("%s: %w", l.name, err)
}

// checkCpuset checks that processors and memory nodes are to be had from the
// parent. v1 would say EACCES, v2 nothing at all.
func (m *Manager) checkCpuset(l *limit, dir string) error {
	for _, c := range []struct{ list, file string }{
		{l.res.CpusetCpus, "cpuset.cpus"}, {l.res.CpusetMems, "cpuset.mems"},
	} {
		if c.list == "" {
			continue
		}
		want, err := parseList(c.list)
		if err != nil {
			return invalid(l.name, "%v", err)
		}
		file := c.file
		if l.v2 {
			file += ".effective"
		}
		text, err := readFile(path.Dir(dir), file)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		have, err := parseList(text)
		if err != nil {
			return fmt.Errorf("%s: read %s: %w", l.name, file, err)
		}
		if missing := without(want, have); len(missing) > 0 {
			return invalid(l.name, "%s is not available here, only %s", formatList(missing), formatList(have))
		}
	}
	return nil
}
