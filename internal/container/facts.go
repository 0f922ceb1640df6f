package container

import (
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/nofile"
)

// facts are the abilities of the running kernel that are younger than the
// baseline, Linux 6.1.
type facts struct {
	// overlayFDs: overlay takes its lower layers by descriptor, FSCONFIG_SET_FD
	// of lowerdir+ (Linux 6.13). Otherwise the mount is made by mount(2) from
	// layers that are attached first.
	overlayFDs bool
	// procPidns: proc takes its pid namespace by descriptor (Linux 6.17).
	// Otherwise a child inside the namespace makes the mount.
	procPidns bool
	// lastCapability is the highest one that the kernel knows.
	lastCapability int
	// ignored are the signals that this process ignores: its caller's doing
	// (nohup) or its own.
	ignored []unix.Signal
	// blocked: it also has blocked signals, which its children inherit.
	blocked bool
	// softFiles and hardFiles are RLIMIT_NOFILE as this program was started
	// with; 0 if unknown.
	softFiles, hardFiles uint64
	// cgroups are the hierarchies that are mounted.
	cgroups *cgroup.Layout
	// host opens a directory of the host for looking.
	host func(dir string) (dirTree, error)
}

// readFacts asks the kernel.
func readFacts() (facts, error) {
	f := execFacts()
	f.overlayFDs = takesFD("overlay", "lowerdir+", "/")
	f.procPidns = takesFD("proc", "pidns", "/proc/self/ns/pid")
	var err error
	f.cgroups, err = cgroup.Detect()
	return f, err
}

// execFacts are those that exec needs.
func execFacts() facts {
	ignored, blocked := inheritedSignals()
	return facts{
		lastCapability: lastCapability(), ignored: ignored, blocked: blocked, softFiles: nofile.Soft, hardFiles: nofile.Hard, host: openTree,
	}
}

// openTree opens a directory, or a file, for looking.
func openTree(dir string) (dirTree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return dirTree{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return dirTree{fd, dir}, nil
}

// inheritedSignals reads the fields SigIgn and SigBlk of proc_pid_status(5).
func inheritedSignals() (ignored []unix.Signal, blocked bool) {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil, true // to be undone in any case
	}
	var mask uint64
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "SigIgn:"); ok {
			mask, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
		if hex, ok := strings.CutPrefix(line, "SigBlk:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			blocked = set != 0 || err != nil
		}
	}
	for n := range 64 {
		if mask&(1<<n) != 0 {
			ignored = append(ignored, unix.Signal(n+1))
		}
	}
	return ignored, blocked
}

// signalName is the name of a signal, or its number where it has none.
func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return strconv.Itoa(int(s))
}

// lastCapability asks for the bounding set until there is no such capability.
func lastCapability() int {
	return sort.Search(64, func(n int) bool {
		_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		return err != nil
	}) - 1
}

// takesFD reports whether a file system knows an option and takes it by
// descriptor. Where it could not tell it says no: the older way always works.
func takesFD(fstype, option, path string) bool {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fs)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.FsconfigSetFd(fs, option, fd) == nil
}
