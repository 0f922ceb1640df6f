package runspec

import (
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// defaultStopTimeout is that of --stop-timeout, in seconds.
const defaultStopTimeout = 10

// defaultShm is that of --shm-size.
const defaultShm = "64m"

// Options are the flags of run and create as typed. AddFlags binds them.
type Options struct {
	Name, Entrypoint       string
	EntrypointSet          bool // --entrypoint was given, maybe empty
	Interactive, TTY       bool
	Remove, ReadOnly, Init bool
	Env, EnvFiles, Labels  []string
	LabelFiles, GroupAdd   []string
	Volumes, Mounts, Tmpfs []string
	VolumesFrom            []string
	ImageVolume            string
	Workdir, User          string
	Network                NetworkFlags
	Hostname               string
	Pull, Platform         string
	Boundary               string
	Runtime                string
	StopSignal             string
	StopTimeout            int
	stopTimeout            *pflag.Flag // which knows whether it was given, nil without flags
	Devices, Ulimits       []string
	Resources              ResourceFlags
	Security               SecurityFlags
	VM                     VMFlags
	Lifecycle              LifecycleFlags
}

// AddFlags binds every flag of run and create to o.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.SortFlags = true
	o.addProcessFlags(fs)
	o.addFileFlags(fs)
	o.addLimitFlags(fs)
	o.addSecurityFlags(fs)
	o.Network.AddFlags(fs)
	o.VM.AddFlags(fs)
	o.Lifecycle.AddFlags(fs)
	fs.StringVar(&o.VM.Tenant, "tenant", "", "run in the machine of a tenant, by its `name`; implies --boundary vm")
	fs.BoolVar(&o.VM.System, "systemd", false, "boot the image's own init as the guest's first process: a whole system; with --boundary vm")
}

func (o *Options) addProcessFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Name, "name", "", "`name` of the workload (default: a random one)")
	fs.BoolVarP(&o.Interactive, "interactive", "i", false, "keep standard input open")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "give the workload a terminal")
	fs.BoolVar(&o.Remove, "rm", false, "remove the workload when it has ended")
	fs.BoolVar(&o.Init, "init", false, "run a small first process that forwards signals and reaps children")
	fs.StringArrayVarP(&o.Env, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME for your own value")
	fs.StringArrayVar(&o.EnvFiles, "env-file", nil, "read variables from a `file`, one NAME=VALUE a line")
	fs.StringArrayVarP(&o.Labels, "label", "l", nil, "attach `KEY=VALUE` for your own use")
	fs.StringArrayVar(&o.LabelFiles, "label-file", nil, "read labels from a `file`, one KEY=VALUE a line")
	fs.StringArrayVar(&o.GroupAdd, "group-add", nil, "give the process another group, by its `number`")
	fs.StringVarP(&o.Workdir, "workdir", "w", "", "working `directory` inside")
	fs.StringVarP(&o.User, "user", "u", "", "run as `USER[:GROUP]`, names or numbers inside")
	fs.Bool("help", false, "help for this command") // before cobra takes -h for it, which Docker has for --hostname
	fs.StringVarP(&o.Hostname, "hostname", "h", "", "host `name` inside (default: the short ID)")
	fs.StringVar(&o.Entrypoint, "entrypoint", "", "run this `program` instead of the image's entrypoint; \"\" for none")
	fs.StringVar(&o.Pull, "pull", "missing", "when to pull the image: `policy` always, missing or never")
	fs.StringVar(&o.Platform, "platform", "", "choose an image of this `OS/ARCH[/VARIANT]`")
	fs.StringVar(&o.Boundary, "boundary", "", "what isolates the workload, a `boundary`: container (default), gvisor or vm")
	fs.StringVar(&o.Runtime, "runtime", "", "let a registered OCI runtime make the workload, by its `name`; see bulkhead runtime")
	fs.StringVar(&o.StopSignal, "stop-signal", "", "`signal` that stop sends (default: the image's, or SIGTERM)")
	fs.IntVar(&o.StopTimeout, "stop-timeout", defaultStopTimeout, "`seconds` from the stop signal to SIGKILL; -1 waits without end")
	o.stopTimeout = fs.Lookup("stop-timeout")
}

func (o *Options) addFileFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.ReadOnly, "read-only", false, "make the root file system read-only")
	fs.StringArrayVarP(&o.Volumes, "volume", "v", nil, "mount a host directory or a volume: `SOURCE:TARGET[:OPTIONS]`, or TARGET alone for a volume of its own")
	fs.StringArrayVar(&o.Mounts, "mount", nil, "mount by `FIELDS`: type=bind,src=…,dst=…[,ro], type=volume,src=…,dst=… or type=tmpfs,dst=…")
	fs.StringArrayVar(&o.VolumesFrom, "volumes-from", nil, "mount what another `WORKLOAD[:ro]` has mounted at the same places")
	fs.StringVar(&o.ImageVolume, "image-volume", imageVolumes[0], "what the directories that the image declares with VOLUME become, a `kind`: anonymous (a volume each), tmpfs or ignore")
	fs.StringArrayVar(&o.Tmpfs, "tmpfs", nil, "mount an empty file system in memory: `TARGET[:OPTIONS]`")
	fs.StringArrayVar(&o.Devices, "device", nil, "make a host device usable: `DEVICE[:TARGET][:rwm]`")
	fs.StringVar(&o.Resources.ShmSize, "shm-size", defaultShm, "`size` of /dev/shm")
}

