package workload

import (
	"fmt"
	"slices"
	"testing"
)

func TestWeakenings(t *testing.T) {
	pids, noPids, oom := int64(4096), int64(-1), -500
	for _, tt := range []struct {
		name string
		spec Spec
		want []string // the flags
	}{
		{"defaults", Spec{Network: "none", Resources: Resources{Pids: &pids}}, nil},
		{"stricter", Spec{ReadOnlyRoot: true, Security: Security{CapDrop: []string{"ALL"}, CapAdd: []string{"CAP_CHOWN"}}}, nil},
		{"namespaces", Spec{Network: "host", Namespaces: Namespaces{HostUser: true, HostPID: true, HostIPC: true, HostUTS: true}},
			[]string{"--userns host", "--pid host", "--ipc host", "--uts host", "--network host"}},
		{"security", Spec{Security: Security{
			CapAdd: []string{"CAP_SYS_ADMIN", "ALL"}, Seccomp: "unconfined", AppArmor: "unconfined", NewPrivileges: true,
			Unmask: []string{"ALL", "/proc/acpi"},
		}}, []string{
			"--cap-add CAP_SYS_ADMIN", "--cap-add ALL", "--security-opt seccomp=unconfined",
			"--security-opt apparmor=unconfined", "--security-opt no-new-privileges=false",
			"--security-opt unmask=ALL", "--security-opt unmask=/proc/acpi",
		}},
		{"own profiles", Spec{Security: Security{Seccomp: "{}", AppArmor: "mine"}},
			[]string{"--security-opt seccomp=FILE", "--security-opt apparmor=mine"}},
		{"device", Spec{Devices: []Device{{Source: "/dev/kvm", Target: "/dev/kvm", Permissions: "rw"}}}, []string{"--device /dev/kvm"}},
		{"harmless mounts", Spec{Mounts: []Mount{
			{Type: "bind", Source: "/srv/data", Target: "/data"}, {Type: "tmpfs", Target: "/run"},
			{Type: "bind", Source: "/home/x/docker", Target: "/d"}, {Type: "bind", Source: "/etcetera", Target: "/e"},
		}}, nil},
		{"risky mounts", Spec{Mounts: []Mount{
			{Type: "bind", Source: "/var/run/docker.sock", Target: "/s"}, {Type: "bind", Source: "/", Target: "/h", ReadOnly: true},
			{Type: "bind", Source: "/etc/ssl", Target: "/ssl"}, {Type: "bind", Source: "/srv", Target: "/srv", Propagation: "rshared"},
			{Type: "bind", Source: "/run/bulkhead", Target: "/b"},
		}}, []string{
			"--volume /var/run/docker.sock:/s", "--volume /:/h", "--volume /etc/ssl:/ssl", "--volume /srv:/srv", "--volume /run/bulkhead:/b",
		}},
		{"limits", Spec{Resources: Resources{Pids: &noPids, OOMScoreAdj: &oom}}, []string{"--pids-limit -1", "--oom-score-adj -500"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, w := range tt.spec.Weakenings() {
				got = append(got, w.Flag)
				if w.What == "" || w.Why == "" {
					t.Errorf("%s says nothing: %+v", w.Flag, w)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func ExampleSpec_Weakenings() {
	for _, w := range (Spec{Namespaces: Namespaces{HostUTS: true}}).Weakenings() {
		fmt.Println(w)
	}
	// Output: --uts host: shares the host's name; the host's name can be seen, and changed with CAP_SYS_ADMIN
}
