package engine

import (
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Weakenings names each way in which s is less confined than by default, with
// the flag that asked for it.
func Weakenings(s *workload.Spec) []string {
	out := []string{}
	add := func(is bool, text string) {
		if is {
			out = append(out, text)
		}
	}
	n, sec := s.Namespaces, s.Security
	add(n.HostUser, "root inside is root on the host (--userns host)")
	add(n.HostPID, "sees and signals the host's processes (--pid host)")
	add(n.HostIPC, "shares the host's System V IPC and message queues (--ipc host)")
	add(n.HostUTS, "can see the host's name change (--uts host)")
	add(s.Network == "host", "uses the host's network, with its abstract sockets and local services (--network host)")
	for _, c := range sec.CapAdd {
		out = append(out, "has capability "+c+" (--cap-add "+c+")")
	}
	add(sec.Seccomp == "unconfined", "no system call filter (--security-opt seccomp=unconfined)")
	add(sec.Seccomp != "" && sec.Seccomp != "unconfined", "a system call filter of its own (--security-opt seccomp=FILE)")
	add(sec.AppArmor == "unconfined", "no AppArmor profile (--security-opt apparmor=unconfined)")
	add(sec.AppArmor != "" && sec.AppArmor != "unconfined", "AppArmor profile "+sec.AppArmor+" (--security-opt apparmor="+sec.AppArmor+")")
	add(sec.NewPrivileges, "execve can gain privileges (--security-opt no-new-privileges=false)")
	add(len(sec.Unmask) > 0, "masked paths are open: "+strings.Join(sec.Unmask, ", ")+" (--security-opt unmask)")
	for _, d := range s.Devices {
		out = append(out, "device "+d.Source+" with "+d.Permissions+" (--device)")
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" && slices.Contains([]string{"shared", "rshared"}, m.Propagation) {
			out = append(out, "mounts below "+m.Target+" appear on the host (propagation "+m.Propagation+")")
		}
	}
	add(s.Resources.Pids != nil && *s.Resources.Pids <= 0, "no limit on processes (--pids-limit -1)")
	add(s.Resources.OOMScoreAdj != nil && *s.Resources.OOMScoreAdj < 0, "the kernel spares it when memory is short (--oom-score-adj)")
	return out
}
