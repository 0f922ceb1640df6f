package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenConfigs are machines whose command and confinement are kept in
// testdata. They name files that need not exist.
var goldenConfigs = map[string]Config{
	"microvm": {
		TSC:    2_095_993,
		Kernel: "/var/lib/bulkhead/kernels/6.1/vmlinux", Initramfs: "/var/lib/bulkhead/kernels/6.1/initramfs", CPUs: 2, Memory: 512 * mib,
		IDBase: 536870912, Dir: "/run/bulkhead/vm", Append: []string{"bulkhead.test=1"},
		Disks: []Disk{
			{Serial: "image0", File: "/var/lib/bulkhead/image.erofs", ReadOnly: true}, {Serial: "image1", ReadOnly: true},
			{Serial: "data", File: "/var/lib/bulkhead/data.ext4"},
		},
	},
	"microvm-nics": {
		Kernel: "/boot/vmlinux", CPUs: 1, Memory: 128 * mib, IDBase: 536870912, Dir: "/run/bulkhead/vm",
		Disks: []Disk{{Serial: "image0", File: "/image", ReadOnly: true}},
		NICs:  []NIC{{MAC: "02:42:AC:11:00:02"}, {MAC: "02:42:ac:11:00:03", Kind: Stream}},
	},
	"q35-nics": {
		Kernel: "/boot/vmlinuz", CPUs: 1, Memory: 128 * mib, IDBase: 536870912, Dir: "/run/bulkhead/vm", Machine: Q35,
		Disks: []Disk{{Serial: "image1", ReadOnly: true}, {Serial: "data", File: "/data"}},
		NICs:  []NIC{{MAC: "02:42:ac:11:00:02"}, {MAC: "02:00:00:00:00:01", Kind: Slot}, {MAC: "02:42:ac:11:00:03", Kind: Stream}},
	},
	"q35-save": {
		Kernel: "/boot/vmlinuz", CPUs: 1, Memory: 128 * mib, IDBase: 536870912, Dir: "/run/bulkhead/vm", Machine: Q35, RAM: &RAM{Shared: true},
		Disks: []Disk{{Serial: "data", Size: 1 << 30}}, NICs: []NIC{{MAC: "02:00:00:00:00:01", Kind: Slot}},
	},
	"q35-clone": {
		CPUs: 1, Memory: 128 * mib, IDBase: 536870912, Dir: "/run/bulkhead/vm", Machine: Q35, RAM: &RAM{}, State: os.Stdin, // not looked at
		Disks: []Disk{{Serial: "data", File: "/data"}}, NICs: []NIC{{MAC: "02:00:00:00:00:01"}},
	},
	"q35-kvm": {
		Kernel: "/boot/vmlinuz", CPUs: 1, Memory: 128 * mib, IDBase: 536870912, Dir: "/run/bulkhead/vm", Machine: Q35, Accel: KVM,
	},
}

// TestGoldenCommand compares commands with testdata/*.command. Run it with
// -update after a change, and read the difference.
func TestGoldenCommand(t *testing.T) {
	for name, cfg := range goldenConfigs {
		t.Run(name, func(t *testing.T) { golden(t, name+".command", commandText(cfg)) })
	}
}

// TestGoldenProgram compares launch programs with testdata/*.program: their
// difference is the change of the confinement.
func TestGoldenProgram(t *testing.T) {
	for name, cfg := range goldenConfigs {
		t.Run(name, func(t *testing.T) {
			cfg.withDefaults()
			if err := cfg.check(); err != nil {
				t.Fatal(err)
			}
			in := inputs{lastCapability: 2, hardFiles: 4096, about: "the filter", filter: seccomp.Filter{Insns: make([]seccomp.Insn, 3), Listener: cfg.RAM != nil}, binds: []bind{
				{"/usr/bin/qemu-system-x86_64", pathBinary}, {"/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"},
				{"/lib/x86_64-linux-gnu/libc.so.6", pathLibraries + "/libc.so.6"}, {"/usr/share/qemu/qboot.rom", pathFirmware + "/qboot.rom"},
			}}
			in.describeCgroup(map[string]string{"": "/sys/fs/cgroup/bulkhead/vm", "cpu": "/sys/fs/cgroup/cpu/bulkhead/vm"})
			p, err := plan(cfg, in.dry(cfg))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".program", p.prog.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s changed (-want +got):\n%s", name, diff)
	}
}

func TestExplain(t *testing.T) {
	if _, err := find(""); err != nil {
		t.Skip(err)
	}
	var b strings.Builder
	if err := Explain(&b, goldenConfigs["microvm"]); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-sandbox on,", `execve("/qemu", [the command]`, `/qboot.rom`, "RLIMIT_CORE"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in the explanation", want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	good := goldenConfigs["microvm"]
	for want, change := range map[string]func(*Config){
		"root":                    func(c *Config) { c.IDBase = 0 },
		"virtual processors":      func(c *Config) { c.CPUs = 0 },
		"1 to 64":                 func(c *Config) { c.CPUs = 65 },
		"multiple of 1 MiB":       func(c *Config) { c.Memory++ },
		"machine type":            func(c *Config) { c.Machine = "pc,accel=kvm" },
		"accelerator":             func(c *Config) { c.Accel = "tcg,thread=single" },
		"needs a kernel":          func(c *Config) { c.Kernel = "" },
		"absolute":                func(c *Config) { c.Dir = "run" },
		"room for 6":              func(c *Config) { c.Disks = make([]Disk, 7) },
		`serial number "a,b"`:     func(c *Config) { c.Disks = []Disk{{Serial: "a,b"}} },
		`serial number ""`:        func(c *Config) { c.Disks = []Disk{{}} },
		"two disks":               func(c *Config) { c.Disks = []Disk{{Serial: "a"}, {Serial: "a"}} },
		"512 bytes":               func(c *Config) { c.Disks = []Disk{{Serial: "a", Size: 1}} },
		`kernel parameter "a\nb"`: func(c *Config) { c.Append = []string{"a\nb"} },
		"command line has":        func(c *Config) { c.Append = []string{strings.Repeat("a", 2000)} },
		"9 network devices":       func(c *Config) { c.NICs = make([]NIC, 9) },
		"1 disks and 6 network":   func(c *Config) { c.Disks, c.NICs = c.Disks[:1], make([]NIC, 6) },
		`MAC address ""`:          func(c *Config) { c.NICs = make([]NIC, 1) },
		`"02:00:00:00:00:0,"`:     func(c *Config) { c.NICs = []NIC{{MAC: "02:00:00:00:00:0,"}} },
		"kind 7":                  func(c *Config) { c.NICs = []NIC{{MAC: "02:00:00:00:00:01", Kind: 7}} },
		"two network devices": func(c *Config) {
			c.NICs = []NIC{{MAC: "02:00:00:00:00:0a"}, {MAC: "02:00:00:00:00:0A"}}
		},
		`kernel parameter "a\x00b"`: func(c *Config) { c.Append = []string{"a\x00b"} },
	} {
		c := good
		c.withDefaults()
		change(&c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
