package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/ocispec"
)

var updateOptions = []option{
	{name: "resources", short: "r", value: "FILE", help: "read linux.resources as JSON from FILE, - for standard input; other flags are then ignored"},
	{name: "memory", value: "SIZE", help: "memory, such as 512M; -1 for no limit"},
	{name: "memory-reservation", value: "SIZE", help: "memory to keep when the machine runs short"},
	{name: "memory-swap", value: "SIZE", help: "memory and swap together; -1 for no limit"},
	{name: "cpu-quota", value: "MICROSECONDS", help: "processor time in each period; -1 for no limit"},
	{name: "cpu-period", value: "MICROSECONDS", help: "length of a period"},
	{name: "cpu-burst", value: "MICROSECONDS", help: "unused time that may be saved up"},
	{name: "cpu-share", value: "N", help: "weight against other cgroups, 2 to 262144"},
	{name: "cpu-idle", value: "0|1", help: "run only when nothing else does"},
	{name: "cpu-rt-period", value: "MICROSECONDS", help: "length of a realtime period"},
	{name: "cpu-rt-runtime", value: "MICROSECONDS", help: "realtime in each period"},
	{name: "cpuset-cpus", value: "LIST", help: "processors to run on, such as 0-2,4"},
	{name: "cpuset-mems", value: "LIST", help: "memory nodes to use"},
	{name: "pids-limit", value: "N", help: "processes and threads; -1 for no limit"},
	{name: "blkio-weight", value: "N", help: "weight against other cgroups, 10 to 1000"},
	{name: "l3-cache-schema", value: "SCHEMA"},
	{name: "mem-bw-schema", value: "SCHEMA"},
	{name: "kernel-memory", value: "SIZE"},
	{name: "kernel-memory-tcp", value: "SIZE"},
}

func runUpdate(c *command) (int, error) {
	res, err := c.resources()
	if err != nil {
		return 0, err
	}
	e, err := c.store.open(c.ctx, c.id())
	if err != nil {
		return 0, err
	}
	defer e.Close()
	b, err := loadDir(e.dir)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	st, err := b.status()
	if err != nil {
		return 0, err
	}
	if st == specs.StateStopped || st == specs.StateCreating {
		return 0, errNotRunning
	}
	m, err := b.cgroup()
	if err != nil {
		return 0, err
	}
	if m == nil {
		return 0, fmt.Errorf("container %s has no cgroup, it has no limits to change", b.ID)
	}
	if len(res.Devices) > 0 {
		res = withDefaultDevices(res)
	}
	return 0, m.Set(res)
}

// resources reads what update is to change.
func (c *command) resources() (*specs.LinuxResources, error) {
	name := c.flags.last("resources", "")
	if name == "" {
		return resourcesFromFlags(c.flags)
	}
	in := io.Reader(c.stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	res, err := ocispec.ReadResources(in)
	if err != nil {
		return nil, fmt.Errorf("resources in %s: %w", name, err)
	}
	return res, nil
}

// flagReader collects the first error over many flags.
type flagReader struct {
	v   values
	err error
}

func (f *flagReader) signed(name string, parse func(string) (int64, error)) *int64 {
	if f.err != nil || !f.v.given(name) {
		return nil
	}
	n, err := parse(f.v.last(name, ""))
	if err != nil {
		f.err = usagef("update --%s: %v", name, err)
		return nil
	}
	return &n
}

func (f *flagReader) number(name string) *int64 {
	return f.signed(name, func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number", s)
		}
		return n, nil
	})
}

func (f *flagReader) unsigned(name string, most uint64) *uint64 {
	n := f.number(name)
	if n == nil {
		return nil
	}
	if *n < 0 || uint64(*n) > most {
		f.err = usagef("update --%s: %d is not between 0 and %d", name, *n, most)
		return nil
	}
	u := uint64(*n)
	return &u
}

func resourcesFromFlags(v values) (*specs.LinuxResources, error) {
	for _, name := range []string{"l3-cache-schema", "mem-bw-schema", "kernel-memory", "kernel-memory-tcp"} {
		if v.given(name) {
			return nil, fmt.Errorf("update --%s: not supported by this runtime", name)
		}
	}
	f := &flagReader{v: v}
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{
			Limit:       f.signed("memory", parseSize),
			Reservation: f.signed("memory-reservation", parseSize),
			Swap:        f.signed("memory-swap", parseSize),
		},
		CPU: &specs.LinuxCPU{
			Quota: f.number("cpu-quota"), Period: f.unsigned("cpu-period", math.MaxInt64),
			Burst: f.unsigned("cpu-burst", math.MaxInt64), Shares: f.unsigned("cpu-share", math.MaxInt64),
			Idle: f.number("cpu-idle"), RealtimePeriod: f.unsigned("cpu-rt-period", math.MaxInt64),
			RealtimeRuntime: f.number("cpu-rt-runtime"),
			Cpus:            v.last("cpuset-cpus", ""), Mems: v.last("cpuset-mems", ""),
		},
	}
	if n := f.number("pids-limit"); n != nil {
		res.Pids = &specs.LinuxPids{Limit: n}
	}
	if n := f.unsigned("blkio-weight", math.MaxUint16); n != nil {
		w := uint16(*n)
		res.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	return res, f.err
}

// parseSize reads a number of bytes with an optional unit, powers of 1024:
// "64", "50M", "50MB", "1.5GiB". -1 is no limit.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	bad := fmt.Errorf("%q is no size, such as 512M", s)
	unit := strings.TrimLeft(s, "0123456789.")
	number := strings.TrimSuffix(s, unit)
	unit = strings.ToLower(strings.TrimSpace(unit))
	if len(unit) > 1 {
		unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	}
	shift := map[string]uint{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
	by, ok := shift[unit]
	if !ok {
		return 0, bad
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n >= 0 && n <= math.MaxInt64>>by {
		return n << by, nil
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, bad
	}
	x *= float64(uint64(1) << by)
	if x < 0 || x >= math.MaxInt64 {
		return 0, errors.New("too large")
	}
	return int64(x), nil
}