func (o *Options) addLimitFlags(fs *pflag.FlagSet) {
	r := &o.Resources
	fs.StringVarP(&r.Memory, "memory", "m", "", "limit of memory as a `size`, such as 512m")
	fs.StringVar(&r.MemorySwap, "memory-swap", "", "limit of memory and swap together as a `size`, by default twice --memory; -1 for any swap")
	fs.StringVar(&r.MemoryReservation, "memory-reservation", "", "`size` of memory that is protected from being reclaimed")
	fs.StringVar(&r.CPUs, "cpus", "", "limit of processor time as a `number` of processors, such as 1.5")
	fs.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "relative `share` of busy processors, 2 to 262144 (default 1024)")
	fs.StringVar(&r.CpusetCPUs, "cpuset-cpus", "", "processors that may be used, as a `list` such as 0-3,7")
	fs.StringVar(&r.CpusetMems, "cpuset-mems", "", "memory nodes that may be used, as a `list` such as 0")
	fs.Int64Var(&r.PidsLimit, "pids-limit", DefaultPids, "limit of the `number` of processes and threads; -1 for none")
	fs.Int64Var(&r.BlkioWeight, "blkio-weight", 0, "relative `weight` of disk access, 10 to 1000")
	fs.StringArrayVar(&r.ReadBPS, "device-read-bps", nil, "limit reading to `DEVICE:SIZE` a second")
	fs.StringArrayVar(&r.WriteBPS, "device-write-bps", nil, "limit writing to `DEVICE:SIZE` a second")
	fs.StringArrayVar(&r.ReadIOPS, "device-read-iops", nil, "limit reads to `DEVICE:NUMBER` a second")
	fs.StringArrayVar(&r.WriteIOPS, "device-write-iops", nil, "limit writes to `DEVICE:NUMBER` a second")
	fs.StringVar(&r.OOMScoreAdj, "oom-score-adj", "", "`number` from -1000 to 1000: who is killed when memory runs out")
	fs.StringArrayVar(&o.Ulimits, "ulimit", nil, "resource limit of a process: `NAME=SOFT[:HARD]`")
}

func (o *Options) addSecurityFlags(fs *pflag.FlagSet) {
	s := &o.Security
	fs.StringSliceVar(&s.CapAdd, "cap-add", nil, "add a `capability`, such as NET_RAW, or ALL")
	fs.StringSliceVar(&s.CapDrop, "cap-drop", nil, "drop a `capability`, or ALL")
	fs.StringArrayVar(&s.SecurityOpt, "security-opt", nil, "`OPTION`: seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, no-new-privileges[=false], unmask=ALL|PATH[:PATH]")
	fs.BoolVar(&s.SeccompReport, "seccomp-report", false, "name system calls that seccomp denies in the log")
	fs.StringArrayVar(&s.Sysctls, "sysctl", nil, "set a kernel parameter of the workload's namespaces: `NAME=VALUE`")
	fs.StringVar(&s.UserNS, "userns", "", "user namespace: a `mode`, private (default) or host")
	fs.StringVar(&s.PID, "pid", "", "process namespace: a `mode`, private (default) or host")
	fs.StringVar(&s.IPC, "ipc", "", "IPC namespace: a `mode`, private (default) or host")
	fs.StringVar(&s.UTS, "uts", "", "host name namespace: a `mode`, private (default) or host")
	fs.BoolVar(&s.Privileged, "privileged", false, "only with --systemd, whose guest is the workload's own; elsewhere it is refused, with what to use instead")
}

// laterFlags are flags that people know from Docker and that this version does
// not have, with what to do instead.
var laterFlags = map[string]string{
	"link":                  "join both workloads to one network with --network; they reach each other by name",
	"link-local-ip":         "link-local addresses are the kernel's; leave it out",
	"domainname":            "give the whole name with --hostname",
	"volume-driver":         "there is one driver, local, which needs no naming",
	"gpus":                  "name the devices with --device",
	"isolation":             "choose what isolates the workload with --boundary",
	"cgroup-parent":         "every workload has a cgroup of its own below /bulkhead",
	"cgroupns":              "the cgroup namespace is always private",
	"annotation":            "attach a label with --label; inspect shows both",
	"cpu-period":            "give the quotient of quota and period with --cpus",
	"cpu-quota":             "give the quotient of quota and period with --cpus",
	"cpu-rt-period":         "real-time scheduling is not passed on; give --cpu-shares",
	"cpu-rt-runtime":        "real-time scheduling is not passed on; give --cpu-shares",
	"device-cgroup-rule":    "name each device with --device",
	"blkio-weight-device":   "give --blkio-weight, or a rate with --device-read-bps and the like",
	"kernel-memory":         "the kernel counts it within --memory",
	"memory-swappiness":     "give --memory-swap",
	"storage-opt":           "a virtual machine's disk is limited with --disk; a container's writable layer has no limit of its own",
	"disable-content-trust": "images are trusted by their digest: write NAME@sha256:…",
	"use-api-socket":        "there is no daemon and no socket of it",
	"oom-kill-disable":      "the kernel may always kill what exceeds --memory; --oom-score-adj changes the order",
}

// LaterFlag says what to do instead of a flag of Docker's that does not exist
// here, "" when the name means nothing to us.
func LaterFlag(name string) string { return laterFlags[name] }

// boundaryAvailable reports whether name can be used, as an error when not.
func boundaryAvailable(host Host, name string) error {
	if slices.Contains(host.Boundaries, name) {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(host.Boundaries), func(b string) bool { return b == workload.BoundaryRuntime }) // by --runtime
	return bad("--boundary", name, "unknown boundary", "give one of "+strings.Join(named, ", "))
}
