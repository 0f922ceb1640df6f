package qemu

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// TestCgroup starts QEMU in a cgroup: it is there in every hierarchy, with all
// its threads, and the cgroup can be removed when it has ended.
func TestCgroup(t *testing.T) {
	cfg := config(t, code{}.stack().print("up").hang())
	path := fmt.Sprintf("/bulkhead-qemu-test-%d", os.Getpid())
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{path}})
	group, err := cgroup.New(path, nil, cgroup.Options{})
	if err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	if err := group.Create(); err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	t.Cleanup(func() {
		if err := group.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	cfg.Cgroup = group
	m := start(t, cfg)
	console(t, m, "up")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	in := 0
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(strings.TrimSpace(line), ":"+path) {
			in++
		}
	}
	if want := len(group.Paths()); in != want {
		t.Errorf("in %d of %d hierarchies: %s", in, want, b)
	}
	var explained strings.Builder
	if err := Explain(&explained, cfg); err != nil || !strings.Contains(explained.String(), path) {
		t.Errorf("the explanation does not name the cgroup (%v)", err)
	}
}

// TestManyAtOnce starts machines side by side: none gets anything of another.
func TestManyAtOnce(t *testing.T) {
	const n = 20
	leakcheck.Check(t, leakcheck.Options{Wait: 10 * time.Second})
	cfgs := make([]Config, n)
	for i := range cfgs {
		cfgs[i] = config(t, code{}.stack().print(fmt.Sprintf("guest %d.", i)).hang())
		cfgs[i].IDBase -= uint32(i)
		cfgs[i].Disks = []Disk{{Serial: "data", File: image(t, "")}}
	}
	var all sync.WaitGroup
	machines := make([]*Machine, n)
	for i := range n {
		all.Go(func() {
			m, err := Start(context.Background(), cfgs[i])
			if err != nil {
				t.Errorf("machine %d: %v", i, err)
				return
			}
			machines[i] = m
		})
	}
	all.Wait()
	for i, m := range machines {
		if m == nil {
			continue
		}
		defer m.Close()
		console(t, m, fmt.Sprintf("guest %d.", i))
		checkDescriptors(t, m)
	}
}
