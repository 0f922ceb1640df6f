package container

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestRecursiveOptionsOfNewMounts: a file system that is made for the container has
// nothing below it, but what it is asked for "recursively" is in force on itself.
func TestRecursiveOptionsOfNewMounts(t *testing.T) {
	out, exit := run(t, func(c *Config) {
		c.Spec.Mounts = append(c.Spec.Mounts,
			specs.Mount{Destination: "/made", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"}})
		for i := range c.Spec.Mounts {
			if m := &c.Spec.Mounts[i]; m.Destination == "/proc" || m.Destination == "/sys/fs/cgroup" {
				m.Options = []string{"rro", "rnosuid", "rnoexec", "rnodev"}
			}
		}
	}, "sh", "-c", `touch /made/x && echo written; grep -E " (/made|/proc|/sys/fs/cgroup) " /proc/mounts`)
	if exit.Code != 0 || strings.Contains(out, "written") {
		t.Errorf("exit %+v, output %q: want a mount that cannot be written", exit, out)
	}
	for _, at := range []string{"/made", "/proc", "/sys/fs/cgroup"} {
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) < 4 || f[1] != at {
				continue
			}
			want := []string{"ro", "nosuid", "nodev", "noexec"}
			if at == "/made" {
				want = append(want, "noatime")
			}
			for _, o := range want {
				if !strings.Contains(","+f[3]+",", ","+o+",") {
					t.Errorf("%s has the options %s, want %s among them", at, f[3], o)
				}
			}
		}
		if !strings.Contains(out, " "+at+" ") {
			t.Errorf("%s is no mount:\n%s", at, out)
		}
	}
}
