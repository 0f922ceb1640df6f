package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitProgram is where the guest has the program that workload.Spec.Init asks
// for, if its initramfs brought one.
const InitProgram = "/bin/bulkhead-init"

// boot makes the guest out of what the kernel started.
func boot() error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"make the root", makeRoot},
		{"mount", func() error { return mountAll(newRoot, mounts) }},
		{"load modules", loadModules},
		{"switch the root", switchRoot},
		{"mount", func() error { return mountAll("/", lateMounts) }},
		{"links in /dev", linkDevices},
		{"propagation", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }},
		{"cgroups", delegate},
		{"loopback", loopbackUp},
		{"host name", func() error { return unix.Sethostname([]byte("bulkhead")) }},
		{"kernel parameters", setParameters},
		{"limits", setLimits},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// linkDevices makes the names that udev makes.
func linkDevices() error {
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

const cgroups = "/sys/fs/cgroup"

// workloadCgroup is above the cgroups of all workloads.
const workloadCgroup = cgroups + "/bulkhead"

// AgentCgroup is for the agent in a whole system, whose init takes along what it
// finds in the root of the hierarchy.
const AgentCgroup = workloadCgroup + "/agent"

// controllers are those that limits and statistics need.
var controllers = []string{"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}

// maxThreads is how many processes and threads a guest may have, the kernel's
// PID_MAX_LIMIT. Those of workloads, all together, are fewer by agentThreads: a
// Go program that cannot make a thread ends, and the agent is one.
const (
	maxThreads   = 1 << 22
	agentThreads = 1 << 16
)

// delegate enables the controllers for the workloads' cgroups, of which the
// kernel may lack some: a limit that needs one then fails with its name. Our
// own processes stay in the root, which has no limits.
func delegate() error {
	b, err := os.ReadFile(cgroups + "/cgroup.controllers")
	if err != nil {
		return err
	}
	offered := strings.Fields(string(b))
	var enable []string
	for _, c := range controllers {
		if slices.Contains(offered, c) {
			enable = append(enable, "+"+c)
		}
	}
	if err := os.Mkdir(workloadCgroup, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{cgroups, workloadCgroup} {
		if err := os.WriteFile(dir+"/cgroup.subtree_control", []byte(strings.Join(enable, " ")), 0); err != nil {
			return err
		}
	}
	if !slices.Contains(offered, "pids") {
		return nil
	}
	err = os.WriteFile(workloadCgroup+"/pids.max", []byte(strconv.Itoa(maxThreads-agentThreads)), 0)
	if errors.Is(err, unix.EINVAL) {
		return nil // see setParameters
	}
	return err
}

// loopbackUp turns the loopback interface on: netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
}

// parameters are what systemd and Debian set on every host where the kernel's
// own default is weaker: links and FIFOs of others in sticky directories, and
// what the kernel's log and addresses tell.
//
// Some are limits for all together that the kernel derives from the size of
// memory, or that fit a desktop: one workload within its own limits would use them
// up for the others, and for the agent. Processes, and memory for files, are
// counted for each workload. overcommit_memory lets a program reserve more memory
// than there is, as it may on a host that is much larger than its limit: what it
// uses is what counts (Documentation/mm/overcommit-accounting.rst).
var parameters = [][2]string{
	{"fs/file-max", strconv.FormatInt(math.MaxInt64, 10)},
	{"fs/protected_hardlinks", "1"},
	{"fs/protected_symlinks", "1"},
	{"fs/protected_fifos", "1"},
	{"fs/protected_regular", "2"},
	{"kernel/dmesg_restrict", "1"},
	{"kernel/kptr_restrict", "1"},
	{"kernel/pid_max", strconv.Itoa(maxThreads)},
	{"kernel/threads-max", strconv.Itoa(maxThreads)},
	{"kernel/unprivileged_bpf_disabled", "1"},
	{"vm/max_map_count", "1048576"},
	{"vm/overcommit_memory", "1"},
}

// setParameters sets those that the kernel knows. A value that it has no room for,
// as one that was built for small machines (CONFIG_BASE_SMALL), leaves its own.
func setParameters() error {
	for _, p := range parameters {
		name := "/proc/sys/" + p[0]
		if err := os.WriteFile(name, []byte(p[1]), 0); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// setLimits raises what workloads inherit to what a container host gives: the
// kernel's own defaults depend on the size of memory.
func setLimits() error {
	const files = 1 << 20
	for _, l := range []struct {
		name       string
		resource   int
		soft, hard uint64
	}{
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, files, files},
		{"RLIMIT_NPROC", unix.RLIMIT_NPROC, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	} {
		// Not package unix's: this one also tells package syscall, which otherwise
		// gives children the limit that it found at start.
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.soft, Max: l.hard}); err != nil {
			return fmt.Errorf("set %s: %w", l.name, err)
		}
	}
	return nil
}
