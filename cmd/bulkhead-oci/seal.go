package main

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/selfexec"
)

// sealFor makes sure that a container without a user namespace of its own
// cannot write this program's file: the processes that are about to be forked
// show it at /proc/PID/exe until they execute their own program
// (CVE-2019-5736). It may execute this program again, with all that it was
// given, so it comes before anything is made or read from a pipe. It costs
// one more start of this program, which containers with a user namespace are spared.
func sealFor(spec *specs.Spec) error {
	if spec.Linux != nil {
		for _, n := range spec.Linux.Namespaces {
			if n.Type == specs.UserNamespace {
				return nil
			}
		}
	}
	if err := selfexec.Seal(); err != nil {
		return fmt.Errorf("keep this program out of the container's reach: %w", err)
	}
	selfexec.Name()
	return nil
}
