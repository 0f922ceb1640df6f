package audit

import (
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

//go:generate go test -run ^TestDocs$ -update .

// rules are all of them. Their sources are the CIS Docker Benchmark, the Pod
// Security Standards, Firecracker's production host guide, and the advisories that
// each names.
var rules = []rule{
	{
		id: "privileges.privileged", door: "every restriction at once",
		severity: report.Critical, consequence: report.Takeover, mapped: true,
		expected: "restrictions in force", enables: "mounting the host's disks, loading kernel modules, everything that root on the host can do",
		fix:    fix{run: "leave out --privileged; give back by name what is missing then: --cap-add NAME, --device PATH"},
		breaks: "what needs more than one capability or device has to be given each by name",
		cis:    "5.5", pss: "baseline",
		check: func(c *Config) answer {
			if c.Kind == OCI {
				return notApplicable("a config.json has no such mode; what it is made of is judged one by one")
			}
			return yes(c.Privileged, "privileged", "not privileged")
		},
	},
	{
		id: "files.socket", door: "the socket of a container engine, or of what starts the host's services",
		severity: report.Critical, consequence: report.Takeover, reach: host,
		expected: "no socket of an engine or of systemd inside", enables: "asking the engine for a privileged container, or systemd for a service, and with it the host",
		fix:    fix{run: "leave out the mount of %s, or mount the socket of a proxy that passes on only the requests it needs", oci: "remove the mount of %s"},
		breaks: "programs that manage containers or services from inside",
		cis:    "5.32", pss: "baseline (hostPath)", check: checkSocket,
	},
	{
		id: "files.host", door: "files that the host runs on",
		severity: report.Critical, consequence: report.Takeover, reach: host,
		expected: "no directory of the host's system inside", enables: "changing what the host runs next",
		fix:    fix{run: "mount less than %s: the one directory that is needed, with :ro if it is only read", oci: "narrow the mount of %s to what is needed, with the option ro"},
		breaks: "programs that read or change the host's files",
		cis:    "5.6", pss: "baseline (hostPath)", check: checkHostFiles,
	},
	{
		id: "files.propagation", door: "mounts that appear on the host",
		severity: report.Medium, consequence: report.Disturbs, reach: host,
		expected: "mounts made inside stay inside", enables: "covering files of the host with mounts that are made inside, given CAP_SYS_ADMIN",
		fix:    fix{run: "mount %s with the propagation rprivate, or rslave to see the host's new mounts", oci: "give the mount of %s the option rprivate or rslave in place of shared; the root's is linux.rootfsPropagation"},
		breaks: "programs that mount for the host, such as storage drivers",
		cis:    "5.20", check: checkPropagation,
	},
	{
		id: "files.root", door: "the root file system",
		severity: report.Low, consequence: report.Depth,
		expected: "read-only", enables: "leaving programs behind that a later step runs",
		fix:    fix{run: "add --read-only, and --tmpfs /tmp for what it writes", oci: "set root.readonly to true, and mount a tmpfs where it writes"},
		breaks: "programs that write outside volumes and tmpfs",
		cis:    "5.13", check: func(c *Config) answer { return no(c.ReadOnlyRoot, "read-only", "writable") },
	},
	{
		id: "capabilities.dangerous", door: "capabilities that lead out",
		severity: report.Critical, consequence: report.Takeover,
		expected: "none of SYS_ADMIN, SYS_MODULE, SYS_PTRACE, SYS_RAWIO, DAC_READ_SEARCH, BPF",
		fix:      fix{run: "leave out --cap-add for %s; better, --cap-drop ALL and add back by name", oci: "remove %s from every set of process.capabilities"},
		breaks:   "programs that administrate the kernel, trace others, or read files without permission",
		cis:      "5.4", pss: "baseline and restricted", references: []string{"capabilities(7)"}, check: checkDangerous,
	},
	{
		id: "capabilities.added", door: "capabilities beyond the usual",
		severity: report.Medium, consequence: report.Depth,
		expected: "no capability but those that engines give by default", enables: "kernel interfaces for administrators, a rich source of kernel bugs",
		fix:    fix{run: "leave out --cap-add for %s", oci: "remove %s from every set of process.capabilities"},
		breaks: "the program that asked for them",
		cis:    "5.4", pss: "baseline", references: []string{"capabilities(7)"},
		check: func(c *Config) answer { return checkCaps(c, unusual(c.reachable())) },
	},
	{
		id: "capabilities.net-raw", door: "forged packets",
		severity: report.Medium, consequence: report.Disturbs,
		expected: "no CAP_NET_RAW", enables: "packets with the addresses of others on the same network",
		fix: fix{
			run:  "add --cap-drop NET_RAW; ping works without it by --sysctl net.ipv4.ping_group_range='0 2147483647'",
			ours: "leave out --cap-add NET_RAW; ping works without it",
			oci:  "remove CAP_NET_RAW from every set of process.capabilities; ping works by linux.sysctl net.ipv4.ping_group_range",
		},
		breaks: "programs that make raw packets, such as traceroute and old versions of ping",
		cis:    "5.4", pss: "baseline", references: []string{"CVE-2020-14386"},
		check: func(c *Config) answer {
			if slices.Contains(c.reachable(), "CAP_NET_RAW") {
				return checkCaps(c, []string{"CAP_NET_RAW"})
			}
			return checkCaps(c, nil)
		},
	},
	{
		id: "namespaces.pid", door: "the host's processes",
		severity: report.High, consequence: report.Reads, mapped: true,
		expected: "a pid namespace of its own", enables: "command lines and environments of the host's processes, and signals to them",
		fix:    fix{run: "leave out --pid host", oci: `add {"type": "pid"} without a path to linux.namespaces`},
		breaks: "monitors and debuggers of the host",
		cis:    "5.16", pss: "baseline", check: func(c *Config) answer { return checkNamespace(c.PID, "pid") },
	},
	{
		id: "namespaces.net", door: "the host's network",
		severity: report.High, consequence: report.Reads, reach: host,
		expected: "a network of its own, or none", enables: "services on the host's loopback, its abstract sockets, its traffic",
		fix:    fix{run: "leave out --network host; publish the ports that are needed with -p", oci: `add {"type": "network"} without a path to linux.namespaces`},
		breaks: "programs that bind the host's addresses or see its interfaces",
		cis:    "5.10", pss: "baseline", references: []string{"CVE-2020-15257"},
		check: func(c *Config) answer { return checkNamespace(c.Net, "network") },
	},
	{
		id: "namespaces.ipc", door: "memory that the host's programs share",
		severity: report.High, consequence: report.Reads, mapped: true,
		expected: "an ipc namespace of its own", enables: "reading and writing shared memory of other programs",
		fix:    fix{run: "leave out --ipc host", oci: `add {"type": "ipc"} without a path to linux.namespaces`},
		breaks: "programs that share memory with the host's",
		cis:    "5.17", pss: "baseline", check: func(c *Config) answer { return checkNamespace(c.IPC, "ipc") },
	},
	{
		id: "namespaces.uts", door: "the host's name",
		severity: report.Medium, consequence: report.Disturbs, mapped: true,
		expected: "a uts namespace of its own", enables: "changing the host's name, given CAP_SYS_ADMIN",
		fix:    fix{run: "leave out --uts host", oci: `add {"type": "uts"} without a path to linux.namespaces`},
		breaks: "programs that must see the host's name: give it with --hostname",
		cis:    "5.21", check: func(c *Config) answer { return checkNamespace(c.UTS, "uts") },
	},
	{
		id: "namespaces.user", door: "the host's root",
		severity: report.Medium, consequence: report.Depth,
		expected: "a user namespace that does not map the host's root", enables: "acting as the host's root with whatever is reached: files, sockets, a kernel bug",
		fix: fix{
			run:  "run the engine with --userns-remap or without root, or give the container --userns auto (Podman)",
			ours: "leave out --userns host", oci: `add {"type": "user"} to linux.namespaces, with uidMappings and gidMappings to a range above 0`,
		},
		breaks: "volumes belong to other IDs, unless they are mounted with an ID map",
		cis:    "2.9, 5.31", references: []string{"user_namespaces(7)"}, check: checkUserNS,
	},
	{
		id: "devices.nodes", door: "devices of the host",
		severity: report.High, consequence: report.Disturbs, reach: host,
		expected: "no device but the usual ones", enables: "a driver in the host's kernel, and what the device holds",
		fix:    fix{run: "leave out --device for %s, or its mount, or give the one that is needed with the permissions r or rw", oci: "remove %s from linux.devices, linux.resources.devices and mounts"},
		breaks: "programs that drive the device",
		cis:    "5.18", check: checkDevices,
	},
	{
		id: "devices.rules", door: "every device by its number",
		severity: report.High, consequence: report.Takeover, mapped: true,
		expected: "a device cgroup that denies all but a list without disks and memory", enables: "making the node of the host's disk, given CAP_MKNOD, and opening it",
		fix:    fix{run: "leave out --device-cgroup-rule for all devices, for disks (b) and for memory (c 1:1, 1:2, 1:4); name type, major and minor number of what is needed", oci: `begin linux.resources.devices with {"allow": false, "access": "rwm"} and allow by number, without block devices and memory`},
		breaks: "programs that find their devices while they run",
		cis:    "5.18", check: checkDeviceRules,
	},
	{
		id: "syscalls.seccomp", door: "every system call",
		severity: report.High, consequence: report.Depth,
		expected: "a filter of system calls", enables: "the whole of the kernel as a surface to attack",
		fix:    fix{run: "leave out --security-opt seccomp=; for single calls, a profile that refuses the others", oci: "set linux.seccomp to the default profile of an engine"},
		breaks: "programs that use rare calls, which a profile can allow by name",
		cis:    "5.22", pss: "baseline and restricted", references: []string{"seccomp(2)"}, check: checkSeccomp,
	},
	{
		id: "syscalls.sockets", door: "sockets of AF_ALG and AF_VSOCK",
		severity: report.High, consequence: report.Depth,
		expected: "a filter that refuses both", enables: "the kernel's ciphers, where CVE-2026-31431 gave root, and services of the machine below",
		fix: fix{
			run:  "a current engine, whose default profile closes them, or --security-opt seccomp=FILE with a profile that compares the lower 32 bits of the family, and no socketcall(2)",
			ours: "leave out --security-opt seccomp: the default closes both",
			oci:  "in linux.seccomp allow socket by families, comparing the lower 32 bits with SCMP_CMP_MASKED_EQ, and leave out socketcall",
		},
		breaks:     "programs that have the kernel encrypt, or talk to the hypervisor",
		references: []string{"CVE-2026-31431", "moby/moby#52501"}, check: checkSockets,
	},
	{
		id: "lsm.profile", door: "what a security module would refuse",
		severity: report.Medium, consequence: report.Depth,
		expected: "a profile of AppArmor or a label of SELinux", enables: "files below /proc and /sys, mounts, and signals that only the module would refuse",
		fix:    fix{run: "leave out --security-opt apparmor=unconfined, label=disable and label=type:; switch AppArmor or SELinux on where the kernel has neither", oci: "set process.apparmorProfile or process.selinuxLabel"},
		breaks: "what the profile does not allow",
		cis:    "5.2, 5.3", pss: "baseline", check: checkLSM,
	},
	{
		id: "proc.paths", door: "kernel files below /proc and /sys",
		severity: report.High, consequence: report.Disturbs, mapped: true,
		expected: "the usual paths masked and read-only", enables: "kernel settings, keys and memory of the host; writing core_pattern or sysrq-trigger",
		fix: fix{
			run:    "leave out --security-opt systempaths=unconfined and writable-cgroups, and --privileged",
			podman: "leave out --security-opt systempaths=unconfined and unmask=, --privileged, and --systemd always; --systemd false where the program is an init",
			ours:   "leave out --security-opt unmask=", oci: "put back into linux.maskedPaths and linux.readonlyPaths: %s; mount sysfs and cgroup with the option ro",
		},
		breaks: "programs that set kernel parameters, containers inside containers, and systemd",
		pss:    "baseline", references: []string{"CVE-2025-31133", "CVE-2025-52565"}, check: checkPaths,
	},
	{
		id: "proc.leaks", door: "what others compute",
		severity: report.Low, consequence: report.Reads,
		expected: "counters of power and interrupts masked", enables: "measuring what neighbours do: keystrokes, keys in use",
		fix: fix{
			// runc takes no mount over a file in /proc.
			run:    "upgrade the engine: a current one masks %s",
			podman: "add --security-opt mask=%s",
			ours:   "leave out --security-opt unmask=", oci: "add to linux.maskedPaths: %s",
		},
		breaks:     "monitors of power and interrupts",
		references: []string{"CVE-2020-8694", "GHSA-jq35-85cj-fj4p", "GHSA-6fw5-f8r9-fgfm"}, check: checkLeaks,
	},
	{
		id: "proc.sysctl", door: "kernel parameters",
		severity: report.Medium, consequence: report.Depth,
		expected: "none but those that concern the workload alone", enables: "limits of the kernel that others feel, or protections that are off",
		fix:    fix{run: "leave out --sysctl %s", oci: "remove %s from linux.sysctl"},
		breaks: "programs that need the larger limit",
		pss:    "baseline", check: checkSysctls,
	},
	{
		id: "privileges.no-new-privs", door: "privileges that a program gains when executed",
		severity: report.Medium, consequence: report.Depth,
		expected: "no_new_privs", enables: "a setuid program of the image as a step upwards",
		fix:    fix{run: "add --security-opt no-new-privileges", ours: "leave out --security-opt no-new-privileges=false", oci: "set process.noNewPrivileges to true"},
		breaks: "sudo, su, ping with file capabilities",
		cis:    "5.26", pss: "restricted", check: func(c *Config) answer { return no(c.NoNewPrivileges, "no_new_privs is set", "no_new_privs is not set") },
	},
	{
		id: "privileges.root", door: "root inside",
		severity: report.Medium, consequence: report.Depth, mapped: true,
		expected: "a user other than root", enables: "all capabilities of the set, and every file of the image",
		fix:    fix{run: "add --user with a number, or USER in the image", oci: "set process.user.uid to a number above 0"},
		breaks: "programs that bind low ports without net.ipv4.ip_unprivileged_port_start, or write files that root owns",
		cis:    "4.1", pss: "restricted", check: checkRoot,
	},
	{
		id: "limits.memory", door: "all memory",
		severity: report.Medium, consequence: report.Exhausts,
		expected: "a limit of memory", enables: "making the host reclaim, swap and kill others",
		fix:    fix{run: "add --memory with what it needs", oci: "set linux.resources.memory.limit"},
		breaks: "a program beyond the limit is killed",
		cis:    "5.11", check: func(c *Config) answer { return checkLimit(c, c.Memory, "memory") },
	},
	{
		id: "limits.cpu", door: "all processor time",
		severity: report.Medium, consequence: report.Exhausts,
		expected: "a quota of processor time, or a set of processors", enables: "taking every processor whenever others leave it",
		fix:    fix{run: "add --cpus with what it needs", oci: "set linux.resources.cpu.quota and period"},
		breaks: "a busy program takes longer",
		cis:    "5.12", check: func(c *Config) answer { return checkLimit(c, c.CPU, "processor time") },
	},
	{
		id: "limits.pids", door: "all process IDs",
		severity: report.Medium, consequence: report.Exhausts,
		expected: "a limit of processes", enables: "a fork bomb that takes the host down",
		fix:    fix{run: "add --pids-limit, such as 4096", ours: "leave out --pids-limit -1: the default is 4096", oci: "set linux.resources.pids.limit"},
		breaks: "a program with more threads than that",
		cis:    "5.29", check: func(c *Config) answer { return checkLimit(c, c.PIDs, "processes") },
	},
	{
		id: "network.ports", door: "ports on every address of the host",
		severity: report.Low, consequence: report.Depth, reach: host,
		expected: "published ports on chosen addresses", enables: "the service to whoever reaches any address of the host",
		fix:    fix{run: "%s"},
		breaks: "clients that come by another address",
		cis:    "5.14", pss: "baseline", check: checkPorts,
	},
	{
		id: "vm.emulated", door: "a machine that a program emulates",
		severity: report.High, consequence: report.Depth, reach: machine,
		expected: "hardware virtualization", enables: "bugs of the emulator, which its authors do not call a security boundary",
		fix:    fix{run: "run it on a machine with hardware virtualization", ours: "switch on VT-x or AMD-V, or nested virtualization (`bulkhead doctor` tells), and leave out --accel tcg"},
		breaks: "nothing", references: []string{"QEMU documentation, Security: virtualization use case"}, check: checkEmulated,
	},
	{
		id: "vm.monitor", door: "the process that is the machine",
		severity: report.Medium, consequence: report.Depth, reach: machine,
		expected: "a user and a root directory of its own, and filtered system calls", enables: "the host with the rights of the emulator, after a bug in a device",
		fix:    fix{run: "confine the monitor: a user and a root of its own, seccomp", ours: "start the workload again with this version of bulkhead"},
		breaks: "nothing", references: []string{"Firecracker, production host set-up: jailer"}, check: checkMonitor,
	},
}
