package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

const (
	uidMap   = "/proc/self/uid_map"
	hostsOwn = "the host's own"
)

func namespaceProbes() []Probe {
	return []Probe{
		namespace("pid", "--pid host", "the host's processes", "seeing, and with the right capabilities signalling and tracing, every process of the host", report.Reads,
			"docker: leave out --pid=host"),
		namespace("net", "--network host", "the host's network", "using the host's loopback, abstract sockets and interfaces", report.Reads,
			"docker: leave out --network=host"),
		namespace("ipc", "--ipc host", "the host's System V and POSIX shared memory", "reading and changing memory that others share", report.Reads,
			"docker: leave out --ipc=host"),
		namespace("uts", "--uts host", "the host's name", "reading the host's name, and with SYS_ADMIN changing it", report.Depth,
			"docker: leave out --uts=host"),
		namespace("user", "--userns host", "the host's user namespace", "being root of the host for every check that is not filtered otherwise", report.Depth,
			"docker: start the daemon with userns-remap; podman: --userns=auto"),
		namespace("cgroup", "", "the host's cgroup tree", "seeing the names of everything else that runs", report.Depth,
			"docker: leave out --cgroupns=host"),
		namespace("mnt", "", "the host's mounts", "reaching every file system of the host", report.Takeover,
			"run it in a container"),
		{
			ID: "namespaces.uid-map", Door: "root of the host", Expected: "user 0 inside is another user outside",
			Enables:     "acting as the host's root on whatever is reached",
			Consequence: report.Depth,
			Opens:       []string{"--userns host"},
			Fix:         "run it in a user namespace with an ID range of its own",
			References:  []string{"user_namespaces(7)", "CIS Docker 2.9"},
			observe: func(p *prober) {
				text, err := beginning(uidMap)
				p.add(readCall(uidMap), strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }), ", "), err)
			},
			judge: judgeUIDMap,
		},
		{
			ID: "namespaces.processes", Door: "processes of others", Expected: "no kernel thread in /proc",
			Enables:     "reading command lines and environments of the host's processes",
			Consequence: report.Reads,
			Opens:       []string{"--pid host", "--volume /proc:", "--volume /:"},
			Fix:         "run it in a pid namespace with a proc of its own",
			References:  []string{"pid_namespaces(7)", "CIS Docker 5.16"},
			observe:     observeThreads,
			judge: func(v *view) outcome {
				e, ok := v.call(kernelThread)
				switch {
				case !ok || e.Errno != "":
					return isUnclear("/proc cannot be read: " + e.Errno)
				case e.Value == noThread:
					return seenMounts(v, isShut(noThread))
				}
				out := isOpen(e.Value)
				out.points = []string{strings.TrimSuffix(e.Value, " is kthreadd")}
				return out
			},
		},
		{
			ID: "namespaces.shared-memory", Door: "a System V segment of the host", Expected: "the segment that was put up on the host is not there",
			Enables:     "reading and changing memory of the host's programs",
			Consequence: report.Reads, beyond: true,
			Opens:      []string{"--ipc host"},
			Fix:        "run it in an IPC namespace of its own",
			References: []string{"sysvipc(7)", "CIS Docker 5.17"},
			observe: func(p *prober) {
				if p.targets.ShmKey == 0 {
					return
				}
				// Neither creates nor attaches: it looks the key up.
				id, err := unix.SysvShmGet(int(p.targets.ShmKey), 0, 0)
				p.add("shmget(the host's key)", strconv.Itoa(id), err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call("shmget(the host's key)")
				switch {
				case v.context.Targets.ShmKey == 0:
					return isUnclear("no segment was put up on the host to look for: give --context with one")
				case ok && (e.Errno == "EACCES" || e.Errno == "EINVAL"):
					return isOpen("the segment is there: " + e.Errno)
				}
				return refused(v)
			},
		},
		{
			ID: "namespaces.hostname", Door: "changing the host's name", Expected: "sethostname(2) is refused, or names the workload alone",
			Enables:     "renaming the host under its services",
			Consequence: report.Disturbs,
			Opens:       []string{"--uts host"},
			Fix:         "run it in a UTS namespace of its own, without SYS_ADMIN",
			References:  []string{"sethostname(2)", "CIS Docker 5.21"},
			observe: func(p *prober) {
				// The length is checked after the permission: EINVAL means allowed.
				p.add(negativeHostname, "", setNoHostname())
			},
			judge: func(v *view) outcome {
				e, ok := v.call(negativeHostname)
				switch {
				case !ok:
					return isUnclear("it was not tried")
				case e.Errno != "EINVAL":
					return refused(v)
				}
				return all(isOpen("sethostname is allowed"), v.of("namespaces.uts"))
			},
		},
	}
}

