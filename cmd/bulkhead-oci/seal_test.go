package main

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNobodyOutside(t *testing.T) {
	own := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.UserNamespace}}
	high := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	for name, c := range map[string]struct {
		linux *specs.Linux
		want  bool
	}{
		"nothing":       {nil, false},
		"no namespace":  {&specs.Linux{Namespaces: own[:1]}, false},
		"own":           {&specs.Linux{Namespaces: own, UIDMappings: high, GIDMappings: high}, true},
		"joined":        {&specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.UserNamespace, Path: "/proc/1/ns/user"}}, UIDMappings: high, GIDMappings: high}, false},
		"root is root":  {&specs.Linux{Namespaces: own, UIDMappings: []specs.LinuxIDMapping{{Size: 65536}}, GIDMappings: high}, false},
		"root by group": {&specs.Linux{Namespaces: own, UIDMappings: high, GIDMappings: append(high[:1:1], specs.LinuxIDMapping{ContainerID: 65536, Size: 1})}, false},
	} {
		if got := nobodyOutside(c.linux); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
