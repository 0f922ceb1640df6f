package runspec

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// VMFlags are what only a boundary with a kernel of its own has, as typed.
type VMFlags struct {
	Kernel, Accel, Disk string
	Tenant              string
	System              bool
	NoTemplate          bool
}

// AddFlags binds the flags that describe a machine: those that run and
// `tenant create` have in common.
func (f *VMFlags) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&f.Kernel, "kernel", "", "guest kernel: a `name` of `bulkhead kernel ls` or the path of a kernel image")
	fs.StringVar(&f.Accel, "accel", "", "`how` the guest's processors run: kvm or tcg (default: kvm where it works)")
	fs.BoolVar(&f.NoTemplate, "no-template", false, "boot the guest, instead of going on from one that was saved")
	fs.StringVar(&f.Disk, "disk", "", "`size` of the guest's writable disk (default 10g; it takes what is written)")
}

const (
	minDisk = 32 << 20 // what an ext4 file system with a journal needs to be of use
	maxDisk = 16 << 40 // ext4's limit with blocks of 4 KiB
)

// VM checks the flags of a machine.
func (f *VMFlags) VM() (v workload.VM, err error) {
	v = workload.VM{Kernel: f.Kernel, Accel: f.Accel, Tenant: f.Tenant, System: f.System, NoTemplate: f.NoTemplate}
	if strings.ContainsRune(f.Kernel, '/') {
		if !path.IsAbs(f.Kernel) {
			return v, bad("--kernel", f.Kernel, "not an absolute path", "write the whole path, or a name of `bulkhead kernel ls`")
		}
		v.Kernel = path.Clean(f.Kernel)
	}
	switch f.Accel {
	case "", "kvm", "tcg":
	default:
		return v, bad("--accel", f.Accel, "unknown accelerator", "give kvm, the processor's own, or tcg, emulation in software")
	}
	if f.Disk != "" {
		if v.Disk, err = ParseSize("--disk", f.Disk); err != nil {
			return v, err
		}
		if v.Disk < minDisk || v.Disk > maxDisk {
			return v, bad("--disk", f.Disk, "out of range", "give 32m to 16t")
		}
	}
	if f.Tenant != "" {
		return v, CheckTenant("--tenant", f.Tenant)
	}
	return v, nil
}

// CheckTenant checks the name of a tenant, which follows the rules of a
// workload's.
func CheckTenant(flag, name string) error {
	if CheckName(name) != nil {
		return bad(flag, name, "not a valid name", nameFix)
	}
	return nil
}

// chooseBoundary fills in the boundary where none was named, and finds the runtime
// that makes it, where one does.
func (o *Options) chooseBoundary(host Host) (r workload.Runtime, err error) {
	if o.Runtime != "" {
		var makes string
		if r, makes, err = host.Runtime(o.Runtime); err != nil {
			return r, err
		}
		if o.Boundary != "" && o.Boundary != makes {
			return r, advice.New(fmt.Sprintf("the runtime %s does not make the boundary %s", o.Runtime, o.Boundary), "leave out --boundary, which follows from --runtime")
		}
		o.Boundary = makes
	}
	if o.Boundary == "" {
		o.Boundary = "container"
		if o.VM.Tenant != "" {
			o.Boundary = "vm"
		}
	}
	if err := boundaryAvailable(host, o.Boundary); err != nil || o.Runtime != "" {
		return r, err
	}
	switch o.Boundary {
	case "gvisor":
		return host.Runsc()
	case workload.BoundaryRuntime:
		return r, advice.New("--boundary runtime needs to know which one", "give --runtime NAME instead; `bulkhead runtime ls` lists them")
	}
	return r, nil
}

// machine checks what a boundary with a kernel of its own can be asked for, and
// that nothing of it was asked of another.
func (o *Options) machine(r *Request, _ Host) error {
	if o.Security.Privileged && !o.VM.System {
		return advice.New("--privileged is not available: a workload that needs the whole machine belongs in a virtual machine",
			"run it as a whole system with --boundary vm --systemd, or name a single need: --cap-add NAME, --device PATH, --security-opt seccomp=FILE, --userns host, --pid host or --network host")
	}
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"--kernel", o.VM.Kernel != ""}, {"--accel", o.VM.Accel != ""}, {"--disk", o.VM.Disk != ""},
		{"--tenant", o.VM.Tenant != ""}, {"--systemd", o.VM.System}, {"--no-template", o.VM.NoTemplate},
	} {
		if !f.given {
			continue
		}
		if o.Boundary != "vm" {
			return advice.New(fmt.Sprintf("%s has no meaning behind the boundary %s", f.name, o.Boundary), "give --boundary vm, or leave it out")
		}
		if o.VM.Tenant != "" && f.name != "--tenant" {
			return advice.New(fmt.Sprintf("%s belongs to the machine, and the machine is the tenant's", f.name), "give it to `bulkhead tenant create`, or leave out --tenant")
		}
	}
	var err error
	switch o.Boundary {
	case "vm":
		err = o.ownKernel()
	case "gvisor":
		return o.sandbox()
	default:
		return nil
	}
	if err != nil {
		return err
	}
	r.spec.VM, err = o.VM.VM()
	return err
}

// unavailable is a flag that is not available somewhere.
type unavailable struct {
	flag  string
	given bool
	fix   string
}

