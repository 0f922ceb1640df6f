package probe

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// capabilityNames are those of capabilities(7), by number.
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// Capabilities are the names of all, without CAP_, by their numbers.
func Capabilities() []string { return slices.Clone(capabilityNames) }

// usual are the capabilities of a container that was asked for nothing: Podman's.
var usual = strings.Fields("CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT")

const (
	statusFile = "/proc/self/status"
	capAdd     = "--cap-add "
)

func statusCall(name string) string { return "read(" + statusFile + ", " + name + ")" }

// status writes a field of /proc/self/status down.
func status(name string) func(*prober) {
	return func(p *prober) {
		text, err := beginning(statusFile)
		p.add(statusCall(name), field(text, name+":"), err)
	}
}

// capabilityProbe wants the set in a field to be a part of allowed.
func capabilityProbe(id, fieldName, door, enables string, allowed []string) Probe {
	expected := "none"
	if len(allowed) > 0 {
		expected = fmt.Sprintf("no more than the %d of Podman's default", len(allowed))
	}
	return Probe{
		ID: "capabilities." + id, Door: door, Expected: expected, Enables: enables, Consequence: report.Depth,
		Opens: []string{capAdd}, Fix: "drop all capabilities and add back by name what is needed",
		References: []string{"capabilities(7)", "CIS Docker 5.3"},
		observe:    status(fieldName),
		judge: func(v *view) outcome {
			set, out := capabilitySet(v, fieldName)
			if out.state == unclear {
				return out
			}
			more := slices.DeleteFunc(set, func(c string) bool { return slices.Contains(allowed, c) })
			if len(more) == 0 {
				return isShut(out.observed)
			}
			return isOpen("also " + strings.Join(more, ", "))
		},
	}
}

// capabilitySet are the names of the set in a field; out is shut if it was read.
func capabilitySet(v *view, fieldName string) (set []string, out outcome) {
	e, ok := v.call(statusCall(fieldName))
	bits, err := strconv.ParseUint(e.Value, 16, 64)
	if !ok || e.Errno != "" || err != nil {
		return nil, isUnclear(statusFile + " does not tell: " + e.Errno)
	}
	count := 0
	for n := range 64 {
		if bits&(1<<n) == 0 {
			continue
		}
		count++
		if n < len(capabilityNames) {
			set = append(set, capabilityNames[n])
		} else {
			set = append(set, strconv.Itoa(n))
		}
	}
	return set, isShut(fmt.Sprintf("%d capabilities", count))
}

// holds is open if the workload has a capability over the kernel's first user
// namespace.
func (v *view) holds(names ...string) outcome {
	o := v.all["capabilities.effective"]
	if o == nil || o.Trouble != "" {
		return isUnclear("the capabilities are not known")
	}
	v.evidence = append(v.evidence, o.Calls...)
	set, out := capabilitySet(&view{o: o}, "CapEff")
	if out.state == unclear {
		return out
	}
	for _, name := range names {
		if slices.Contains(set, name) {
			return all(isOpen("CAP_"+name), v.of("namespaces.user"))
		}
	}
	return isShut("without CAP_" + strings.Join(names, " and CAP_"))
}

func capabilityProbes() []Probe {
	return []Probe{
		capabilityProbe("effective", "CapEff", "capabilities beyond the usual", "what capabilities(7) says of each", usual),
		capabilityProbe("bounding", "CapBnd", "capabilities that a program may gain", "gaining them by a file with capabilities or a setuid program", usual),
		capabilityProbe("inheritable", "CapInh", "inheritable capabilities", "gaining them by a file with inheritable capabilities (CVE-2022-24769)", nil),
		capabilityProbe("ambient", "CapAmb", "ambient capabilities", "keeping them in every program, also as another user than root", nil),
		{
			ID: "capabilities.no-new-privileges", Door: "gaining privileges by execve", Expected: "no_new_privs is set",
			Enables:     "becoming root inside by a setuid program of the image",
			Consequence: report.Depth,
			Opens:       []string{"--security-opt no-new-privileges"},
			Fix:         "docker: --security-opt no-new-privileges",
			Breaks:      "sudo, su and ping with file capabilities",
			References:  []string{"PR_SET_NO_NEW_PRIVS(2const)", "CIS Docker 5.25"},
			observe:     status("NoNewPrivs"),
			judge:       func(v *view) outcome { return judgeStatus(v, "NoNewPrivs", "1") },
		},
		{
			ID: "capabilities.packets", Door: "packets of others", Expected: "no socket of AF_PACKET",
			Enables:     "reading and forging packets of everybody on the same network",
			Consequence: report.Reads,
			Opens:       []string{capAdd + "CAP_NET_RAW", capAdd + "ALL"},
			Fix:         "drop NET_RAW; ping works by net.ipv4.ping_group_range",
			References:  []string{"packet(7)", "CVE-2020-14386"},
			observe: func(p *prober) {
				fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0 receives nothing
				if err == nil {
					unix.Close(fd)
				}
				p.add("socket(AF_PACKET, SOCK_RAW, 0)", "", err)
			},
			judge: func(v *view) outcome {
				calls := slices.Clone(v.calls())
				for n := range calls {
					if calls[n].Errno == "EAFNOSUPPORT" {
						calls[n].Errno = "ENOSYS"
					}
				}
				return attempts(calls)
			},
		},
		{
			ID: "capabilities.device-nodes", Door: "making device nodes", Expected: "mknod(2) of a device is refused",
			Enables:     "a node for any device, which the device cgroup alone then keeps shut",
			Consequence: report.Depth,
			Opens:       []string{capAdd + "CAP_MKNOD", capAdd + "ALL"},
			Fix:         "drop MKNOD",
			References:  []string{"mknod(2)"},
			observe:     observeMknod,
			judge:       refused,
		},
	}
}

// judgeStatus wants a field to have a value.
func judgeStatus(v *view, name, want string) outcome {
	e, ok := v.call(statusCall(name))
	switch {
	case !ok || e.Errno != "" || e.Value == "":
		return isUnclear(statusFile + " does not tell: " + e.Errno)
	case e.Value == want:
		return isShut(name + " " + e.Value)
	}
	return isOpen(name + " " + e.Value)
}

// nodeDirs are where a node is made, in the first that lets it. /dev is seldom nodev.
var nodeDirs = []string{"/tmp", "/dev/shm", "/", "/dev"}

func nodeName(dir, nonce string) string { return path.Join(dir, ".bulkhead-probe-"+nonce) }

// observeMknod makes /dev/null once more where something can be written, and
// removes it.
func observeMknod(p *prober) {
	const device = 1<<8 | 3
	for _, dir := range nodeDirs {
		name := nodeName(dir, p.targets.Nonce)
		err := unix.Mknod(name, unix.S_IFCHR|0o600, device)
		if err == nil {
			_ = unix.Unlink(name) // it was made a moment ago
		}
		p.add("mknod("+dir+", c 1:3)", "", err)
		if err == nil {
			return
		}
	}
}
