package vm

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// stages sums up where time went. On a busy machine the clock tells little, so
// there are two more: the processor time of the VMM, and the time by the clock
// without what its busiest thread waited for a processor.
type stages struct {
	names          []string
	wall, cpu, net map[string]time.Duration
	clock          time.Time
	used, waited   time.Duration
}

func (s *stages) reset() { s.clock, s.used, s.waited = time.Now(), 0, 0 }

// mark ends a stage. pid is the VMM's, 0 when it is gone.
func (s *stages) mark(b *testing.B, name string, pid int) {
	b.Helper()
	if s.wall == nil {
		s.wall, s.cpu, s.net = map[string]time.Duration{}, map[string]time.Duration{}, map[string]time.Duration{}
	}
	if _, ok := s.wall[name]; !ok {
		s.names = append(s.names, name)
	}
	now, used, waited := time.Now(), s.used, s.waited
	if pid != 0 {
		used, waited = processorTime(b, pid)
	}
	s.wall[name] += now.Sub(s.clock)
	s.cpu[name] += used - s.used
	s.net[name] += now.Sub(s.clock) - (waited - s.waited)
	s.clock, s.used, s.waited = now, used, waited
}

func (s *stages) report(b *testing.B) {
	for _, n := range s.names {
		for unit, d := range map[string]time.Duration{"ms": s.wall[n], "cpu-ms": s.cpu[n], "net-ms": s.net[n]} {
			b.ReportMetric(float64(d.Milliseconds())/float64(b.N), n+"-"+unit)
		}
	}
}

// processorTime is what all threads of a process have used so far, and what the
// busiest of them waited: schedstat of proc(5), in nanoseconds.
func processorTime(b *testing.B, pid int) (used, waited time.Duration) {
	b.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	busiest := int64(0)
	for _, t := range tasks {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			continue // it has ended
		}
		var run, wait int64
		fmt.Sscan(string(raw), &run, &wait)
		used += time.Duration(run)
		if run > busiest {
			busiest, waited = run, time.Duration(wait)
		}
	}
	return used, waited
}

// smaps sums the resident memory of a process up, in bytes by its share: what
// backs the guest's RAM, and all else.
func smaps(b *testing.B, pid int, ram int64) (guest, rest int64) {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	large := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if from, to, ok := strings.Cut(fields[0], "-"); ok {
			x, err1 := strconv.ParseInt(from, 16, 64)
			y, err2 := strconv.ParseInt(to, 16, 64)
			large = err1 == nil && err2 == nil && y-x == ram
		}
		if fields[0] != "Pss:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		if large {
			guest += kib << 10
		} else {
			rest += kib << 10
		}
	}
	return guest, rest
}

// BenchmarkBoot is a workload in a machine of its own from nothing to its
// removal, and a program executed in it.
func BenchmarkBoot(b *testing.B) {
	f := newFixture(b)
	layer := b.TempDir()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		b.Skip("needs busybox-static")
	}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(layer, d), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(layer, "bin/busybox"), program, 0o755)
	}
	if err != nil {
		b.Fatal(err)
	}
	f.image = writeImage(b, layer)
	var st stages
	var total, guest, rest, free int64
	for b.Loop() {
		s := workload.Spec{
			ID: workload.NewID(), Name: "bench", Created: time.Now(), Boundary: "vm", Hostname: "inside", Network: "none",
			Process: workload.Process{Args: []string{"/bin/busybox", "sleep", "1000"}, Cwd: "/"},
		}
		p := f.prepare(b, s)
		st.reset()
		z, err := sizeOf(s, qemu.Accel(p.Machine.Accel), false)
		if err != nil {
			b.Fatal(err)
		}
		cg, err := z.group(p.Cgroup, s)
		if err == nil {
			err = cg.Create()
		}
		if err != nil {
			b.Fatal(err)
		}
		dir := p.Dir + "/vm"
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		c := config(s, p, dir, z)
		c.Cgroup = cg
		vmm, err := qemu.Start(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		pid := vmm.Pid()
		st.mark(b, "1-qemu", pid)
		m := &machine{vmm: vmm, cgroup: cg}
		if m.sess, err = protocol.Host(b.Context(), vmm.Agent()); err != nil {
			b.Fatal(m.fault(err))
		}
		st.mark(b, "2-hello", pid)
		if err := m.settle(b.Context(), settleTimeout); err != nil {
			b.Fatal(err)
		}
		st.mark(b, "3-settle", pid)
		status, err := clientOf(m).Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		free += status.MemoryAvailable
		total = z.ram
		st.mark(b, "4-status", pid)
		r := &remains{dir: dir, record: record{Cgroup: p.Cgroup}, cgroup: cg, machine: m}
		i, err := place(b.Context(), s, p, r, m, placed{image: "image0"})
		if err != nil {
			b.Fatal(err)
		}
		st.mark(b, "5-create", pid)
		if err := i.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		st.mark(b, "6-start", pid)
		for n := range 6 {
			name := "7-exec"
			if n > 0 {
				name = "8-exec-again-5x"
			}
			execOnce(b, i)
			st.mark(b, name, pid)
		}
		g, o := smaps(b, pid, z.ram)
		guest, rest = guest+g, rest+o
		st.reset()
		m.powerOff(b.Context())
		st.mark(b, "9-poweroff", 0)
		if err := i.Delete(b.Context()); err != nil {
			b.Fatal(err)
		}
		st.mark(b, "9a-delete", 0)
	}
	st.report(b)
	n := int64(b.N)
	b.ReportMetric(float64(total-free/n)/mib, "guest-used-MiB")
	b.ReportMetric(float64(guest/n)/mib, "ram-touched-MiB")
	b.ReportMetric(float64(rest/n)/mib, "vmm-MiB")
}

// execOnce runs a program in the workload until it has ended.
func execOnce(b *testing.B, i boundary.Instance) {
	b.Helper()
	p, err := i.Exec(b.Context(), workload.Process{Args: []string{"/bin/busybox", "true"}, Cwd: "/"}, boundary.Stdio{})
	if err != nil {
		b.Fatal(err)
	}
	if e, err := p.Wait(b.Context()); err != nil || e.Code != 0 {
		b.Fatal(e, err)
	}
}