const negativeHostname = "sethostname(NULL, -1)"

// namespace is the probe that the workload has one of a kind of its own.
func namespace(kind, flag, door, enables string, c report.Consequence, fix string) Probe {
	p := Probe{
		ID: "namespaces." + kind, Door: door, Expected: "a " + kind + " namespace of its own", Enables: enables, Consequence: c,
		Fix: fix, References: []string{"namespaces(7)"}, share: door,
		observe: func(p *prober) { p.link("/proc/self/ns/" + kind) },
		judge:   func(v *view) outcome { return judgeNamespace(v, kind) },
	}
	if kind == "mnt" {
		p.Expected = "a mount namespace of its own"
	}
	if flag != "" {
		p.Opens = []string{flag}
	}
	return p
}

// judgeNamespace compares with the host's, and with the numbers that the kernel's
// first namespaces have on every machine.
func judgeNamespace(v *view, kind string) outcome {
	e, ok := v.call(linkCall("/proc/self/ns/" + kind))
	n, good := inode(e.Value)
	own := ownKernel(v.context, v.all)
	if ok && e.Errno == "ENOENT" && kind == "cgroup" && own {
		return isAbsent("the workload's own kernel has no cgroup namespaces, and no cgroup of the host is in it")
	}
	if !ok || e.Errno != "" || !good {
		return isUnclear(fmt.Sprintf("/proc/self/ns/%s cannot be read: %s", kind, e.Errno))
	}
	if h := v.context.Host; h != nil && !own && h.Namespaces[kind] != 0 {
		if n == h.Namespaces[kind] {
			return isOpen(fmt.Sprintf("%s, %d", hostsOwn, n))
		}
		return isShut(fmt.Sprintf("%d, the host has %d", n, h.Namespaces[kind]))
	}
	switch {
	case slices.Contains(initialNamespaces[kind], n):
		return isOpen(fmt.Sprintf("the kernel's first one, %d", n))
	case kind == "net" && !own && !atLeast(v.kernel, 6, 18):
		// Before, the first one's number is not fixed.
		return isUnclear(fmt.Sprintf("nobody told the host's number: %d may be it", n))
	}
	return isShut(strconv.FormatUint(n, 10))
}

func judgeUIDMap(v *view) outcome {
	if e, ok := v.host(SeenUIDMap); ok {
		root, good := mapsRoot(e.Value)
		switch {
		case e.Errno != "" || !good:
			return isUnclear("the host cannot read the ID map: " + first(e.Value, e.Errno))
		case root:
			return isOpen("user 0 of the host is in the ID map, as the host sees it")
		}
		return isShut("the host sees user 0 as another: " + strings.Join(strings.Fields(e.Value), " "))
	}
	e, ok := v.call(readCall(uidMap))
	root, good := mapsRoot(e.Value)
	switch {
	case !ok || e.Errno != "" || !good:
		return isUnclear("/proc/self/uid_map cannot be read: " + first(e.Errno, e.Value, "it is empty"))
	case root:
		return isOpen("user 0 outside is in the ID map: " + strings.Join(strings.Fields(e.Value), " "))
	}
	return isShut(idRanges(e.Value))
}

// idRanges are the ranges of an ID map in words.
func idRanges(text string) string {
	var words []string
	for part := range strings.SplitSeq(text, ",") {
		if f := strings.Fields(part); len(f) == 3 {
			words = append(words, "user "+f[0]+" is user "+f[1]+" outside")
		}
	}
	return list(words)
}

const (
	kernelThread = "readdir(/proc)"
	noThread     = "no kernel thread"
)

// observeThreads looks for kthreadd, the parent of the kernel's threads, which is
// process 2 of the first pid namespace and of no other, in every procfs that is mounted.
func observeThreads(p *prober) {
	if _, err := beginning("/proc/self/stat"); err != nil {
		p.add(kernelThread, "", err)
		return
	}
	list, whole, merr := mounts()
	var failed error
	for _, point := range wholeProcs(list) {
		found, err := kthreaddAt(point)
		if found != "" {
			p.add(kernelThread, found, nil)
			return
		}
		if err != nil {
			failed = err
		}
	}
	p.addMounts(whole, merr)
	p.add(kernelThread, noThread, failed)
}

// atLeast compares a kernel's release with a version.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, err := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 || err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
