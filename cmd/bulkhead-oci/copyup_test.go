package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestCopyUpWithinMemory: what an image has in a directory is not copied into
// memory beyond the container's limit.
func TestCopyUpWithinMemory(t *testing.T) {
	h := newHost(t)
	for _, dir := range []string{"big", "small"} {
		if err := os.MkdirAll(filepath.Join(h.bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const size, limit = 24 << 20, 16 << 20
	err := os.WriteFile(filepath.Join(h.bundle, "rootfs/small/file"), []byte("small"), 0o600)
	if err == nil {
		err = os.WriteFile(filepath.Join(h.bundle, "rootfs/big/file"), nil, 0o600)
	}
	if err == nil {
		err = os.Truncate(filepath.Join(h.bundle, "rootfs/big/file"), size)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(dir string, limit int64) (int, string, string) {
		h.write(func(s *specs.Spec) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/" + dir, Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		}, "test", "-s", "/"+dir+"/file")
		return h.call("run", "--bundle", h.bundle, "lifecycle-copyup")
	}
	if code, _, errs := run("big", limit); code == 0 || !strings.Contains(errs, "memory limit of 16777216 bytes") {
		t.Errorf("%d bytes into %d: %d, %q; want it refused", size, limit, code, errs)
	}
	if code, _, errs := run("small", limit); code != 0 {
		t.Errorf("a small file: %d, %q", code, errs)
	}
	if code, _, errs := run("big", -1); code != 0 {
		t.Errorf("without a limit: %d, %q", code, errs)
	}
}
