package audit

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// verdictOf returns what a rule says of the only workload of an input.
func verdictOf(t *testing.T, list []*Config, err error, rule string) report.Verdict {
	t.Helper()
	if err != nil || len(list) != 1 {
		t.Fatalf("got %d workloads, %v", len(list), err)
	}
	for _, f := range Judge(list[0], "").Findings {
		if f.ID == rule {
			return f.Verdict
		}
	}
	t.Fatalf("no finding %s", rule)
	return ""
}

// ociWith is a config.json with more members at its top and in "linux", and mounts.
func ociWith(top, linux, mounts string) []byte {
	return fmt.Appendf(nil, `{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","capabilities":{"bounding":["CAP_SYS_ADMIN"]}},
		"root":{"path":"rootfs"}%s,"mounts":[%s],"linux":{"namespaces":[{"type":"pid"},{"type":"user"}]%s}}`, top, mounts, linux)
}

// TestOCIVMSection has a section that runc and crun pass over.
func TestOCIVMSection(t *testing.T) {
	c, err := ParseOCI(ociWith(`,"vm":{}`, "", `{"destination":"/s","type":"bind","source":"/run/docker.sock","options":["rbind"]}`))
	if got := verdictOf(t, []*Config{c}, err, "files.socket"); got != report.Leaked {
		t.Errorf("a socket of the host: %s", got)
	}
	if c.Boundary != SharedKernel || !strings.Contains(c.note(), "virtual machine") {
		t.Errorf("got %v, %q", c.Boundary, c.note())
	}
}

// TestOCIHostIDMissing has a mapping onto the host's root by leaving its number out.
func TestOCIHostIDMissing(t *testing.T) {
	for mapping, want := range map[string]report.Verdict{
		`{"containerID":0,"size":65536}`:                 report.Leaked,
		`{"containerID":0,"hostID":0,"size":65536}`:      report.Leaked,
		`{"containerID":0,"hostID":100000,"size":65536}`: report.Held,
	} {
		c, err := ParseOCI(ociWith("", `,"uidMappings":[`+mapping+`]`, ""))
		if got := verdictOf(t, []*Config{c}, err, "namespaces.user"); got != want {
			t.Errorf("%s: got %s, want %s", mapping, got, want)
		}
	}
}

// podmanWith is what podman inspect prints of a container.
func podmanWith(effective, option, user string) []byte {
	return fmt.Appendf(nil, `[{"Name":"x","ImageName":"a","OCIRuntime":"crun","StaticDir":"/var/lib/containers/x","AppArmorProfile":"","ProcessLabel":"",%s
		"BoundingCaps":["CAP_SYS_ADMIN"],"Mounts":[],"Config":{"User":%q,"Cmd":["sh"],"CreateCommand":["podman","run","--security-opt",%q,"a","sh"]},
		"HostConfig":{"Privileged":false,"SecurityOpt":["no-new-privileges"],"NetworkMode":"bridge","PidMode":"private","IpcMode":"shareable","UTSMode":"private","UsernsMode":"","Devices":[]}}]`,
		effective, user, option)
}

// TestPodmanAmbient has capabilities of a user other than root, which Podman makes
// ambient ones when they were added by name.
func TestPodmanAmbient(t *testing.T) {
	for effective, want := range map[string]report.Verdict{
		`"EffectiveCaps":["CAP_SYS_ADMIN"],`: report.Leaked,
		`"EffectiveCaps":[],`:                report.Held,
		``:                                   report.Leaked, // nobody says that they are none
	} {
		list, err := ParsePodman(podmanWith(effective, "no-new-privileges", "1000"), nil)
		if got := verdictOf(t, list, err, "capabilities.dangerous"); got != want {
			t.Errorf("%q: got %s, want %s", effective, got, want)
		}
	}
}

// TestPodmanUnmaskPatterns has paths made visible by a pattern of the shell.
func TestPodmanUnmaskPatterns(t *testing.T) {
	for pattern, want := range map[string]report.Verdict{
		"/proc/k*": report.Leaked, "/proc/[as]*": report.Leaked, "/proc/*": report.Leaked, "ALL": report.Leaked, "/proc/[": report.Leaked,
		"/proc/none*": report.Held, "/pro": report.Held,
	} {
		list, err := ParsePodman(podmanWith("", "unmask="+pattern, ""), nil)
		if got := verdictOf(t, list, err, "proc.paths"); got != want {
			t.Errorf("unmask=%s: got %s, want %s", pattern, got, want)
		}
	}
}

