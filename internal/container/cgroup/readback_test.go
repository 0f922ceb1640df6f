package cgroup

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestReadBack sets each limit and reads what the kernel then says. A limit
// that this kernel lacks must be an error that names it.
func TestReadBack(t *testing.T) {
	for _, c := range []struct {
		text           string
		v1, v2         string // controller/file
		wantV1, wantV2 string // a part of its content
	}{
		{`{"memory":{"limit":67108864}}`, "memory/memory.limit_in_bytes", "memory/memory.max", "67108864", "67108864"},
		{`{"memory":{"limit":67108864,"swap":100663296}}`, "memory/memory.memsw.limit_in_bytes", "memory/memory.swap.max", "100663296", "33554432"},
		{`{"memory":{"limit":67108864,"swap":67108864}}`, "memory/memory.memsw.limit_in_bytes", "memory/memory.swap.max", "67108864", "0"},
		{`{"memory":{"limit":67108864,"swap":-1}}`, "memory/memory.limit_in_bytes", "memory/memory.max", "67108864", "67108864"},
		{`{"memory":{"reservation":33554432}}`, "memory/memory.soft_limit_in_bytes", "memory/memory.low", "33554432", "33554432"},
		{`{"memory":{"kernelTCP":33554432,"limit":33554432}}`, "memory/memory.kmem.tcp.limit_in_bytes", "memory/memory.max", "33554432", "33554432"},
		{`{"memory":{"swappiness":17}}`, "memory/memory.swappiness", "", "17", ""},
		{`{"memory":{"disableOOMKiller":true}}`, "memory/memory.oom_control", "", "oom_kill_disable 1", ""},
		{`{"cpu":{"shares":512}}`, "cpu/cpu.shares", "cpu/cpu.weight", "512", "59"},
		{`{"cpu":{"quota":30000,"period":60000}}`, "cpu/cpu.cfs_quota_us", "cpu/cpu.max", "30000", "30000 60000"},
		{`{"cpu":{"period":60000}}`, "cpu/cpu.cfs_period_us", "cpu/cpu.max", "60000", "max 60000"},
		{`{"cpu":{"quota":30000,"burst":20000}}`, "cpu/cpu.cfs_burst_us", "cpu/cpu.max.burst", "20000", "20000"},
		{`{"cpu":{"idle":1}}`, "cpu/cpu.idle", "cpu/cpu.idle", "1", "1"},
		{`{"cpu":{"cpus":"0","mems":"0"}}`, "cpuset/cpuset.cpus", "cpuset/cpuset.cpus", "0", "0"},
		{`{"pids":{"limit":77}}`, "pids/pids.max", "pids/pids.max", "77", "77"},
		{`{"pids":{"limit":0}}`, "pids/pids.max", "pids/pids.max", "1", "1"},
		{`{"pids":{"limit":-1}}`, "pids/pids.max", "pids/pids.max", "max", "max"},
		{`{"blockIO":{"weight":321}}`, "blkio/blkio.bfq.weight", "io/io.bfq.weight", "321", "321"},
		{`{"network":{"classID":1048577}}`, "net_cls/net_cls.classid", "", "1048577", ""},
	} {
		t.Run(c.text, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, lay *Layout) {
				r := resources(t, c.text)
				m, err := New(root+"/readback", r, Options{Layout: lay})
				if err == nil {
					err = m.Create()
				}
				if err != nil {
					expectMissing(t, lay, err, c.v1, c.v2)
					return
				}
				defer cleanUp(t, m)
				dir, file, want := m.place(c.v1), c.v1, c.wantV1
				if dir == "" {
					dir, file, want = m.v2, c.v2, c.wantV2
				}
				_, file, _ = strings.Cut(file, "/")
				if file == "io.bfq.weight" && !exists(dir, file) {
					// Without BFQ the weight goes to iocost, on its scale of 1 to 10000.
					file, want = "io.weight", "3142"
				}
				got, err := readFile(dir, file)
				if err != nil || !strings.Contains(got, want) {
					t.Errorf("%s: %q, %v, want %q", file, got, err, want)
				}
			})
		})
	}
}

// place returns the v1 directory for a "controller/file".
func (m *Manager) place(file string) string {
	controller, _, _ := strings.Cut(file, "/")
	return m.dirOn(controller)
}

// expectMissing passes an error about something that the kernel really lacks.
func expectMissing(t *testing.T, lay *Layout, err error, v1, v2 string) {
	t.Helper()
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Errorf("%v, want it in force or a *MissingError", err)
		return
	}
	file := v1
	c, name, _ := strings.Cut(v1, "/")
	_, have := lay.onV1(c)
	if !have {
		file = v2
		c, name, _ = strings.Cut(v2, "/")
		have = lay.onV2(c)
	}
	if !have || file == "" {
		return
	}
	probe := create(t, lay, "probe", &specs.LinuxResources{})
	dir := probe.place(v1)
	if dir == "" {
		dir = probe.v2
	}
	if exists(dir, name) {
		t.Errorf("%s exists in %s, yet: %v", name, dir, err)
		return
	}
	t.Skipf("this kernel lacks it, and says so: %v", err)
}
