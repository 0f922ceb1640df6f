package main

import (
	"context"
	"os/exec"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
)

// A create that fails because its cgroup is in use must leave whoever uses it
// alone, and so must the delete after a create that was killed there.
func TestForeignCgroupIsLeftAlone(t *testing.T) {
	m, err := cgroup.New("/bulkhead-oci-test/foreign", nil, cgroup.Options{})
	if err != nil {
		t.Skipf("no cgroups here: %v", err)
	}
	if err := m.Create(); err != nil {
		t.Skipf("cannot make a cgroup here: %v", err)
	}
	var cmd *exec.Cmd
	err = m.Inside(func(fd int) error {
		cmd = exec.Command("sleep", "60")
		if fd >= 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		}
		return cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		if err := m.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		m.RemoveEmptyParents("/bulkhead-oci-test")
	}()
	b := &box{record: record{Cgroup: m.Path()}}
	if err := b.end(context.Background()); err != nil {
		t.Fatal(err)
	}
	if full, err := m.Populated(); err != nil || !full {
		t.Errorf("the process in the cgroup was ended: %v, %v", full, err)
	}
	b.CgroupMade = true
	if err := b.end(context.Background()); err != nil {
		t.Fatal(err)
	}
	if m.Exists() {
		t.Error("the container's own cgroup is left behind")
	}
}
