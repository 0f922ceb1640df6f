package cgroup

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Layouts that need no machine. Only computing looks at them.
var (
	fakeV2 = &Layout{Mode: ModeV2, V2: "/none", V2Controllers: []string{"cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc"}}
	bareV2 = &Layout{Mode: ModeV2, V2: "/none"}
	fakeV1 = &Layout{Mode: ModeV1, V1: fakeHierarchies("cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "net_cls,net_prio", "blkio", "hugetlb", "pids", "rdma", "name=systemd")}
	bareV1 = &Layout{Mode: ModeV1, V1: fakeHierarchies("freezer")}
	hybrid = &Layout{Mode: ModeHybrid, V2: "/none", V2Controllers: []string{"hugetlb"}, V1: fakeHierarchies("cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids")}
)

func fakeHierarchies(names ...string) []Hierarchy {
	var list []Hierarchy
	for _, n := range names {
		h := Hierarchy{Name: n, Mount: "/none/" + n}
		if !strings.HasPrefix(n, "name=") {
			h.Controllers = strings.Split(n, ",")
		}
		list = append(list, h)
	}
	return list
}

func resources(t *testing.T, text string) *specs.LinuxResources {
	t.Helper()
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &r
}

func TestInvalidLimits(t *testing.T) {
	for _, text := range []string{
		`{"memory":{"limit":-2}}`,
		`{"memory":{"limit":-9223372036854775808}}`,
		`{"memory":{"swap":1000000}}`,
		`{"memory":{"limit":-1,"swap":1000000}}`,
		`{"memory":{"limit":2000000,"swap":1000000}}`,
		`{"memory":{"limit":1000000,"swap":-3}}`,
		`{"memory":{"limit":1000000,"reservation":2000000}}`,
		`{"memory":{"reservation":-5}}`,
		`{"cpu":{"shares":1}}`,
		`{"cpu":{"shares":262145}}`,
		`{"cpu":{"shares":18446744073709551615}}`,
		`{"cpu":{"quota":999}}`,
		`{"cpu":{"quota":-5}}`,
		`{"cpu":{"quota":9223372036854775807}}`,
		`{"cpu":{"quota":10000,"period":999}}`,
		`{"cpu":{"period":1000001}}`,
		`{"cpu":{"quota":10000,"burst":10001}}`,
		`{"cpu":{"idle":2}}`,
		`{"cpu":{"idle":1,"shares":100}}`,
		`{"cpu":{"cpus":"a"}}`,
		`{"cpu":{"cpus":"3-1"}}`,
		`{"cpu":{"cpus":"0-99999999"}}`,
		`{"cpu":{"mems":"0,"}}`,
		`{"cpu":{"mems":"0\n1"}}`,
		`{"pids":{"limit":-2}}`,
		`{"blockIO":{"weight":9}}`,
		`{"blockIO":{"weight":1001}}`,
		`{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":5}]}}`,
		`{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":5}]}}`,
		`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":1048576,"rate":5}]}}`,
		`{"rdma":{"a\nb":{"hcaHandles":1}}}`,
		`{"devices":[{"allow":true,"type":"x"}]}`,
		`{"devices":[{"allow":true,"type":"c","major":-2}]}`,
		`{"devices":[{"allow":true,"type":"c","access":"rwx"}]}`,
		`{"devices":[{"allow":false},{"allow":true,"type":"c","major":5},{"allow":false,"type":"c","major":5,"minor":1}]}`,
	} {
		for _, lay := range []*Layout{fakeV1, fakeV2} {
			_, err := New("/x", resources(t, text), Options{Layout: lay})
			var inv *InvalidError
			if !errors.As(err, &inv) {
				t.Errorf("%s on %s: %v, want an *InvalidError", text, lay.Mode, err)
			}
		}
	}
}

func TestMissingControllers(t *testing.T) {
	for _, c := range []struct {
		text       string
		lay        *Layout
		controller string
	}{
		{`{"memory":{"limit":100000000}}`, bareV1, "memory"},
		{`{"memory":{"limit":100000000}}`, bareV2, "memory"},
		{`{"memory":{"swappiness":10}}`, fakeV2, "memory"},
		{`{"memory":{"disableOOMKiller":true}}`, fakeV2, "memory"},
		{`{"memory":{"kernel":1000000}}`, fakeV1, "kernel memory"},
		{`{"memory":{"limit":2000000,"kernel":1000000}}`, fakeV2, "kernel memory"},
		{`{"memory":{"kernelTCP":1000000}}`, fakeV2, "kernel TCP memory"},
		{`{"cpu":{"shares":100}}`, bareV1, "cpu"},
		{`{"cpu":{"quota":10000}}`, bareV2, "cpu"},
		{`{"cpu":{"realtimeRuntime":10000}}`, fakeV2, "cpu"},
		{`{"cpu":{"idle":1}}`, bareV2, "cpu"},
		{`{"cpu":{"cpus":"0"}}`, bareV1, "cpuset"},
		{`{"cpu":{"mems":"0"}}`, bareV2, "cpuset"},
		{`{"pids":{"limit":10}}`, bareV1, "pids"},
		{`{"pids":{"limit":-1}}`, bareV2, "pids"},
		{`{"blockIO":{"weight":100}}`, bareV1, "blkio"},
		{`{"blockIO":{"weight":100}}`, bareV2, "io"},
		{`{"blockIO":{"leafWeight":100}}`, fakeV1, "cfq"},
		{`{"blockIO":{"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":1}]}}`, bareV2, "io"},
		{`{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}`, bareV1, "hugetlb"},
		{`{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}`, bareV2, "hugetlb"},
		{`{"network":{"classID":1}}`, bareV1, "net_cls"},
		{`{"network":{"classID":1}}`, fakeV2, "net_cls"},
		{`{"network":{"priorities":[{"name":"lo","priority":1}]}}`, fakeV2, "net_prio"},
		{`{"rdma":{"mlx":{"hcaHandles":1}}}`, hybrid, "rdma"},
		{`{"unified":{"memory.high":"1"}}`, fakeV1, "memory"},
		{`{"unified":{"memory.high":"1"}}`, hybrid, "memory"},
		{`{"unified":{"io.max":"1"}}`, hybrid, "io"},
		{`{"unified":{"hugetlb.2MB.max":"1"}}`, bareV2, "hugetlb"},
	} {
		_, err := New("/x", resources(t, c.text), Options{Layout: c.lay})
		var missing *MissingError
		if !errors.As(err, &missing) || !errors.Is(err, workload.ErrUnsupported) {
			t.Errorf("%s on %s: %v, want a *MissingError", c.text, c.lay.Mode, err)
			continue
		}
		if missing.Controller != c.controller || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.controller) {
			t.Errorf("%s on %s: %v, want the controller %s", c.text, c.lay.Mode, err, c.controller)
		}
	}
}

// TestWhereLimitsGo reads like a table: what was asked, where it goes.
func TestWhereLimitsGo(t *testing.T) {
	for _, c := range []struct {
		text string
		lay  *Layout
		want string
	}{
		{`{}`, fakeV1, ""},
		{`{"memory":{"limit":0},"cpu":{"shares":0,"quota":0},"blockIO":{"weight":0}}`, bareV1, ""},
		{`{"memory":{"useHierarchy":true,"disableOOMKiller":false,"swappiness":18446744073709551615}}`, fakeV2, ""},
		{`{"memory":{"limit":1000000,"swap":2000000}}`, fakeV1, "memory/v1 memory.memsw.limit_in_bytes"},
		{`{"memory":{"limit":1000000,"swap":2000000}}`, fakeV2, "memory/v2 memory.swap.max"},
		{`{"memory":{"limit":1000000,"kernel":1000000}}`, fakeV1, "memory/v1"},
		{`{"memory":{"limit":1000000,"kernelTCP":1000000}}`, fakeV2, "memory/v2"},
		{`{"memory":{"limit":1000000,"kernelTCP":1000000}}`, fakeV1, "memory/v1; memory/v1 memory.kmem.tcp.limit_in_bytes"},
		{`{"memory":{"limit":-1}}`, fakeV2, "memory/v2"},
		{`{"cpu":{"quota":20000,"burst":1000}}`, fakeV1, "cpu/v1 cpu.cfs_quota_us cpu.cfs_burst_us"},
		{`{"cpu":{"quota":20000,"burst":1000}}`, fakeV2, "cpu/v2 cpu.max cpu.max.burst"},
		{`{"blockIO":{"weight":500}}`, fakeV1, "blkio/v1 blkio.weight|blkio.bfq.weight"},
		{`{"blockIO":{"weight":500}}`, fakeV2, "io/v2 io.bfq.weight|io.weight"},
		{`{"pids":{"limit":5},"unified":{"memory.high":"max","cgroup.max.depth":"3"}}`, fakeV2, "pids/v2; /v2 cgroup.max.depth; memory/v2 memory.high"},
		{`{"unified":{"cgroup.max.depth":"3"}}`, hybrid, "/v2 cgroup.max.depth"},
	} {
		limits, _, err := limitsFor(resources(t, c.text), c.lay, nil)
		if err != nil {
			t.Errorf("%s on %s: %v", c.text, c.lay.Mode, err)
			continue
		}
		if got := describe(limits); got != c.want {
			t.Errorf("%s on %s:\n got %q\nwant %q", c.text, c.lay.Mode, got, c.want)
		}
	}
}

func describe(limits []limit) string {
	var words []string
	for _, l := range limits {
		version := "/v1"
		if l.v2 {
			version = "/v2"
		}
		words = append(words, strings.Join(append([]string{l.controller + version}, l.files...), " "))
	}
	return strings.Join(words, "; ")
}

// TestConversions checks numbers that Docker's users know.
func TestConversions(t *testing.T) {
	for shares, weight := range map[string]uint64{"2": 1, "1024": 100, "262144": 10000} {
		limits, _, err := limitsFor(resources(t, `{"cpu":{"shares":`+shares+`}}`), fakeV2, nil)
		if err != nil || limits[0].res.CpuWeight != weight || limits[0].res.CpuShares != 0 {
			t.Errorf("shares %s: %+v, %v, want weight %d", shares, limits[0].res, err, weight)
		}
	}
	limits, _, err := limitsFor(resources(t, `{"pids":{"limit":0}}`), fakeV1, nil)
	if err != nil || *limits[0].res.PidsLimit != 0 {
		t.Errorf("pids 0: %+v, %v", limits, err)
	}
}

func TestUnifiedKeysThatAreNoLimits(t *testing.T) {
	for _, key := range []string{"cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control",
		"", "memory", "memory.", "../memory.max", "memory.max/..", "memory.max\nx", "memory. max", strings.Repeat("a", 300) + ".max"} {
		r := &specs.LinuxResources{Unified: map[string]string{key: "1"}}
		_, err := New("/x", r, Options{Layout: fakeV2})
		var inv *InvalidError
		if !errors.As(err, &inv) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestStrict(t *testing.T) {
	r := resources(t, `{"blockIO":{"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":1000}]}}`)
	m, err := New("/x", r, Options{Layout: fakeV1})
	if err != nil || len(m.Notes()) != 1 || !strings.Contains(m.Notes()[0], "buffered") {
		t.Errorf("notes %q, %v", m.Notes(), err)
	}
	if _, err := New("/x", r, Options{Layout: fakeV1, Strict: true}); err == nil {
		t.Error("strict: no error")
	}
	if m, err = New("/x", r, Options{Layout: fakeV2, Strict: true}); err != nil || len(m.Notes()) > 0 {
		t.Errorf("on v2: %q, %v", m.Notes(), err)
	}
}

func TestParseList(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "3,1,2": "1-3", "0-3,7\n": "0-3,7", " 5 , 4": "4-5", "1-1": "1", "0,0": "0"} {
		list, err := parseList(text)
		if got := formatList(list); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	if got := without([]int{0, 2, 5}, []int{0, 1, 2}); !slices.Equal(got, []int{5}) {
		t.Errorf("without: %v", got)
	}
}

func FuzzLimits(f *testing.F) {
	for _, s := range []string{
		`{"memory":{"limit":1000000,"swap":2000000,"reservation":5,"kernel":1,"kernelTCP":1,"swappiness":5,"disableOOMKiller":true}}`,
		`{"cpu":{"shares":2,"quota":1000,"period":1000,"burst":3,"cpus":"0-3","mems":"0","idle":1,"realtimeRuntime":1}}`,
		`{"blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]}}`,
		`{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}],"pids":{"limit":1}}`,
		`{"unified":{"memory.high":"1"},"rdma":{"a":{"hcaHandles":1}},"network":{"classID":1},"hugepageLimits":[{"pageSize":"2MB","limit":1}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r specs.LinuxResources
		if json.Unmarshal(data, &r) != nil {
			return
		}
		for _, lay := range []*Layout{fakeV1, fakeV2, hybrid, bareV1, bareV2} {
			m, err := New("/x", &r, Options{Layout: lay})
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("control character in %q", err)
				}
				continue
			}
			for _, l := range m.limits {
				if _, ok := lay.onV1(l.controller); !ok && !lay.onV2(l.controller) && l.controller != "" {
					t.Errorf("%s was let through without the controller %s", l.name, l.controller)
				}
			}
			if m.policy != nil {
				checkProgram(t, *m.policy)
			}
		}
	})
}
