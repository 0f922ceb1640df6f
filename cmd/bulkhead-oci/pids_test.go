package main

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestPidsLimitOfOne: a container that may have one process is made, although
// making it takes two, and from its first instruction on has no second one.
func TestPidsLimitOfOne(t *testing.T) {
	h := newHost(t)
	for _, limit := range []int64{0, 1} { // runc takes 0 as 1 too
		set := func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit} }
		const id = "lifecycle-pids"
		h.write(set, "sleep", "60")
		h.must("create", "--bundle", h.bundle, id)
		if got := h.pidsMax(id); got != "1" {
			t.Errorf("limit %d: pids.max of the created container is %s, want 1", limit, got)
		}
		h.must("start", id)
		if got := h.pidsMax(id); got != "1" {
			t.Errorf("limit %d: pids.max of the started container is %s, want 1", limit, got)
		}
		if code, _, _ := h.call("exec", id, "true"); code == 0 {
			t.Errorf("limit %d: exec made a second process", limit)
		}
		h.must("delete", "--force", id)

		h.write(set, "sleep", "60")
		h.must("create", "--bundle", h.bundle, id)
		h.must("update", "--pids-limit", "20", id)
		h.must("start", id)
		if got := h.pidsMax(id); got != "20" {
			t.Errorf("limit %d: pids.max is %s after an update between create and start, want 20", limit, got)
		}
		h.must("delete", "--force", id)

		h.write(set, "sh", "-c", "sleep 0; exit 0")
		code, _, errs := h.call("run", "--bundle", h.bundle, id)
		if code == 0 || code == 255 || !strings.Contains(errs, "fork") {
			t.Errorf("limit %d: a shell that forks: exit status %d, %s; want a fork that fails", limit, code, errs)
		}
		h.write(set, "true")
		h.must("run", "--bundle", h.bundle, id)
	}
}

func (h *host) pidsMax(id string) string {
	h.t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if b, err := os.ReadFile(dir + "/bulkhead-oci/" + id + "/pids.max"); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	h.t.Fatal("the container's cgroup has no pids.max")
	return ""
}
