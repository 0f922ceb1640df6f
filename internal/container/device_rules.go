package container

import specs "github.com/opencontainers/runtime-spec/specs-go"

// DefaultDeviceRules are the device cgroup's rules for the default devices,
// terminals included: everything else is closed.
func DefaultDeviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	allow := func(major, minor int64) {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Access: "rwm"}
		if minor >= 0 {
			r.Minor = &minor
		}
		rules = append(rules, r)
	}
	for _, d := range defaultDevices {
		allow(int64(d.major), int64(d.minor))
	}
	allow(5, 1)    // console
	allow(5, 2)    // ptmx
	allow(136, -1) // the terminals of devpts
	return rules
}
