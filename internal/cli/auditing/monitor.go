package auditing

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Monitor looks at the process that runs a machine: the child of its supervisor
// that is QEMU. Its user's ID is returned, too.
func Monitor(supervisor int) (audit.Said[audit.Monitor], uint32) {
	unknown := func(why string) (audit.Said[audit.Monitor], uint32) {
		return audit.Said[audit.Monitor]{Why: why}, 0
	}
	pid, err := findMonitor(supervisor)
	if err != nil {
		return unknown(err.Error())
	}
	dir := fmt.Sprintf("/proc/%d", pid)
	fields, err := status(dir)
	if err != nil {
		return unknown(err.Error())
	}
	uid, err := strconv.ParseUint(first(fields["Uid"]), 10, 32)
	if err != nil {
		return unknown(dir + "/status has no user")
	}
	var own, host syscall.Stat_t
	if err := syscall.Stat(dir+"/root/", &own); err != nil {
		return unknown(fmt.Sprintf("its root directory: %v", err))
	}
	if err := syscall.Stat("/", &host); err != nil {
		return unknown(err.Error())
	}
	m := audit.Monitor{Root: uid == 0, Filtered: fields["Seccomp"] == "2", Jailed: own.Dev != host.Dev || own.Ino != host.Ino}
	return audit.Said[audit.Monitor]{Value: m, Known: true, From: []report.Evidence{
		{Call: dir + "/status", Value: fmt.Sprintf("Uid %d, Seccomp %s", uid, fields["Seccomp"])},
		{Call: "stat(" + dir + "/root)", Value: fmt.Sprintf("inode %d, the host's root %d", own.Ino, host.Ino)},
	}}, uint32(uid)
}

// findMonitor looks for QEMU among the children of a process.
func findMonitor(parent int) (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		fields, err := status(dir)
		if err != nil || fields["PPid"] != strconv.Itoa(parent) || !strings.HasPrefix(fields["Name"], "qemu") {
			continue
		}
		return strconv.Atoi(filepath.Base(dir))
	}
	return 0, fmt.Errorf("no QEMU is a child of the supervisor, process %d", parent)
}

// status reads /proc/PID/status.
func status(dir string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		name, value, _ := strings.Cut(line, ":")
		out[name] = strings.TrimSpace(value)
	}
	return out, nil
}

func first(s string) string {
	s, _, _ = strings.Cut(s, "\t")
	return s
}