// TestSockets has sockets of engines that are not Docker's.
func TestSockets(t *testing.T) {
	for _, source := range []string{"/var/run/cri-dockerd.sock", "/var/snap/lxd/common/lxd/unix.socket", "/var/lib/incus", "/var/lib/lxd/unix.socket"} {
		c, err := ParseOCI(ociWith("", "", `{"destination":"/s","type":"bind","source":"`+source+`","options":["rbind"]}`))
		if got := verdictOf(t, []*Config{c}, err, "files.socket"); got != report.Leaked {
			t.Errorf("%s: got %s", source, got)
		}
	}
}

// TestEveryAddress has ports published on all addresses of the host.
func TestEveryAddress(t *testing.T) {
	for host, want := range map[string]report.Verdict{
		"": report.Leaked, "0.0.0.0": report.Leaked, "::": report.Leaked, "[::]": report.Leaked, "::0": report.Leaked, "127.0.0.1": report.Held, "::1": report.Held,
	} {
		c := &Config{Kind: Docker, Ports: said([]Port{{Port: "80/tcp", Host: host}}), Net: said(Namespace{})}
		if got := checkPorts(c).verdict; got != want {
			t.Errorf("%q: got %s, want %s", host, got, want)
		}
	}
}

// TestSecondProc has a procfs or sysfs that masks at the usual places do not cover.
func TestSecondProc(t *testing.T) {
	paths := func(at string) string {
		quote := func(list []string) string { return `"` + at + strings.Join(list, `","`+at) + `"` }
		return `,"maskedPaths":[` + quote(ourMasked) + `],"readonlyPaths":[` + quote(ourReadOnly) + `]`
	}
	both := strings.Replace(strings.Replace(paths(""), `":["`, `":["/x/acpi","/x/kcore","/x/keys","/x/latency_stats","/x/sched_debug","/x/scsi","/x/timer_list","`, 1),
		`readonlyPaths":["`, `readonlyPaths":["/x/bus","/x/fs","/x/irq","/x/sys","/x/sysrq-trigger","`, 1)
	for _, tt := range []struct {
		name, linux, mount string
		want               report.Verdict
	}{
		{"none", paths(""), `{"destination":"/proc","type":"proc","source":"proc"}`, report.Held},
		{"at the usual place by another name", paths(""), `{"destination":"//proc/","type":"proc","source":"proc"}`, report.Held},
		{"elsewhere", paths(""), `{"destination":"/x","type":"proc","source":"proc"}`, report.Leaked},
		{"elsewhere, read-only", paths(""), `{"destination":"/x","type":"proc","source":"proc","options":["ro"]}`, report.Leaked},
		{"elsewhere, masked", both, `{"destination":"/x","type":"proc","source":"proc"}`, report.Held},
		{"sysfs elsewhere, read-only", paths(""), `{"destination":"/x","type":"sysfs","source":"sysfs","options":["ro"]}`, report.Leaked},
		{"a bind of that type", paths(""), `{"destination":"/x","type":"proc","source":"/srv/x","options":["bind"]}`, report.Held},
	} {
		c, err := ParseOCI(ociWith("", tt.linux, tt.mount))
		if got := verdictOf(t, []*Config{c}, err, "proc.paths"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	list, err := ParseDocker([]byte(`{"HostConfig": {"Privileged": false, "MaskedPaths": ["/proc", "/sys"], "ReadonlyPaths": [], "Mounts": [
		{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"type": "proc", "device": "proc"}}}}]}}`), nil)
	if got := verdictOf(t, list, err, "proc.paths"); got != report.Leaked {
		t.Errorf("a volume of Docker's: %s", got)
	}
}

// TestSandboxSockets: gVisor keeps sockets of the host out, unless who set its runtime up
// let them in.
func TestSandboxSockets(t *testing.T) {
	socket := said([]Mount{{Source: "/run/docker.sock"}})
	for name, tt := range map[string]struct {
		c    *Config
		want report.Verdict
	}{
		"ours":                {&Config{Kind: Bulkhead, Boundary: UserKernel, OurSandbox: true, Mounts: socket}, report.NotApplicable},
		"a runtime of others": {&Config{Kind: Bulkhead, Boundary: UserKernel, Mounts: socket}, report.Unknown},
		"Docker's":            {&Config{Kind: Docker, Boundary: UserKernel, Mounts: socket}, report.Unknown},
		"Docker's, and none":  {&Config{Kind: Docker, Boundary: UserKernel, Mounts: said([]Mount(nil))}, report.Held},
		"a machine":           {&Config{Kind: Docker, Boundary: OwnVM, Mounts: socket}, report.NotApplicable},
	} {
		if a := checkSocket(tt.c); a.verdict != tt.want {
			t.Errorf("%s: %s, want %s", name, a.verdict, tt.want)
		}
	}
	for boundary, ours := range map[string]bool{"gvisor": true, workload.BoundaryRuntime: false} {
		s := workload.Spec{Boundary: boundary}
		if c := Workload(s, Facts{}); c.OurSandbox != ours {
			t.Errorf("%s: ours is %v", boundary, c.OurSandbox)
		}
	}
}

// TestFixes: the change that is offered can be made to that very command or file.
func TestFixes(t *testing.T) {
	ports := func(p ...Port) *Config { return &Config{Kind: Docker, Ports: said(p)} }
	leaks := func(k Kind) *Config {
		return &Config{Kind: k, Masked: said(podmanMasked), ReadOnly: said(podmanReadOnly)}
	}
	for _, tt := range []struct {
		name string
		c    *Config
		rule string
		want string
	}{
		{"a port", ports(Port{Port: "80/tcp"}), "network.ports", "give the address: -p 127.0.0.1:HOST:80"},
		{"a port of UDP", ports(Port{Port: "53/udp"}), "network.ports", "give the address: -p 127.0.0.1:HOST:53/udp"},
		{"both", ports(Port{Port: "53/udp"}, Port{Host: "::", Port: "53/udp"}, Port{Host: "127.0.0.1", Port: "9/tcp"}, Port{Host: "0.0.0.0", Port: "53/tcp"}), "network.ports",
			"give the address: -p 127.0.0.1:HOST:53/udp, -p 127.0.0.1:HOST:53"},
		{"-P", ports(Port{Port: everyPort}), "network.ports", "leave out -P, and publish the ports that are needed with an address: -p 127.0.0.1:HOST:PORT"},
		{"-P and a port", ports(Port{Port: "80/tcp"}, Port{Port: everyPort}), "network.ports", "leave out -P, and give the address: -p 127.0.0.1:HOST:80"},
		{"Docker's masks", leaks(Docker), "proc.leaks", "upgrade the engine: a current one masks /proc/interrupts, /sys/devices/virtual/powercap"},
		{"Podman's masks", leaks(Podman), "proc.leaks", "add --security-opt mask=/proc/interrupts:/sys/devices/virtual/powercap"},
		{"a file's masks", leaks(OCI), "proc.leaks", "config.json: add to linux.maskedPaths: /proc/interrupts, /sys/devices/virtual/powercap"},
		{"a second procfs", &Config{Kind: Docker, Masked: said(ourMasked), ReadOnly: said(ourReadOnly), Kernel: []KernelMount{{Usual: "/proc", Target: "/x"}}}, "proc.paths",
			"leave out the volumes of the types proc and sysfs at /x"},
	} {
		for _, f := range Judge(tt.c, "").Findings {
			if f.ID == tt.rule && (!f.Verdict.Open() || f.Fix != tt.want) {
				t.Errorf("%s: %s, %q; want %q", tt.name, f.Verdict, f.Fix, tt.want)
			}
		}
	}
}

// TestDisks: by which names a device is a disk, or all.
func TestDisks(t *testing.T) {
	for name, want := range map[string]bool{
		"/dev": true, "/dev/": true, "/dev/sda": true, "/dev/mmcblk0": true, "/dev/mmcblk0p1": true, "/dev/disk/by-label/root": true, "/dev/loop0": true,
		"/dev/block/8:0": true, "/dev/mapper/control": true, "/dev/pmem0": true, "/dev/./sda": true, "/dev/loop-control": false, "/dev/kvm": false, "/dev/snd": false,
		"/dev/fuse": false,
	} {
		for _, c := range []*Config{{Kind: Docker, Devices: said([]Device{{Path: name}})}, {Kind: Bulkhead, Devices: said([]Device{{Path: name}})}} {
			if a := checkDevices(c); a.verdict != report.Leaked || (a.severity == report.Critical) != want {
				t.Errorf("%s: %s %s, a disk: %v", name, a.verdict, a.severity, want)
			}
		}
	}
}

// TestPodmanRootfs has a directory of the host for a root.
func TestPodmanRootfs(t *testing.T) {
	for root, want := range map[string]report.Verdict{
		"": report.Held, "/": report.Leaked, "/srv/web": report.Held, "/usr": report.Leaked, "/var/lib/containers/storage/overlay/1/merged": report.Held,
	} {
		text := strings.Replace(string(podmanWith("", "no-new-privileges", "0")), `"Name":"x",`, fmt.Sprintf(`"Name":"x","Rootfs":%q,`, root), 1)
		list, err := ParsePodman([]byte(strings.Replace(text, ",,", ",", 1)), nil)
		if got := verdictOf(t, list, err, "files.host"); got != want {
			t.Errorf("%q: got %s, want %s", root, got, want)
		}
	}
}

// TestProfileOfNothing has a profile of AppArmor on a kernel that may have none.
func TestProfileOfNothing(t *testing.T) {
	const created, ran = `{"Pid": 0, "StartedAt": "0001-01-01T00:00:00Z"}`, `{"Pid": 9, "StartedAt": "2026-01-01T00:00:00Z"}`
	for _, tt := range []struct {
		name, state string
		engine      *Engine
		want        report.Verdict
	}{
		{"created, who knows", created, nil, report.Unknown},
		{"created, without AppArmor", created, &Engine{LSM: said(false)}, report.Leaked},
		{"created, with AppArmor", created, &Engine{LSM: said(true)}, report.Held},
		{"started", ran, nil, report.Held}, // an engine clears it where there is none
	} {
		list, err := ParseDocker([]byte(`{"AppArmorProfile": "foo", "ProcessLabel": "", "State": `+tt.state+`,
			"HostConfig": {"Privileged": false, "SecurityOpt": ["apparmor=foo"]}}`), tt.engine)
		if got := verdictOf(t, list, err, "lsm.profile"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestPodmanSpellings has options that Podman takes in more than one way.
func TestPodmanSpellings(t *testing.T) {
	const leaks = "/proc/interrupts:/sys/devices/virtual/powercap"
	for _, tt := range []struct {
		option, rule string
		want         report.Verdict
	}{
		{"systempaths=unconfined", "proc.paths", report.Leaked},
		{"systempaths:unconfined", "proc.paths", report.Leaked},
		{"unmask:ALL", "proc.paths", report.Leaked},
		{"unmask:/proc/keys", "proc.paths", report.Leaked},
		{"systempaths=confined", "proc.paths", report.Held},
		{"mask=/proc/interrupts", "proc.leaks", report.Leaked},
		{"mask=" + leaks, "proc.leaks", report.Held},
		{"mask:" + leaks, "proc.leaks", report.Held},
		{"mask=" + leaks, "proc.paths", report.Held},
	} {
		list, err := ParsePodman(podmanWith("", tt.option, ""), nil)
		if got := verdictOf(t, list, err, tt.rule); got != tt.want {
			t.Errorf("%s, %s: got %s, want %s", tt.option, tt.rule, got, tt.want)
		}
	}
	// What is masked by name stays so whatever is unmasked.
	both := strings.Replace(string(podmanWith("", "unmask=ALL", "")), `"a","sh"]}`, `"--security-opt=mask=`+leaks+`","a","sh"]}`, 1)
	list, err := ParsePodman([]byte(both), nil)
	if got := verdictOf(t, list, err, "proc.leaks"); got != report.Held {
		t.Errorf("masked and unmasked: %s", got)
	}
}

// TestNoNewPrivilegesSpellings has the words for true and false that engines take.
func TestNoNewPrivilegesSpellings(t *testing.T) {
	for option, want := range map[string]report.Verdict{
		"no-new-privileges": report.Held, "no-new-privileges:true": report.Held, "no-new-privileges=1": report.Held, "no-new-privileges=True": report.Held,
		"no-new-privileges:0": report.Leaked, "no-new-privileges=F": report.Leaked, "no-new-privileges=yes": report.Unknown,
	} {
		list, err := ParseDocker(fmt.Appendf(nil, `{"HostConfig":{"Privileged":false,"SecurityOpt":[%q]}}`, option), nil)
		if got := verdictOf(t, list, err, "privileges.no-new-privs"); got != want {
			t.Errorf("%s: got %s, want %s", option, got, want)
		}
	}
}

// TestPodmanSystemd has a container that runs systemd, for which Podman mounts cgroups
// writable.
func TestPodmanSystemd(t *testing.T) {
	for mode, want := range map[string]report.Verdict{`"SystemdMode":true,`: report.Leaked, `"SystemdMode":false,`: report.Held, ``: report.Held} {
		text := strings.Replace(string(podmanWith("", "label=disable", "")), `"Config":{`, `"Config":{`+mode, 1)
		list, err := ParsePodman([]byte(text), nil)
		if got := verdictOf(t, list, err, "proc.paths"); got != want {
			t.Errorf("%s got %s, want %s", mode, got, want)
		}
	}
}

// TestUnconfinedLabels has labels of SELinux whose type no policy confines.
func TestUnconfinedLabels(t *testing.T) {
	for label, want := range map[string]report.Verdict{
		"system_u:system_r:container_t:s0:c1,c2": report.Held, "system_u:system_r:spc_t:s0": report.Leaked, "system_u:system_r:spc_t:s0:c1,c2": report.Leaked,
		"unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023": report.Leaked, "system_u:system_r:unconfined_service_t:s0": report.Leaked,
		"system_u:spc_t:my_t:s0": report.Held, "spc_t": report.Held,
	} {
		docker := fmt.Appendf(nil, `{"ProcessLabel":%q,"AppArmorProfile":"","State":{"Pid":1,"StartedAt":"2026-01-01T00:00:00Z"},"HostConfig":{"Privileged":false,"SecurityOpt":null}}`, label)
		list, err := ParseDocker(docker, nil)
		if got := verdictOf(t, list, err, "lsm.profile"); got != want {
			t.Errorf("Docker, %s: got %s, want %s", label, got, want)
		}
		c, err := ParseOCI(bytes.Replace(ociWith("", "", ""), []byte(`"process":{`), fmt.Appendf(nil, `"process":{"selinuxLabel":%q,`, label), 1))
		if got := verdictOf(t, []*Config{c}, err, "lsm.profile"); got != want {
			t.Errorf("config.json, %s: got %s, want %s", label, got, want)
		}
	}
}

// TestPortsOfOthers has ports that nobody publishes, and a task of a swarm, whose ports
// the swarm does.
func TestPortsOfOthers(t *testing.T) {
	const open, chosen = `{"80/tcp":[{"HostIp":"","HostPort":"80"}]}`, `{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"80"}]}`
	for _, tt := range []struct {
		name, network, labels, bindings string
		want                            report.Verdict
	}{
		{"published", "bridge", "{}", open, report.Leaked},
		{"no network", "none", "{}", open, report.Held},
		{"nothing", "bridge", "{}", "{}", report.Held},
		{"a task", "default", `{"com.docker.swarm.service.id":"x"}`, "{}", report.Unknown},
		{"a task, on an address", "default", `{"com.docker.swarm.service.id":"x"}`, chosen, report.Unknown},
		{"a task, published itself", "default", `{"com.docker.swarm.service.id":"x"}`, open, report.Leaked},
	} {
		list, err := ParseDocker(fmt.Appendf(nil, `{"Config":{"Labels":%s},"HostConfig":{"NetworkMode":%q,"PortBindings":%s,"PublishAllPorts":false}}`,
			tt.labels, tt.network, tt.bindings), nil)
		if got := verdictOf(t, list, err, "network.ports"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
