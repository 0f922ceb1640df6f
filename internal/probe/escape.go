package probe

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// escape is a conjunction of other probes' doors, which together let a workload
// out. Nothing is attempted.
func escape(id, door, enables string, opens []string, fix string, references string, judge func(*view) outcome) Probe {
	return Probe{
		ID: "escape." + id, Door: door, Expected: "at least one of its preconditions is missing", Enables: enables, Consequence: report.Takeover,
		Opens: opens, Fix: fix, References: strings.Split(references, "; "), judge: judge,
	}
}

func escapeProbes() []Probe {
	return []Probe{
		escape("release-agent", "a release agent that is mounted by oneself", "having the kernel run a program of one's own as root of the host",
			[]string{capAdd + "CAP_SYS_ADMIN", capAdd + "ALL", "--userns host", "--security-opt seccomp"},
			"drop SYS_ADMIN", "CVE-2022-0492", func(v *view) outcome {
				return all(v.holds("SYS_ADMIN"), v.of("syscalls.mount"), v.of("escape.cgroup-v1"))
			}),
		{
			ID: "escape.cgroup-v1", Door: "cgroups of version 1 in the kernel", Expected: "a kernel without them, or no SYS_ADMIN to mount them with",
			Enables:     "release agents, with SYS_ADMIN",
			Consequence: report.Depth,
			Opens:       []string{capAdd + "CAP_SYS_ADMIN", capAdd + "ALL"},
			Fix:         "drop SYS_ADMIN",
			References:  []string{"cgroups(7)"},
			observe: func(p *prober) {
				text, err := beginning("/proc/filesystems")
				value := "no cgroup"
				if strings.Contains(text, "\tcgroup\n") {
					value = "cgroup"
				}
				p.add("read(/proc/filesystems)", value, err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call("read(/proc/filesystems)")
				switch {
				case !ok || e.Errno != "":
					return isUnclear("it cannot be read: " + e.Errno)
				case e.Value != "cgroup":
					return isShut(e.Value)
				}
				return all(v.holds("SYS_ADMIN"), isOpen("the kernel has cgroups of version 1"))
			},
		},
		escape("modules", "code in the host's kernel", "loading a module",
			[]string{capAdd + "CAP_SYS_MODULE", capAdd + "ALL", "--userns host", "--security-opt seccomp"},
			"drop SYS_MODULE", "capabilities(7)", func(v *view) outcome { return all(v.holds("SYS_MODULE"), v.of("syscalls.modules")) }),
		escape("file-handles", "any file of the host by its handle", "opening files outside of every mount (the \"shocker\" of 2014)",
			[]string{capAdd + "CAP_DAC_READ_SEARCH", capAdd + "ALL", "--userns host", "--security-opt seccomp"},
			"drop DAC_READ_SEARCH", "open_by_handle_at(2)", func(v *view) outcome { return all(v.holds("DAC_READ_SEARCH"), v.of("syscalls.file-handles")) }),
		escape("bpf", "programs in the host's kernel", "reading and changing the kernel's memory",
			[]string{capAdd + "CAP_BPF", capAdd + "CAP_SYS_ADMIN", capAdd + "ALL", "--userns host", "--security-opt seccomp"},
			"drop BPF and SYS_ADMIN", "bpf(2)", func(v *view) outcome { return all(v.holds("BPF", "SYS_ADMIN"), v.of("syscalls.bpf")) }),
		escape("hardware", "the host's hardware", "reaching memory through I/O ports and devices",
			[]string{capAdd + "CAP_SYS_RAWIO", capAdd + "ALL", "--userns host", "--security-opt seccomp"},
			"drop SYS_RAWIO", "iopl(2)", func(v *view) outcome {
				return all(v.holds("SYS_RAWIO"), either(v.of("syscalls.io-ports"), v.of("devices.kernel")))
			}),
		escape("clock", "the host's clock", "changing the time, and with it certificates and logs, of everybody",
			[]string{capAdd + "CAP_SYS_TIME", capAdd + "ALL", "--userns host", "--security-opt seccomp"},
			"drop SYS_TIME", "settimeofday(2)", func(v *view) outcome { return all(v.holds("SYS_TIME"), v.of("syscalls.clock")) }),
		ownDisks(),
		{
			ID: "escape.processes", Door: "a process of the host", Expected: "no process with another root can be entered",
			Enables:     "reading and writing the host's files, and running code in its processes",
			Consequence: report.Takeover,
			Opens:       []string{"--pid host", capAdd + "CAP_SYS_PTRACE", capAdd + "ALL", "--userns host"},
			Fix:         "run it in a pid namespace of its own, drop SYS_PTRACE",
			References:  []string{"ptrace(2)"},
			observe:     observeRoots,
			judge: func(v *view) outcome {
				return judgeRoots(v)
			},
		},
	}
}

// ownDisks is a conjunction, too, with an attempt: what the device cgroup says of
// disks that have no node yet.
func ownDisks() Probe {
	p := escape("disks", "a disk of the host by a node of one's own", "reading and changing every file of the host",
		[]string{capAdd + "CAP_MKNOD", capAdd + "ALL", "--userns host", deviceFlag},
		"drop MKNOD, and leave block devices out", "mknod(2); access(2)", func(v *view) outcome {
			return all(v.of("capabilities.device-nodes"), either(v.of("devices.disks"), judgeOwnDisks(v)))
		})
	p.observe = observeOwnDisks
	return p
}

const partitions = "/proc/partitions"

// observeOwnDisks makes a node for each disk of the kernel's list, asks whether it could
// be read or written, and removes it. access(2) asks the device cgroup as open(2) does, and opens
// nothing.
func observeOwnDisks(p *prober) {
	const most = 16
	text, err := beginning(partitions)
	p.add(readCall(partitions), "", err)
	tried := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // major minor #blocks name
		if len(f) != 4 || tried == most {
			continue
		}
		major, err := strconv.ParseUint(f[0], 10, 12)
		minor, err2 := strconv.ParseUint(f[1], 10, 20)
		if err != nil || err2 != nil {
			continue // the headings
		}
		tried++
		dir, value, err := askNode(nodeDirs, p.targets.Nonce, unix.Mkdev(uint32(major), uint32(minor)))
		p.add("mknod("+dir+", b "+f[0]+":"+f[1]+") and access(2)", value, err)
	}
}

