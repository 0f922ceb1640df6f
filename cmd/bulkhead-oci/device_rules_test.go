package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestDeviceRules: no device is open but those that rules name and those that
// every container has, whatever the first rule is.
func TestDeviceRules(t *testing.T) {
	h := newHost(t)
	major, minor := int64(10), int64(200)
	tun := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	const id, show = "lifecycle-devices", "busybox mknod /dev/loop b 7 0; : </dev/null && : </dev/loop"
	for _, c := range []struct {
		what  string
		rules []specs.LinuxDeviceCgroup
		open  bool
	}{
		{"no rule", nil, false},
		{"one rule that allows", []specs.LinuxDeviceCgroup{tun}, false},
		{"a rule that allows all", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, true},
	} {
		h.write(func(s *specs.Spec) {
			s.Linux.Resources.Devices = c.rules
			caps := &s.Process.Capabilities
			(*caps).Bounding = append((*caps).Bounding, "CAP_MKNOD")
			(*caps).Effective, (*caps).Permitted = (*caps).Bounding, (*caps).Bounding
		}, "sh", "-c", show)
		_, _, errs := h.call("run", "--bundle", h.bundle, id)
		if strings.Contains(errs, "/dev/null") || strings.Contains(errs, "/dev/loop: Operation not permitted") == c.open {
			t.Errorf("%s: %q, want that b 7:0 is open: %v", c.what, errs, c.open)
		}
	}
}

// TestUpdateDeviceRules: new rules leave the devices that every container has.
func TestUpdateDeviceRules(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-update-devices"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	file := filepath.Join(t.TempDir(), "resources.json")
	const rules = `{"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"}]}`
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("update", "--resources", file, id)
	h.must("exec", id, "sh", "-c", ": </dev/null && : </dev/urandom")
}
