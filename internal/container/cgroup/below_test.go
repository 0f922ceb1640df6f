package cgroup

import (
	"strings"
	"testing"
)

func TestBelow(t *testing.T) {
	m := &Manager{path: "/c", lay: &Layout{}, v2: "/sys/fs/cgroup/unified/c", v1: []v1Dir{
		{Hierarchy{Controllers: []string{"memory"}}, "/sys/fs/cgroup/memory/c"},
		{Hierarchy{Controllers: []string{"cpu", "cpuacct"}}, "/sys/fs/cgroup/cpu,cpuacct/c"},
	}}
	all, err := m.Below("/a/b/")
	if err != nil || all.path != "/c/a/b" || all.v2 != "/sys/fs/cgroup/unified/c/a/b" || all.v1[0].dir != "/sys/fs/cgroup/memory/c/a/b" {
		t.Errorf("got %+v, %v", all, err)
	}
	one, err := m.Below("a", "cpuacct")
	if err != nil || one.v1[0].dir != m.v1[0].dir || one.v1[1].dir != "/sys/fs/cgroup/cpu,cpuacct/c/a" || one.v2 != m.v2 {
		t.Errorf("got %+v, %v", one, err)
	}
	if m.v1[1].dir != "/sys/fs/cgroup/cpu,cpuacct/c" {
		t.Error("the Manager itself was changed")
	}
	for sub, want := range map[string]string{"..": "bad sub cgroup path", "a/../../b": "bad sub cgroup path"} {
		if _, err := m.Below(sub); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", sub, err, want)
		}
	}
	if _, err := m.Below("a", "fly"); err == nil || !strings.Contains(err.Error(), `unknown controller "fly"`) {
		t.Errorf("unknown controller: got %v", err)
	}
}