// onNodev is said of a node that the device cgroup would let be opened and the mount
// that it is on would not.
const onNodev = "on a mount that is nodev"

// askNode makes the node of a block device in one of some places after the other, and
// asks whether it could be read or written. access(2) does not look whether the mount is
// nodev.
func askNode(places []string, nonce string, device uint64) (place, value string, err error) {
	for _, dir := range places {
		name := nodeName(dir, nonce)
		made := unix.Mknod(name, unix.S_IFBLK|0o600, int(device))
		if made != nil {
			// Of places without nodes one that refuses them says more than one that cannot
			// be written to. It may be that its file system has none.
			if value == "" && err != unix.EPERM { //nolint:errorlint // a bare error number: no better elsewhere
				place, err = dir, made
			}
			continue
		}
		var asked error
		for _, mode := range []uint32{unix.R_OK, unix.W_OK} {
			if asked = unix.Faccessat(unix.AT_FDCWD, name, mode, 0); asked == nil {
				break
			}
		}
		_ = unix.Unlink(name) // it was made a moment ago
		_, flags, _, ferr := fileSystem(dir)
		if asked != nil || ferr == nil && flags&unix.ST_NODEV == 0 {
			return dir, "", asked
		}
		place, value, err = dir, onNodev, unix.EACCES
	}
	return place, value, err
}

