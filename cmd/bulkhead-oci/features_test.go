package main

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

func TestFeatures(t *testing.T) {
	code, out, errs := call(t, "features")
	var f features.Features
	if err := json.Unmarshal([]byte(out), &f); code != 0 || err != nil {
		t.Fatalf("%d, %q, %v", code, errs, err)
	}
	for _, o := range []string{"ro", "rro", "rbind", "rprivate", "idmap", "nosuid", "tmpcopyup"} {
		if !slices.Contains(f.MountOptions, o) {
			t.Errorf("mountOptions lack %q", o)
		}
	}
	if !slices.Contains(f.Linux.Capabilities, "CAP_SYS_ADMIN") || !*f.Linux.Cgroup.Rdma || f.OCIVersionMax != specs.Version {
		t.Errorf("got %+v", f.Linux)
	}
	if m := f.Linux.MemoryPolicy; m == nil || !slices.Contains(m.Modes, "MPOL_BIND") || !slices.Contains(m.Flags, "MPOL_F_STATIC_NODES") {
		t.Errorf("memoryPolicy: got %+v", m)
	}
}

// What is announced is what package seccomp compiles.
func TestSeccompFeatures(t *testing.T) {
	try := func(change func(*specs.LinuxSeccomp)) {
		t.Helper()
		s := &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, ListenerPath: "/s",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"getpid"}, Action: specs.ActErrno,
				Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: 1, ValueTwo: 1}}}},
		}
		change(s)
		if _, err := seccomp.Compile(s); err != nil {
			t.Error(err)
		}
	}
	for _, v := range seccompActions {
		try(func(s *specs.LinuxSeccomp) { s.Syscalls[0].Action = specs.LinuxSeccompAction(v) })
	}
	for _, v := range seccompOperators {
		try(func(s *specs.LinuxSeccomp) { s.Syscalls[0].Args[0].Op = specs.LinuxSeccompOperator(v) })
	}
	for _, v := range seccompArchs {
		try(func(s *specs.LinuxSeccomp) { s.Architectures = []specs.Arch{specs.Arch(v)} })
	}
	for _, v := range seccompFlags {
		try(func(s *specs.LinuxSeccomp) {
			s.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(v)}
			s.Syscalls[0].Action = specs.ActNotify
		})
	}
}
