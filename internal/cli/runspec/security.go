package runspec

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// seccompLimit bounds a seccomp profile; the largest in use are below 100 KB.
const seccompLimit = 1 << 20

// SecurityFlags are what widens or narrows the confinement, as typed.
type SecurityFlags struct {
	CapAdd, CapDrop []string
	SecurityOpt     []string
	SeccompReport   bool
	Sysctls         []string
	Privileged      bool
	UserNS, PID     string
	IPC, UTS        string
}

// security checks the flags and returns them resolved: capability names in full,
// a seccomp profile as its text.
func (f *SecurityFlags) security(host Host) (workload.Security, error) {
	s := workload.Security{SeccompReport: f.SeccompReport}
	var err error
	if s.CapAdd, err = parseCaps("--cap-add", f.CapAdd); err != nil {
		return s, err
	}
	if s.CapDrop, err = parseCaps("--cap-drop", f.CapDrop); err != nil {
		return s, err
	}
	for _, c := range s.CapAdd {
		if c != "ALL" && slices.Contains(s.CapDrop, c) {
			return s, bad("--cap-add", c, "also dropped by --cap-drop", "give one of the two")
		}
	}
	for _, opt := range f.SecurityOpt {
		if err := securityOption(&s, host, opt); err != nil {
			return s, err
		}
	}
	if s.SeccompReport && s.Seccomp == "unconfined" {
		return s, advice.New("--seccomp-report needs a seccomp profile, and seccomp is unconfined", "leave out one of the two")
	}
	s.Sysctls, err = f.sysctls()
	return s, err
}

