package ocispec

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// refusal is a property that this runtime does not carry out. It is an error
// to ask for it: leaving it out would be silently weaker than what was asked.
// To support a property, remove its line.
type refusal struct {
	property string
	asked    func(*specs.Spec) bool
}

var refusals = []refusal{
	{"linux.intelRdt", func(s *specs.Spec) bool { return s.Linux.IntelRdt != nil }},
	{"linux.netDevices", func(s *specs.Spec) bool { return len(s.Linux.NetDevices) > 0 }},
	{"linux.mountLabel", func(s *specs.Spec) bool { return s.Linux.MountLabel != "" }},
	{"linux.personality.flags", func(s *specs.Spec) bool {
		return s.Linux.Personality != nil && len(s.Linux.Personality.Flags) > 0
	}},
	{"vm", func(s *specs.Spec) bool { return s.VM != nil }},
}

// processRefusals hold for a container's first process and for an exec.
var processRefusals = []struct {
	property string
	asked    func(*specs.Process) bool
}{
	{"process.selinuxLabel", func(p *specs.Process) bool { return p.SelinuxLabel != "" }},
}

func refuse(s *specs.Spec) error {
	for _, r := range refusals {
		if r.asked(s) {
			return notSupported(r.property)
		}
	}
	return nil
}

func refuseProcess(p *specs.Process) error {
	for _, r := range processRefusals {
		if r.asked(p) {
			return notSupported(r.property)
		}
	}
	return nil
}

// UnsupportedError names a property that this runtime does not carry out.
type UnsupportedError struct{ Property string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: not supported by this runtime", e.Property)
}

func notSupported(property string) error { return &UnsupportedError{property} }