// hostsKernel are the flags that name a part of the host's kernel, where the
// workload has its own; inside is what that runs in.
func (o *Options) hostsKernel(inside string) []unavailable {
	s := &o.Security
	appArmor := slices.ContainsFunc(s.SecurityOpt, func(opt string) bool {
		return strings.HasPrefix(opt, "apparmor") && !strings.HasSuffix(opt, "unconfined")
	})
	return []unavailable{
		{"--network host", o.Network.host(), "join a network with --network NAME"},
		{"--pid host", s.PID == "host", "leave it out"},
		{"--ipc host", s.IPC == "host", "leave it out"},
		{"--uts host", s.UTS == "host", "leave it out"},
		{"--device", len(o.Devices) > 0, "share files with -v; devices are not passed on in this version"},
		{"--security-opt apparmor", appArmor, "profiles of the host do not exist in the " + inside + "; leave it out"},
	}
}

// refuse is the error for the first flag that was given.
func refuse(flags []unavailable, boundary, why string) error {
	for _, f := range flags {
		if f.given {
			return advice.New(fmt.Sprintf("%s is not available behind the boundary %s: %s", f.flag, boundary, why), f.fix)
		}
	}
	return nil
}

// ownKernel refuses what names a part of the host's kernel: a guest has its own.
func (o *Options) ownKernel() error {
	res := &o.Resources
	flags := append(o.hostsKernel("guest"),
		unavailable{"--memory-swap", res.MemorySwap != "" && res.MemorySwap != res.Memory, "the guest has no swap; leave it out or give it the value of --memory"},
		unavailable{"--blkio-weight", res.BlkioWeight != 0, "leave it out"},
		unavailable{"--device-read-bps and the like", len(res.ReadBPS)+len(res.WriteBPS)+len(res.ReadIOPS)+len(res.WriteIOPS) > 0, "leave it out"},
		unavailable{"--cpuset-mems", res.CpusetMems != "", "leave it out"},
		unavailable{"--cpuset-cpus", res.CpusetCPUs != "", "give --cpus"})
	if err := refuse(flags, "vm", "a virtual machine has a kernel of its own"); err != nil {
		return err
	}
	return o.system()
}

// system refuses what a whole system, which is no container, cannot be given.
func (o *Options) system() error {
	if !o.VM.System {
		return nil
	}
	s := &o.Security
	for _, f := range []struct {
		flag  string
		given bool
	}{
		{"--user", o.User != ""}, {"--group-add", len(o.GroupAdd) > 0}, {"--workdir", o.Workdir != ""}, {"--init", o.Init}, {"--read-only", o.ReadOnly},
		{"--cap-add", len(s.CapAdd) > 0}, {"--cap-drop", len(s.CapDrop) > 0}, {"--security-opt", len(s.SecurityOpt) > 0},
		{"--seccomp-report", s.SeccompReport}, {"--userns", s.UserNS != ""}, {"--ulimit", len(o.Ulimits) > 0}, {"--tty", o.TTY},
		{"--pids-limit", o.Resources.PidsLimit != DefaultPids}, {"--shm-size", o.Resources.ShmSize != defaultShm},
		{"--memory-reservation", o.Resources.MemoryReservation != ""}, {"--interactive", o.Interactive}, {"--sysctl", len(s.Sysctls) > 0}, {"--oom-score-adj", o.Resources.OOMScoreAdj != ""},
	} {
		if f.given {
			return advice.New(fmt.Sprintf("%s has no meaning for a whole system, which is not one process", f.flag), "leave it out; `bulkhead exec` runs commands in it")
		}
	}
	return nil
}

// systemStopTimeout is for a whole system: systemd's own limit for a service to
// stop.
const systemStopTimeout = 90 * time.Second

// inits are the names of programs that an image's configuration may give as
// its command and that are meant to be a first process.
var inits = []string{"init", "systemd", "openrc-init", "runit-init"}

// fillInit settles the first process of a whole system: what the command line
// says, or the image if it names an init, or /sbin/init.
func (r *Request) fillInit(s *workload.Spec) error {
	switch {
	case r.entrypointSet && len(r.entrypoint) > 0:
		s.Process.Args = slices.Concat(r.entrypoint, r.args)
	case len(r.args) > 0:
		s.Process.Args = r.args
	case len(s.Process.Args) == 0 || !slices.Contains(inits, path.Base(s.Process.Args[0])):
		s.Process.Args = []string{"/sbin/init"}
	}
	if !path.IsAbs(s.Process.Args[0]) {
		return advice.New(fmt.Sprintf("the init %q is not an absolute path", s.Process.Args[0]),
			"write its whole path after the image's name, or nothing for /sbin/init")
	}
	return nil
}

// Machine returns the spec of a tenant's machine, without its name.
func Machine(host Host, f *VMFlags, res *ResourceFlags, labels []string) (s workload.Spec, err error) {
	if err := boundaryAvailable(host, "vm"); err != nil {
		return s, err
	}
	s = workload.Spec{ID: host.NewID(), Boundary: "vm", Network: "none", StopSignal: "SIGTERM", StopTimeout: 10 * time.Second}
	if s.VM, err = f.VM(); err != nil {
		return s, err
	}
	s.VM.Machine = true
	s.Hostname = s.ID.Short()
	if s.Labels, err = ParseLabels(labels); err != nil {
		return s, err
	}
	s.Resources, err = res.resources(host)
	return s, err
}

// sandbox refuses what names a part of the host's kernel, or what gVisor's passes
// over without a word.
func (o *Options) sandbox() error {
	flags := append(o.hostsKernel("sandbox"), unavailable{"--seccomp-report", o.Security.SeccompReport, "leave it out, or use the boundary container"})
	return refuse(flags, "gvisor", "the sandbox has a kernel of its own")
}
