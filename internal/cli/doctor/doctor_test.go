package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// healthy is a machine that has everything.
func healthy() (Machine, fstest.MapFS) {
	files := fstest.MapFS{
		"proc/self/status":                                  {Data: []byte("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n")},
		"proc/sys/kernel/seccomp/actions_avail":             {Data: []byte("kill_process errno user_notif allow\n")},
		"proc/sys/user/max_user_namespaces":                 {Data: []byte("1000\n")},
		"sys/module/apparmor/parameters/enabled":            {Data: []byte("Y\n")},
		"sys/devices/system/cpu/vulnerabilities/meltdown":   {Data: []byte("Not affected\n")},
		"proc/sys/net/ipv6/conf/all/disable_ipv6":           {Data: []byte("0\n")},
		"proc/sys/net/ipv4/neigh/default/gc_thresh3":        {Data: []byte("8192\n")},
		"proc/sys/net/ipv6/neigh/default/gc_thresh3":        {Data: []byte("16384\n")},
		"proc/sys/net/netfilter/nf_conntrack_max":           {Data: []byte("262144\n")},
		"sys/devices/system/cpu/vulnerabilities/spectre_v2": {Data: []byte("Mitigation: Retpolines\n")},
	}
	return Machine{
		StateDir: "/state",
		Release:  func() (string, error) { return "6.12.3-amd64", nil },
		ReadFile: func(name string) ([]byte, error) { return files.ReadFile(strings.TrimPrefix(name, "/")) },
		ReadDir:  func(name string) ([]fs.DirEntry, error) { return files.ReadDir(strings.TrimPrefix(name, "/")) },
		Cgroups: func() (*cgroup.Layout, error) {
			return &cgroup.Layout{Mode: cgroup.ModeV2, V2Controllers: []string{"memory", "cpu", "pids", "cpuset", "io"}}, nil
		},
		IDRanges:      func() (int, error) { return 100, nil },
		Overlay:       func(string) error { return nil },
		UserNamespace: func(use func(*os.File) error) error { return use(nil) },
		IDMapped:      func(string, *os.File) error { return nil },
		Space:         func(string) (uint64, error) { return 1 << 40, nil },
		MaxFiles:      func() (uint64, error) { return 1 << 20, nil },
		Firewall:      func() ([]bridge.Obstacle, error) { return nil, nil },
		UserNetwork:   func() error { return nil },
		GVisor:        func() (string, error) { return "runsc version 1, /runsc", nil },
		QEMU:          func() (string, qemu.Version, error) { return "/qemu", qemu.Version{Major: 9, Minor: 1}, nil },
		Accelerators:  func() []qemu.Availability { return accelerators(true, "a machine ran") },
		GuestKernels: func() ([]kernel.Kernel, error) {
			return []kernel.Kernel{{Name: "small", Release: "6.1.1"}, {Name: "debian", Release: "6.1.2", Default: true}}, nil
		},
	}, files
}

// accelerators are what qemu.Accelerators says.
func accelerators(kvm bool, reason string) []qemu.Availability {
	return []qemu.Availability{{Accel: qemu.KVM, Usable: kvm, Reason: reason}, {Accel: qemu.TCG, Usable: true, Reason: "always"}}
}

