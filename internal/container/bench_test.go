package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// BenchmarkRun is a whole life: cgroup, create, start, wait, delete.
func BenchmarkRun(b *testing.B) {
	root := busybox(b)
	ctx := context.Background()
	phases := map[string]time.Duration{}
	steps := map[string]time.Duration{}
	var at time.Time
	phase := func(name string) {
		phases[name] += time.Since(at)
		at = time.Now()
	}
	for n := 0; b.Loop(); n++ {
		at = time.Now()
		dir := filepath.Join(b.TempDir(), fmt.Sprint(n))
		os.Mkdir(dir, 0o700)
		l := layersOf(b, root, testBase)
		l.Volatile = true
		spec := testSpec("true")
		cg, err := cgroup.New(fmt.Sprintf("/bulkhead-bench-%d/%d", os.Getpid(), n), spec.Linux.Resources, cgroup.Options{})
		if err != nil {
			b.Fatal(err)
		}
		phase("prepare")
		if err := cg.Create(); err != nil {
			b.Fatal(err)
		}
		phase("cgroup create")
		cfg := Config{ID: "bench", Dir: dir, Spec: spec, Layers: l, Cgroup: cg}
		f, err := readFacts()
		if err != nil {
			b.Fatal(err)
		}
		phase("facts")
		p, err := newPlanner(&cfg, f)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range []string{rootDirectory, layersDirectory} {
			os.Mkdir(filepath.Join(dir, d), 0o700)
		}
		io, err := makePipes(dir)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.plan(io); err != nil {
			b.Fatal(err)
		}
		p.release()
		phase("plan")
		o := launch.Options{Child: p.first}
		if os.Getenv("BENCH_STEPS") != "" {
			o.Observe = func(s string, d time.Duration) { steps[s] += d }
		}
		r, err := p.prog.Run(ctx, o)
		if err != nil {
			b.Fatal(err)
		}
		phase("launch")
		c := &Container{dir: dir, pidfd: r.Value(p.pidfd), running: r, status: os.NewFile(uintptr(r.Value(p.status)), "status")}
		c.Pid, c.Cgroup = r.Pid(), cg.Path()
		if err := c.Start(context.Background()); err != nil {
			b.Fatal(err)
		}
		phase("start")
		if e, err := c.Wait(ctx); err != nil || e.Code != 0 {
			b.Fatal(e, err)
		}
		phase("wait")
		if err := c.Delete(ctx); err != nil {
			b.Fatal(err)
		}
		phase("delete")
	}
	for name, d := range phases {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N)/1000, "ms-"+strings.ReplaceAll(name, " ", "-"))
	}
	names := make([]string, 0, len(steps))
	for s := range steps {
		names = append(names, s)
	}
	sort.Slice(names, func(i, j int) bool { return steps[names[i]] > steps[names[j]] })
	for i, s := range names {
		if i < 25 {
			b.Logf("%6.3f ms %.120s", float64(steps[s].Microseconds())/float64(b.N)/1000, s)
		}
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, _ := filepath.Glob(dir + fmt.Sprintf("/bulkhead-bench-%d", os.Getpid()))
		for _, d := range found {
			os.Remove(d)
		}
	}
}

// BenchmarkPlan is the planning alone.
func BenchmarkPlan(b *testing.B) {
	root := busybox(b)
	l := layersOf(b, root, testBase)
	cfg := Config{ID: "bench", Dir: b.TempDir(), Spec: testSpec("true"), Layers: l}
	for b.Loop() {
		f, err := readFacts()
		if err != nil {
			b.Fatal(err)
		}
		p, err := newPlanner(&cfg, f)
		if err != nil {
			b.Fatal(err)
		}
		p.dry = true
		if err := p.plan(pipes{-1, -1, -1, -1, 0}); err != nil {
			b.Fatal(err)
		}
		p.release()
	}
}
