package cgroup

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// typical is what an ordinary workload asks for.
func typical() *specs.LinuxResources {
	r := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(256 << 20)), Swap: ptr(int64(256 << 20))},
		CPU:     &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Shares: ptr(uint64(512))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(1000))},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}},
	}
	for _, minor := range []int64{3, 5, 7, 8, 9} {
		r.Devices = append(r.Devices, char(true, minor, "rwm"))
	}
	for _, major := range []int64{5, 136} {
		r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Access: "rwm"})
	}
	return r
}

func benchLayout(b *testing.B) *Layout {
	lay, err := Detect()
	if err != nil || lay.Mode == ModeNone || syscall.Geteuid() != 0 {
		b.Skip("cannot make cgroups here")
	}
	// The parent stays, as on a machine in use.
	parent, err := New(root+"/bench", nil, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := parent.Create(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = parent.Destroy(b.Context())
		parent.RemoveEmptyParents(root)
	})
	return lay
}

// BenchmarkCreateJoin is New, Create and Join of a typical workload.
func BenchmarkCreateJoin(b *testing.B) {
	benchLayout(b)
	for b.Loop() {
		m, err := New(root+"/bench/x", typical(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Create(); err != nil {
			b.Fatal(err)
		}
		tasks, dir, err := m.Join()
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		closeAll(tasks)
		if dir != nil {
			dir.Close()
		}
		if err := m.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		b.StartTimer()
	}
}

func BenchmarkDestroy(b *testing.B) {
	benchLayout(b)
	for b.Loop() {
		b.StopTimer()
		m, err := New(root+"/bench/x", nil, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Create(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := m.Destroy(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLibrary is the same with the library's own v1 manager, without the
// device rules and the v2 directory's files, and with a process attached in
// its way. It is why this package makes and joins by itself.
func BenchmarkLibrary(b *testing.B) {
	lay := benchLayout(b)
	if len(lay.V1) == 0 {
		b.Skip("no v1 hierarchy")
	}
	sleep := exec.Command("/bin/sleep", "1000")
	if err := sleep.Start(); err != nil {
		b.Skip(err)
	}
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	quota, limit := int64(50000), int64(1000)
	for _, pid := range []int{-1, sleep.Process.Pid} {
		name := "create"
		if pid > 0 {
			name = "create and attach"
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				lib, err := fs.NewManager(&cgroups.Cgroup{Path: root + "/bench/x", Resources: &cgroups.Resources{
					Memory: 256 << 20, MemorySwap: 256 << 20, CpuQuota: quota, CpuPeriod: 100000, CpuShares: 512, PidsLimit: &limit, SkipDevices: true,
				}}, nil)
				if err != nil {
					b.Fatal(err)
				}
				if err := lib.Apply(pid); err != nil {
					b.Fatal(err)
				}
				c, _ := lib.GetCgroups()
				if err := lib.Set(c.Resources); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if pid > 0 {
					moveBack(b, lay, pid)
				}
				if err := lib.Destroy(); err != nil {
					b.Fatal(err)
				}
				// Attaching is slow once, then fast for a while: the kernel keeps its
				// lock in the writers' mode for a grace period. Containers do not start
				// back to back.
				time.Sleep(50 * time.Millisecond)
				b.StartTimer()
			}
		})
	}
}

func moveBack(b *testing.B, lay *Layout, pid int) {
	for _, mount := range append(mounts(lay), lay.V2) {
		if mount == "" {
			continue
		}
		if err := cgroups.WriteCgroupProc(mount, pid); err != nil {
			b.Fatal(err)
		}
	}
}