func TestHealthyMachine(t *testing.T) {
	m, _ := healthy()
	results := Examine(m)
	for _, r := range results {
		if r.Status != OK || r.Detail == "" || r.Fix != "" {
			t.Errorf("%+v", r)
		}
	}
	if len(results) < 15 || !Healthy(results) {
		t.Errorf("%d results, healthy %v", len(results), Healthy(results))
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	odd := errors.New("odd")
	for _, tt := range []struct {
		name   string
		spoil  func(*Machine, fstest.MapFS)
		result string // name of the result that changes
		status Status
		fatal  bool
	}{
		{"other user", func(m *Machine, _ fstest.MapFS) { m.UID = 1000 }, "root", Missing, true},
		{"old kernel", func(m *Machine, _ fstest.MapFS) { m.Release = func() (string, error) { return "5.10.0", nil } }, "kernel", Missing, true},
		{"older minor", func(m *Machine, _ fstest.MapFS) { m.Release = func() (string, error) { return "6.0.9", nil } }, "kernel", Missing, true},
		{"odd kernel", func(m *Machine, _ fstest.MapFS) { m.Release = func() (string, error) { return "rolling", nil } }, "kernel", Unknown, false},
		{"unreadable kernel", func(m *Machine, _ fstest.MapFS) { m.Release = func() (string, error) { return "", odd } }, "kernel", Unknown, false},
		{"namespaces forbidden", func(_ *Machine, f fstest.MapFS) {
			f["proc/sys/user/max_pid_namespaces"] = &fstest.MapFile{Data: []byte("0\n")}
		}, "namespaces", Missing, true},
		{"no user namespaces", func(m *Machine, _ fstest.MapFS) {
			m.UserNamespace = func(func(*os.File) error) error { return syscall.EINVAL }
		}, "user namespaces", Missing, true},
		{"user namespaces not tried", func(m *Machine, _ fstest.MapFS) {
			m.UserNamespace = func(func(*os.File) error) error { return syscall.EPERM }
		}, "user namespaces", Unknown, false},
		{"no ranges", func(m *Machine, _ fstest.MapFS) { m.IDRanges = func() (int, error) { return 0, odd } }, "ID ranges", Missing, false},
		{"no cgroups", func(m *Machine, _ fstest.MapFS) {
			m.Cgroups = func() (*cgroup.Layout, error) { return &cgroup.Layout{Mode: cgroup.ModeNone}, nil }
		}, "cgroups", Missing, true},
		{"cgroups unknown", func(m *Machine, _ fstest.MapFS) { m.Cgroups = func() (*cgroup.Layout, error) { return nil, odd } }, "cgroups", Unknown, false},
		{"no io controller", func(m *Machine, _ fstest.MapFS) {
			m.Cgroups = func() (*cgroup.Layout, error) {
				return &cgroup.Layout{Mode: cgroup.ModeHybrid, V1: []cgroup.Hierarchy{{Controllers: []string{"memory", "cpu"}}, {Controllers: []string{"pids", "cpuset"}}}}, nil
			}
		}, "controller io", Missing, false},
		{"no seccomp", func(_ *Machine, f fstest.MapFS) { delete(f, "proc/sys/kernel/seccomp/actions_avail") }, "seccomp", Missing, true},
		{"old seccomp", func(_ *Machine, f fstest.MapFS) {
			f["proc/sys/kernel/seccomp/actions_avail"].Data = []byte("kill errno allow")
		}, "seccomp notification", Missing, false},
		{"no AppArmor", func(_ *Machine, f fstest.MapFS) { delete(f, "sys/module/apparmor/parameters/enabled") }, "AppArmor", Missing, false},
		{"AppArmor off", func(_ *Machine, f fstest.MapFS) { f["sys/module/apparmor/parameters/enabled"].Data = []byte("N\n") }, "AppArmor", Missing, false},
		{"no overlay", func(m *Machine, _ fstest.MapFS) { m.Overlay = func(string) error { return syscall.ENODEV } }, "overlay", Missing, true},
		{"overlay not tried", func(m *Machine, _ fstest.MapFS) { m.Overlay = func(string) error { return syscall.EPERM } }, "overlay", Unknown, false},
		{"no ID maps", func(m *Machine, _ fstest.MapFS) { m.IDMapped = func(string, *os.File) error { return syscall.EINVAL } }, "ID-mapped mounts", Missing, true},
		{"disk nearly full", func(m *Machine, _ fstest.MapFS) { m.Space = func(string) (uint64, error) { return 1000, nil } }, "disk space", Warning, false},
		{"no CAP_SYS_RESOURCE", func(_ *Machine, f fstest.MapFS) { f["proc/self/status"].Data = []byte("CapEff:\t000001fffeffffff\n") }, "CAP_SYS_RESOURCE", Missing, false},
		{"no CAP_SYS_ADMIN", func(_ *Machine, f fstest.MapFS) { f["proc/self/status"].Data = []byte("CapEff:\t000001ffffdfffff\n") }, "CAP_SYS_ADMIN", Missing, true},
		{"odd status", func(_ *Machine, f fstest.MapFS) { f["proc/self/status"].Data = []byte("x") }, "capabilities", Unknown, false},
		{"few files", func(m *Machine, _ fstest.MapFS) { m.MaxFiles = func() (uint64, error) { return 256, nil } }, "open files", Warning, false},
		{"vulnerable", func(_ *Machine, f fstest.MapFS) {
			f["sys/devices/system/cpu/vulnerabilities/meltdown"].Data = []byte("Vulnerable\n")
		}, "processor flaws", Warning, false},
		{"no nf_tables", func(m *Machine, _ fstest.MapFS) {
			m.Firewall = func() ([]bridge.Obstacle, error) { return nil, syscall.EOPNOTSUPP }
		}, "networks", Missing, false},
		{"no runsc", func(m *Machine, _ fstest.MapFS) {
			m.GVisor = func() (string, error) { return "", workload.ErrUnsupported }
		}, "gVisor", Missing, false},
		{"runsc not to be asked", func(m *Machine, _ fstest.MapFS) { m.GVisor = func() (string, error) { return "", odd } }, "gVisor", Unknown, false},
		{"no passt", func(m *Machine, _ fstest.MapFS) { m.UserNetwork = func() error { return workload.ErrUnsupported } }, "user network", Missing, false},
		{"routes not to be read", func(m *Machine, _ fstest.MapFS) { m.UserNetwork = func() error { return odd } }, "user network", Unknown, false},
		{"firewall not to be read", func(m *Machine, _ fstest.MapFS) {
			m.Firewall = func() ([]bridge.Obstacle, error) { return nil, odd }
		}, "networks", Unknown, false},
		{"firewall in the way", func(m *Machine, _ fstest.MapFS) {
			m.Firewall = func() ([]bridge.Obstacle, error) {
				return []bridge.Obstacle{{Where: "table ip filter, chain FORWARD", What: "drops", Fix: "accept"}}, nil
			}
		}, "firewall", Warning, false},
		{"no IPv6", func(_ *Machine, f fstest.MapFS) { delete(f, "proc/sys/net/ipv6/conf/all/disable_ipv6") }, "IPv6", Missing, false},
		{"few neighbours", func(_ *Machine, f fstest.MapFS) {
			f["proc/sys/net/ipv6/neigh/default/gc_thresh3"].Data = []byte("1024\n")
		}, "neighbours of IPv6", Warning, false},
		{"few connections", func(_ *Machine, f fstest.MapFS) {
			f["proc/sys/net/netfilter/nf_conntrack_max"].Data = []byte("65536\n")
		}, "tracked connections", Warning, false},
		{"odd limit of neighbours", func(_ *Machine, f fstest.MapFS) {
			f["proc/sys/net/ipv4/neigh/default/gc_thresh3"].Data = []byte("x\n")
		}, "neighbours of IPv4", Unknown, false},
		{"no QEMU", func(m *Machine, _ fstest.MapFS) {
			m.QEMU = func() (string, qemu.Version, error) { return "", qemu.Version{}, qemu.ErrNotInstalled }
		}, "QEMU", Missing, false},
		{"old QEMU", func(m *Machine, _ fstest.MapFS) {
			m.QEMU = func() (string, qemu.Version, error) {
				return "/qemu", qemu.Version{Major: 5}, &qemu.Fault{Who: qemu.Host, Text: "QEMU 5.0.0 is too old"}
			}
		}, "QEMU", Missing, false},
		{"odd QEMU", func(m *Machine, _ fstest.MapFS) {
			m.QEMU = func() (string, qemu.Version, error) { return "/qemu", qemu.Version{}, odd }
		}, "QEMU", Unknown, false},
		{"no KVM", func(m *Machine, _ fstest.MapFS) {
			m.Accelerators = func() []qemu.Availability { return accelerators(false, "no vmx") }
		}, "hardware virtualization", Missing, false},
		{"no accelerator", func(m *Machine, _ fstest.MapFS) {
			m.Accelerators = func() []qemu.Availability { return nil }
		}, "hardware virtualization", Unknown, false},
		{"default kernel gone", func(m *Machine, _ fstest.MapFS) {
			m.GuestKernels = func() ([]kernel.Kernel, error) { return []kernel.Kernel{{Name: "small"}}, nil }
		}, "guest kernel", Missing, false},
		{"kernels not to be read", func(m *Machine, _ fstest.MapFS) {
			m.GuestKernels = func() ([]kernel.Kernel, error) { return nil, odd }
		}, "guest kernel", Unknown, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, files := healthy()
			tt.spoil(&m, files)
			results := Examine(m)
			found := false
			for _, r := range results {
				if r.Name != tt.result {
					continue
				}
				found = true
				if r.Status != tt.status || r.Fix == "" || r.Detail == "" {
					t.Errorf("got %+v, want %q with a fix", r, tt.status)
				}
			}
			if !found {
				t.Errorf("no result %q", tt.result)
			}
			if Healthy(results) == tt.fatal {
				t.Errorf("healthy %v", !tt.fatal)
			}
		})
	}
}

// TestLocalMakesNothing: doctor may be asked before there is any state.
func TestLocalMakesNothing(t *testing.T) {
	dir := t.TempDir()
	m := Local(filepath.Join(dir, "state", "root"))
	if m.StateDir != dir {
		t.Errorf("looks at %s, want %s", m.StateDir, dir)
	}
	if list, err := m.GuestKernels(); len(list) > 0 || err != nil {
		t.Errorf("kernels %v, %v; want none", list, err)
	}
	if r := guestKernel(m); r.Status != OK || !strings.Contains(r.Detail, "none yet") {
		t.Errorf("%+v", r)
	}
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("%v, %v: want nothing made", entries, err)
	}
}
