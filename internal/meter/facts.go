package meter

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// Facts are what the environment says of itself. What cannot be read is empty.
type Facts struct {
	// Those of uname(2).
	Sysname string `json:"sysname"`
	Release string `json:"release"`
	Version string `json:"version"`
	Machine string `json:"machine"`
	// OS is PRETTY_NAME of os-release(5).
	OS string `json:"os,omitempty"`
	// Init is the name of process 1, PID the number of this one.
	Init string `json:"init,omitempty"`
	PID  int    `json:"pid"`
	// Namespaces are the links in /proc/self/ns by their names.
	Namespaces map[string]string `json:"namespaces,omitempty"`
	// Those of proc_pid_status(5): the mode of seccomp, "1" where no_new_privs is in
	// force, and the effective capabilities in hexadecimal.
	Seccomp      string `json:"seccomp,omitempty"`
	NoNewPrivs   string `json:"noNewPrivs,omitempty"`
	Capabilities string `json:"capabilities,omitempty"`
	// UIDMap is the first line of /proc/self/uid_map: inside, outside, length.
	UIDMap string `json:"uidMap,omitempty"`
	// Label is that of the Linux security module.
	Label string `json:"label,omitempty"`
	// Memory is in bytes, and what of it is available.
	Memory    int64 `json:"memory,omitempty"`
	Available int64 `json:"available,omitempty"`
	// Processors are those that this process may run on, CPU is their model.
	Processors int    `json:"processors,omitempty"`
	CPU        string `json:"cpu,omitempty"`
	BootID     string `json:"bootID,omitempty"`
	// Hypervisor tells that the processor says it is a virtual one.
	Hypervisor bool `json:"hypervisor,omitempty"`
}

// Look finds the facts of this process's own environment.
func Look() Facts { return look("") }

// look finds the facts. The paths are below root, "" for this process's.
func look(root string) Facts {
	f := Facts{PID: os.Getpid(), Namespaces: map[string]string{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		for to, from := range map[*string][]byte{&f.Sysname: u.Sysname[:], &f.Release: u.Release[:], &f.Version: u.Version[:], &f.Machine: u.Machine[:]} {
			*to = clean(unix.ByteSliceToString(from))
		}
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		f.Processors = set.Count()
	}
	read := func(path string) string { return beginning(root + path) }
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if f.OS = unquote(value(read(path), "PRETTY_NAME=")); f.OS != "" {
			break
		}
	}
	names, _ := os.ReadDir(root + "/proc/self/ns")
	for _, e := range names[:min(len(names), maxNamespaces)] {
		if link, err := os.Readlink(filepath.Join(root, "/proc/self/ns", e.Name())); err == nil {
			f.Namespaces[clean(e.Name())] = clean(link)
		}
	}
	status, memory, cpu := read("/proc/self/status"), read("/proc/meminfo"), read("/proc/cpuinfo")
	f.Init, f.UIDMap = first(read("/proc/1/comm")), first(read("/proc/self/uid_map"))
	f.Label, f.BootID = first(read("/proc/self/attr/current")), first(read("/proc/sys/kernel/random/boot_id"))
	f.Seccomp, f.NoNewPrivs, f.Capabilities = value(status, "Seccomp:"), value(status, "NoNewPrivs:"), value(status, "CapEff:")
	f.Memory, f.Available = kibibytes(value(memory, "MemTotal:")), kibibytes(value(memory, "MemAvailable:"))
	f.CPU = after(value(cpu, "model name"), ":")
	f.Hypervisor = strings.Contains(" "+value(cpu, "flags")+" ", " hypervisor ")
	return f
}

// beginning are the first 64 KiB of a file, "" if there are none.
func beginning(path string) string {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	b, _ := io.ReadAll(io.LimitReader(file, 64<<10)) // what came before an error counts
	return string(b)
}

// first is the first line, with single spaces.
func first(text string) string {
	l, _, _ := strings.Cut(text, "\n")
	return clean(strings.Join(strings.Fields(strings.TrimRight(l, "\x00")), " "))
}

// value is what follows name at the beginning of a line.
func value(text, name string) string {
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func after(s, sep string) string {
	_, rest, _ := strings.Cut(s, sep)
	return first(rest)
}

// unquote takes the quotes of os-release(5) away.
func unquote(s string) string {
	if s = clean(s); len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

func kibibytes(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(s, " kB"), 10, 64)
	if err != nil || n < 0 || n > 1<<50 {
		return 0
	}
	return n << 10
}

func (f *Facts) check() error {
	if len(f.Namespaces) > maxNamespaces || f.PID < 0 || f.Memory < 0 || f.Available < 0 || f.Processors < 0 {
		return fmt.Errorf("%w: a fact that cannot be", report.ErrMalformed)
	}
	for name, link := range f.Namespaces {
		if err := checkTexts(name, link); err != nil {
			return err
		}
	}
	return checkTexts(f.Sysname, f.Release, f.Version, f.Machine, f.OS, f.Init, f.Seccomp, f.NoNewPrivs, f.Capabilities, f.UIDMap, f.Label, f.CPU, f.BootID)
}

// Load is the load average over one, five and fifteen minutes (proc_loadavg(5)).
func Load() string {
	f := strings.Fields(beginning("/proc/loadavg"))
	if len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// CgroupLayout is which versions of control groups are mounted: "v1", "v2", or
// "v1 and v2 mixed" (cgroups(7)).
func CgroupLayout() string {
	if unix.Access("/sys/fs/cgroup/cgroup.controllers", unix.F_OK) == nil {
		return "v2"
	}
	if strings.Contains(beginning("/proc/self/mounts"), " cgroup2 ") {
		return "v1 and v2 mixed"
	}
	return "v1"
}
