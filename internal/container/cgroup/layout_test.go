package cgroup

import (
	"fmt"
	"strings"
	"testing"
)

const hybridTable = `24 1 254:0 / / rw - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
29 23 0:99 /docker/x /mnt/memory rw - cgroup cgroup rw,memory
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:3 master:4 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
42 23 0:40 / /mnt/cg\0402 rw - cgroup2 none rw
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
broken line - cgroup
`

func TestParseMountinfo(t *testing.T) {
	v1, v2 := parseMountinfo([]byte(hybridTable))
	got := fmt.Sprint(v1, " ", v2)
	want := "[{memory [memory] /sys/fs/cgroup/memory} {cpu,cpuacct [cpu cpuacct] /sys/fs/cgroup/cpu,cpuacct} {name=systemd [] /sys/fs/cgroup/systemd}] /sys/fs/cgroup/unified"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, v2 := parseMountinfo([]byte(`42 23 0:40 / /mnt/cg\0402 rw - cgroup2 none rw`)); v2 != "/mnt/cg 2" {
		t.Errorf("escaped mount point: %q", v2)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte(hybridTable))
	f.Fuzz(func(t *testing.T, data []byte) {
		v1, _ := parseMountinfo(data)
		for i, h := range v1 {
			if h.Name == "" || strings.Contains(h.Name, " ") && strings.HasPrefix(h.Name, "name=") {
				t.Errorf("hierarchy %d: %+v", i, h)
			}
		}
	})
}

func TestDetectAgreesWithItself(t *testing.T) {
	lay, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range lay.V1 {
		if !exists(h.Mount, "tasks") {
			t.Errorf("%+v has no tasks file", h)
		}
	}
	if lay.V2 != "" && !exists(lay.V2, "cgroup.controllers") {
		t.Errorf("%s has no cgroup.controllers", lay.V2)
	}
}
