package main

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/hook"
)

func runFeatures(c *command) (int, error) {
	enc := json.NewEncoder(c.stdout)
	enc.SetIndent("", "    ")
	return 0, enc.Encode(theFeatures())
}

// theFeatures describes the program, not the machine (features.md): what the
// kernel at hand lacks is found out by trying.
func theFeatures() features.Features {
	yes, no := new(bool), new(bool)
	*yes = true
	v, commit := buildVersion()
	return features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{hook.Prestart, hook.CreateRuntime, hook.CreateContainer, hook.StartContainer, hook.Poststart, hook.Poststop},
		MountOptions:  container.MountOptions(),
		Linux: &features.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: container.KnownCapabilities(),
			// systemd: paths of its form are understood, no unit is made.
			Cgroup: &features.Cgroup{V1: yes, V2: yes, Systemd: yes, SystemdUser: no, Rdma: yes},
			Seccomp: &features.Seccomp{
				Enabled:        yes,
				Actions:        seccompActions,
				Operators:      seccompOperators,
				Archs:          seccompArchs,
				KnownFlags:     seccompFlags,
				SupportedFlags: seccompFlags,
			},
			MemoryPolicy:    &features.MemoryPolicy{Modes: container.MemoryModes(), Flags: container.MemoryFlags()},
			Apparmor:        &features.Apparmor{Enabled: yes},
			Selinux:         &features.Selinux{Enabled: no},
			IntelRdt:        &features.IntelRdt{Enabled: no, Schemata: no, Monitoring: no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: yes}},
			NetDevices:      &features.NetDevices{Enabled: no},
		},
		Annotations: map[string]string{
			"com.github.seed-f5e3b97b.bulkhead.version": v,
			"com.github.seed-f5e3b97b.bulkhead.commit":  commit,
		},
	}
}

// What package seccomp compiles; a test holds it to that.
var (
	seccompActions = []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
		"SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"}
	seccompOperators = []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
		"SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"}
	seccompArchs = []string{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_MIPSEL",
		"SCMP_ARCH_MIPSEL64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"}
	seccompFlags = []string{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
		"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}
)