// capabilities are all that capabilities(7) knows, by number.
var capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON
	BPF CHECKPOINT_RESTORE`)

// parseCaps returns full names, CAP_X or ALL, without repetition.
func parseCaps(flag string, all []string) ([]string, error) {
	var out []string
	for _, s := range all {
		for word := range strings.SplitSeq(s, ",") {
			name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(word)), "CAP_")
			full := "CAP_" + name
			switch {
			case name == "ALL":
				full = name
			case !slices.Contains(capabilities, name):
				return nil, bad(flag, word, "unknown capability", "names are those of capabilities(7), such as NET_RAW, or ALL")
			}
			if !slices.Contains(out, full) {
				out = append(out, full)
			}
		}
	}
	return out, nil
}

// securityOption applies one --security-opt.
func securityOption(s *workload.Security, host Host, opt string) error {
	const flag = "--security-opt"
	key, value, hasValue := strings.Cut(opt, "=")
	if !hasValue && key != "no-new-privileges" {
		key, value, hasValue = strings.Cut(opt, ":") // the older spelling
	}
	if key != "no-new-privileges" && value == "" && slices.Contains([]string{"seccomp", "apparmor", "unmask", "label", "mask", "systempaths"}, key) {
		return bad(flag, opt, "the value is missing", securityFix)
	}
	switch key {
	case "seccomp":
		return seccompProfile(s, host, value)
	case "apparmor":
		if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return bad(flag, opt, "not the name of an AppArmor profile", "names are listed by aa-status")
		}
		s.AppArmor = value
	case "no-new-privileges":
		switch {
		case !hasValue || value == "true":
			s.NewPrivileges = false
		case value == "false":
			s.NewPrivileges = true
		default:
			return bad(flag, opt, "neither true nor false", securityFix)
		}
	case "unmask":
		return unmask(s, opt, value)
	case "systempaths":
		if value != "unconfined" {
			return bad(flag, opt, "unknown value", "systempaths=unconfined is the only one")
		}
		s.Unmask = []string{"ALL"}
	case "label", "mask":
		return bad(flag, opt, fmt.Sprintf("%s is not available in this version", key), securityFix)
	default:
		return bad(flag, opt, "unknown option", securityFix)
	}
	return nil
}

const securityFix = "options are seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, no-new-privileges[=false] and unmask=ALL|PATH[:PATH]"

// seccompProfile reads the profile that value names. Its meaning is checked
// where it is compiled; here it must be a JSON object of a sane size.
func seccompProfile(s *workload.Security, host Host, value string) error {
	switch value {
	case "unconfined":
		s.Seccomp = value
		return nil
	case "default", "builtin":
		s.Seccomp = ""
		return nil
	}
	text, err := host.ReadFile(value, seccompLimit)
	if err != nil {
		return advice.Wrap(err, fmt.Sprintf("--security-opt seccomp: the profile %q cannot be read: %s", value, reason(err)), securityFix)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		return advice.Wrap(err, fmt.Sprintf("--security-opt seccomp: the profile %q is not a JSON object", value), "write it in the format of Docker's seccomp profiles")
	}
	if _, ok := object["defaultAction"]; !ok {
		return advice.New(fmt.Sprintf("--security-opt seccomp: the profile %q has no defaultAction", value), "write it in the format of Docker's seccomp profiles")
	}
	s.Seccomp = string(text)
	return nil
}

// unmask adds the paths of unmask=.
func unmask(s *workload.Security, opt, value string) error {
	for p := range strings.SplitSeq(value, ":") {
		if p != "ALL" && !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/") {
			return bad("--security-opt", opt, fmt.Sprintf("%q is not a path below /proc or /sys", p), "write unmask=ALL or unmask=/proc/acpi:/sys/firmware")
		}
		if p != "ALL" && path.Clean(p) != p {
			return bad("--security-opt", opt, fmt.Sprintf("%q is not a plain path", p), "write it without .. and doubled slashes")
		}
		if !slices.Contains(s.Unmask, p) {
			s.Unmask = append(s.Unmask, p)
		}
	}
	return nil
}

// namespaces reads --userns, --pid, --ipc and --uts.
func (f *SecurityFlags) namespaces() (workload.Namespaces, error) {
	var ns workload.Namespaces
	for _, n := range []struct {
		flag, value string
		host        *bool
	}{
		{"--userns", f.UserNS, &ns.HostUser}, {"--pid", f.PID, &ns.HostPID},
		{"--ipc", f.IPC, &ns.HostIPC}, {"--uts", f.UTS, &ns.HostUTS},
	} {
		switch n.value {
		case "", "private":
		case "host":
			*n.host = true
		default:
			return ns, bad(n.flag, n.value, "not available in this version", "give host, or private, which is the default")
		}
	}
	return ns, nil
}

// ipcSysctls are the kernel parameters that belong to an IPC namespace
// (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

// sysctls reads every --sysctl NAME=VALUE. Only parameters of the workload's own
// namespaces are let through: any other would change the host.
func (f *SecurityFlags) sysctls() (map[string]string, error) {
	const flag = "--sysctl"
	var out map[string]string
	for _, s := range f.Sysctls {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || strings.ContainsAny(value, "\x00\n") || value == "" {
			return nil, bad(flag, s, "not a parameter and a value", "write NAME=VALUE, such as net.core.somaxconn=1024")
		}
		name = strings.ReplaceAll(name, "/", ".")
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" || strings.Contains(name, "..") {
			return nil, bad(flag, s, "not the name of a kernel parameter", "write it as sysctl(8) does, such as net.core.somaxconn")
		}
		ipc := slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue.")
		switch {
		case ipc && f.IPC == "host":
			return nil, bad(flag, s, "with --ipc host it would change the host", "leave out one of the two")
		case name == "kernel.domainname" && f.UTS == "host":
			return nil, bad(flag, s, "with --uts host it would change the host", "leave out one of the two")
		case !ipc && name != "kernel.domainname" && !strings.HasPrefix(name, "net."):
			return nil, bad(flag, s, "not a parameter of a namespace: it would change the whole machine", "set it on the host, or run the workload in a virtual machine; net.*, fs.mqueue.* and the IPC parameters of kernel.* can be set")
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out, nil
}