// judgeOwnDisks judges whether the device cgroup lets any disk be opened.
func judgeOwnDisks(v *view) outcome {
	e, ok := v.call(readCall(partitions))
	if !ok || e.Errno != "" {
		return isUnclear("no disk has a node, and which there are cannot be read: " + e.Errno)
	}
	var tried []report.Evidence
	nodev := false
	for _, e := range v.calls() {
		if !strings.HasPrefix(e.Call, "mknod(") {
			continue
		}
		nodev = nodev || e.Value == onNodev
		if e.Errno != "" && e.Errno != "EPERM" && e.Errno != "EACCES" {
			return isUnclear("no node of a disk can be made to ask the device cgroup about it: " + e.Errno)
		}
		tried = append(tried, e)
	}
	if len(tried) == 0 {
		return isUnclear("no disk is there to ask the device cgroup about")
	}
	out := attempts(tried)
	if out.state == shut && nodev {
		return isUnclear("the device cgroup lets a disk be opened, and nodes could be made on mounts alone that are nodev; not every mount was tried")
	}
	return out
}

const ownRoot = "all have this root"

// rootsCall is the evidence of all processes of one procfs.
func rootsCall(point string) string { return "stat(" + path.Join(point, "PID/root") + ")" }

// observeRoots looks for a process with another root directory. Following the link
// is what the rules of ptrace(2) allow or refuse. The host's procfs has the same
// processes wherever it is mounted.
func observeRoots(p *prober) {
	list, whole, err := mounts()
	p.lookAtRoots(wholeProcs(list), 1<<16)
	p.addMounts(whole, err)
}

// lookAtRoots looks at as many processes of each procfs at most, and at as many of them
// as evidence has room for.
func (p *prober) lookAtRoots(points []string, most int) {
	const mostPoints = maxCalls - 1
	cut := len(points) > mostPoints
	for _, point := range points[:min(len(points), mostPoints)] {
		list, err := os.ReadDir(point)
		if err != nil {
			p.add(rootsCall(point), "", err)
			continue
		}
		var pids []string
		for _, d := range list {
			if _, err := strconv.Atoi(d.Name()); err == nil {
				pids = append(pids, d.Name())
			}
		}
		if p.otherRoots(point, pids[:min(len(pids), most)]) {
			return
		}
		cut = cut || len(pids) > most
	}
	if cut {
		p.trouble("more than %d processes, or more than %d mounts of procfs, were not all looked at", most, mostPoints)
	}
}

// otherRoots looks whether one of the processes has another root directory than ours,
// and writes down the first that has, or what came of all.
func (p *prober) otherRoots(point string, pids []string) (found bool) {
	var own, other unix.Stat_t
	if err := unix.Stat("/", &own); err != nil {
		p.add(rootsCall(point), "", err)
		return false
	}
	var refused error
	for _, pid := range pids {
		root := path.Join(point, pid, "root") + "/"
		switch err := unix.Stat(root, &other); {
		case err == unix.ENOENT || err == unix.ESRCH: //nolint:errorlint // bare error numbers: it has ended, or is a kernel thread
		case err != nil:
			refused = err
		case own.Dev != other.Dev || own.Ino != other.Ino:
			p.add(rootsCall(point), root, nil)
			return true
		}
	}
	if refused != nil {
		p.add(rootsCall(point), "", refused)
	} else {
		p.add(rootsCall(point), ownRoot, nil)
	}
	return false
}

// judgeRoots judges what lookAtRoots found.
func judgeRoots(v *view) outcome {
	out := isUnclear("no process can be looked at")
	for _, e := range v.calls() {
		switch {
		case !strings.HasPrefix(e.Call, "stat("):
		case e.Errno != "" && !slices.Contains(refusals, e.Errno):
			return isUnclear("no process can be looked at: " + e.Errno)
		case e.Errno == "" && e.Value != ownRoot:
			// In a pid namespace of its own, what has another root is its own, too.
			out := all(isOpen("the root of a process: "+e.Value), either(v.of("namespaces.pid"), v.of("namespaces.processes")))
			out.points = []string{e.Value}
			return out
		case out.state == unclear:
			out = isShut(first(e.Errno, ownRoot))
		}
	}
	if out.state == shut {
		return seenMounts(v, out)
	}
	return out
}
