package container

import (
	"encoding/binary"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

func TestParseList(t *testing.T) {
	for list, want := range map[string]uint64{"0": 1, "0-3": 15, "1,3": 10, "0-1,4-5": 51, "63": 1 << 63} {
		mask, err := parseList(list, 128)
		if err != nil || binary.NativeEndian.Uint64(mask) != want || len(mask) != 16 {
			t.Errorf("%q: got %x, %v; want %x", list, mask, err, want)
		}
	}
	for _, list := range []string{"", "a", "-1", "3-1", "1-", "128", "0-128", "0-18446744073709551615", "1,,2"} {
		if mask, err := parseList(list, 128); err == nil {
			t.Errorf("%q: got %x, want an error", list, mask)
		}
	}
}

func TestMemoryPolicyErrors(t *testing.T) {
	for want, m := range map[string]specs.LinuxMemoryPolicy{
		"invalid memory policy mode":      {Nodes: "0"},
		"invalid memory policy flag":      {Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"x"}},
		"invalid memory policy nodes":     {Mode: specs.MpolBind, Nodes: "0-9876543210"},
		"mode requires 0 nodes but got 8": {Mode: specs.MpolDefault, Nodes: "0-7"},
		"needs nodes":                     {Mode: specs.MpolInterleave},
	} {
		if err := planMemoryPolicy(launch.New("test"), &m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", m, err, want)
		}
	}
	if err := planMemoryPolicy(launch.New("test"), &specs.LinuxMemoryPolicy{Mode: specs.MpolDefault}); err != nil {
		t.Error(err)
	}
}

// TestMemoryPolicyNames wants everything that is announced to be accepted.
func TestMemoryPolicyNames(t *testing.T) {
	if len(MemoryModes()) == 0 || len(MemoryFlags()) == 0 {
		t.Fatal("nothing is announced")
	}
	for _, mode := range MemoryModes() {
		for _, flag := range MemoryFlags() {
			m := specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(mode), Flags: []specs.MemoryPolicyFlagType{specs.MemoryPolicyFlagType(flag)}}
			if m.Mode != specs.MpolDefault && m.Mode != specs.MpolLocal {
				m.Nodes = "0"
			}
			if err := planMemoryPolicy(launch.New("test"), &m); err != nil {
				t.Errorf("%+v: %v", m, err)
			}
		}
	}
}
