package main

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/selfexec"
)

// sealFor makes sure that a container cannot write this program's file: the
// processes that are about to be forked show it at /proc/PID/exe until they
// execute their own program (CVE-2019-5736). It may execute this program again,
// with all that it was given, so it comes before anything is made or read from
// a pipe. It costs one more start of this program, which containers whose root
// is nobody on the host are spared.
func sealFor(spec *specs.Spec) error {
	if nobodyOutside(spec.Linux) {
		return nil
	}
	if err := selfexec.Seal(); err != nil {
		return fmt.Errorf("keep this program out of the container's reach: %w", err)
	}
	selfexec.Name()
	return nil
}

// nobodyOutside reports whether the container gets a user namespace that does
// not map the host's root, to whom this program belongs. What a namespace that
// is joined maps is not looked at.
func nobodyOutside(l *specs.Linux) bool {
	if l == nil || !slices.Contains(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}) {
		return false
	}
	root := func(m specs.LinuxIDMapping) bool { return m.HostID == 0 }
	return !slices.ContainsFunc(l.UIDMappings, root) && !slices.ContainsFunc(l.GIDMappings, root)
}
