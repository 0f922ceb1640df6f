package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The Facts of one of our workloads that its specification does not hold.
type Facts struct {
	// Accel is what executes a machine's instructions, "kvm" or "tcg", or "" if
	// nobody knows.
	Accel string
	// AppArmor tells whether the kernel has it.
	AppArmor Said[bool]
	// Running tells that the workload, and its machine, are there to be looked at.
	Running bool
	Monitor Said[Monitor]
}

// ours are the paths that package container/runtimespec masks and protects. A test
// there holds them to be the same.
var (
	ourMasked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware",
		"/sys/fs/selinux",
	}
	ourReadOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// ParseWorkload reads what `bulkhead inspect` prints of workloads.
func ParseWorkload(b []byte) ([]*Config, error) {
	return parseContainers(b, func(n node) *Config {
		spec := n.get("Spec")
		if !spec.there() {
			spec.wrong("what `bulkhead inspect` prints of a workload")
			return nil
		}
		var s workload.Spec
		if err := json.Unmarshal([]byte(spec.json(0)), &s); err != nil {
			spec.wrong("the specification of a workload: " + err.Error())
			return nil
		}
		return Workload(s, Facts{Accel: n.get("Machine", "Accel").text(), Running: n.get("State", "Pid").json(0) != "0"})
	})
}

// Workload judges a workload of ours by its specification.
func Workload(s workload.Spec, f Facts) *Config {
	v, err := specNode(s)
	if err != nil {
		return &Config{Kind: Bulkhead, Name: s.Name, Guess: err.Error()}
	}
	c := &Config{Kind: Bulkhead, Name: s.Name, Image: s.Image.Reference, Target: s.Name, Command: strings.Join(s.Process.Args, " ")}
	ourBoundary(c, s, f, v)
	get := v.get
	c.Privileged = said(false, report.Evidence{Call: "Spec.security", Value: "bulkhead has no such mode"})
	ns := get("namespaces")
	own := func(host bool, name string) Said[Namespace] {
		n := ns.get(name)
		e := at(n)
		if !host {
			e.Value = "not set"
		}
		return said(Namespace{Host: host}, e)
	}
	c.PID, c.IPC = own(s.Namespaces.HostPID, "hostPID"), own(s.Namespaces.HostIPC, "hostIPC")
	c.UTS, c.UserNS = own(s.Namespaces.HostUTS, "hostUTS"), own(s.Namespaces.HostUser, "hostUser")
	c.Net = said(Namespace{Host: s.Network == workload.NetworkHost}, at(get("network")))

	security := get("security")
	c.Caps = said(ourCapabilities(s.Security), at(security.get("capAdd")), at(security.get("capDrop")))
	c.NoNewPrivileges = said(!s.Security.NewPrivileges, at(security.get("newPrivileges")))
	c.User, c.Root = s.Process.User, rootUser(s.Process.User, at(get("process", "user")))
	c.Seccomp = ourSeccomp(s.Security, c.Caps.Value, at(security.get("seccomp")))
	c.LSM = ourLSM(s, f, at(security.get("appArmor")))
	ourPaths(c, s.Security, at(security.get("unmask")))
	c.Sysctls = sysctlsOf(security.get("sysctls"))
	ourMounts(c, s, get("mounts"))
	var devices []Device
	for i, d := range get("devices").list() {
		devices = append(devices, Device{Path: s.Devices[i].Source, From: at(d)})
	}
	c.Devices = said(devices, at(get("devices")))
	c.DeviceRules = said([]string(nil), report.Evidence{Call: "Spec.devices", Value: "bulkhead has no rules for other devices"})
	ourLimits(c, s.Resources, get("resources"))
	c.ReadOnlyRoot = said(s.ReadOnlyRoot, at(get("readOnlyRoot")))
	var ports []Port
	for i, n := range get("ports").list() {
		p := s.Ports[i]
		host := ""
		if p.HostIP.IsValid() {
			host = p.HostIP.String()
		}
		ports = append(ports, Port{host, fmt.Sprintf("%d/%s", p.Port, p.Protocol), at(n)})
	}
	c.Ports = said(ports, at(get("ports")))
	return c
}

// specNode is a specification as `bulkhead inspect` shows it, for evidence.
func specNode(s workload.Spec) (node, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return node{}, err
	}
	v, err := parseJSON(b)
	return node{"Spec", v, &fault{}}, err
}

func ourBoundary(c *Config, s workload.Spec, f Facts, v node) {
	c.BoundaryFrom = at(v.get("boundary"))
	switch {
	case s.Boundary == "gvisor":
		c.Boundary, c.OurSandbox = UserKernel, true
	case s.VM.Tenant != "":
		c.Boundary, c.BoundaryFrom = TenantVM, at(v.get("vm", "tenant"))
	case s.Boundary == "vm":
		c.Boundary = OwnVM
	case s.Boundary == workload.BoundaryRuntime:
		c.Boundary, c.BoundaryFrom, c.Guess = runtimeBoundary(v.get("runtime", "path"))
	case s.Boundary != "container":
		c.Guess = fmt.Sprintf("the boundary %.60q is not known here; it is judged as one that shares the host's kernel", s.Boundary)
	}
	switch {
	case !c.Boundary.machine():
		return
	case s.Boundary == workload.BoundaryRuntime:
		c.Emulated = unsaid[bool]("the runtime chooses it", c.BoundaryFrom)
		c.Monitor = unsaid[Monitor]("it is the runtime's, and nobody looked at it", c.BoundaryFrom)
		return
	}
	accel := s.VM.Accel
	from := at(v.get("vm", "accel"))
	if f.Accel != "" {
		accel, from = f.Accel, report.Evidence{Call: "Machine.Accel", Value: f.Accel}
	}
	c.Emulated = unsaid[bool]("it is chosen at each start, and this machine was not asked", from)
	if accel != "" {
		c.Emulated = said(accel == "tcg", from)
	}
	c.Monitor = f.Monitor
	if f.Running && !f.Monitor.Known && f.Monitor.Why == "" {
		c.Monitor.Why = "the machine runs, and nobody looked at its process"
	}
}

// ourCapabilities is what package container/runtimespec makes of --cap-add and
// --cap-drop: what is dropped stays dropped, unless all is and some is added by name.
func ourCapabilities(s workload.Security) []string {
	add := s.CapAdd
	if slices.ContainsFunc(s.CapDrop, isAll) {
		add = slices.DeleteFunc(slices.Clone(add), isAll)
	}
	dropped := map[string]bool{}
	for _, d := range s.CapDrop {
		dropped[capName(d)] = true
	}
	return slices.DeleteFunc(tweak(workload.DefaultCapabilities, add, s.CapDrop), func(c string) bool { return dropped[c] })
}

func isAll(s string) bool { return capName(s) == "CAP_ALL" }

func ourSeccomp(s workload.Security, caps []string, from report.Evidence) Said[Filter] {
	switch s.Seccomp {
	case "":
		from.Value = "not set"
		return said(Filter{Name: "the default", Families: said([]string(nil), from)}, from)
	case "unconfined":
		return said(Filter{Off: true}, from)
	}
	from.Value = fmt.Sprintf("a profile of %d bytes", len(s.Seccomp))
	return said(profileFilter("a profile of its own", []byte(s.Seccomp), caps, from), from)
}

func ourLSM(s workload.Spec, f Facts, from report.Evidence) Said[string] {
	switch {
	case s.Security.AppArmor == "unconfined":
		return said("", from)
	case s.Boundary == "vm":
		return unsaid[string]("the guest's kernel decides", from)
	case !f.AppArmor.Known:
		return unsaid[string]("whether the kernel has AppArmor was not asked", from)
	case !f.AppArmor.Value:
		return said("", f.AppArmor.From...)
	case s.Security.AppArmor != "":
		return said(s.Security.AppArmor, from)
	}
	from.Value = "not set"
	return said("the default profile", append([]report.Evidence{from}, f.AppArmor.From...)...)
}

func ourPaths(c *Config, s workload.Security, from report.Evidence) {
	masked, readOnly := slices.Clone(ourMasked), slices.Clone(ourReadOnly)
	for _, u := range s.Unmask {
		open := func(p string) bool { return strings.EqualFold(u, "all") || p == u }
		masked, readOnly = slices.DeleteFunc(masked, open), slices.DeleteFunc(readOnly, open)
	}
	c.Masked, c.ReadOnly = said(masked, from), said(readOnly, from)
}

func ourMounts(c *Config, s workload.Spec, list node) {
	var out []Mount
	for i, n := range list.list() {
		m := s.Mounts[i]
		if m.Type != "bind" {
			continue
		}
		out = append(out, Mount{
			Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly,
			Shared: m.Propagation == "shared" || m.Propagation == "rshared", From: at(n),
		})
	}
	c.Mounts = said(out, at(list))
}

func ourLimits(c *Config, r workload.Resources, n node) {
	c.Memory = said(Limit(""), at(n.get("memory")))
	if r.Memory != nil {
		c.Memory.Value = Limit(fmt.Sprintf("%d bytes", *r.Memory))
	}
	c.CPU = said(Limit(""), at(n.get("cpus")), at(n.get("cpusetCPUs")))
	if r.CPUs > 0 {
		c.CPU.Value = Limit(fmt.Sprintf("%g processors", r.CPUs))
	} else if r.CpusetCPUs != "" {
		c.CPU.Value = Limit("the processors " + r.CpusetCPUs)
	}
	c.PIDs = said(Limit(""), at(n.get("pids")))
	if r.Pids != nil && *r.Pids > 0 {
		c.PIDs.Value = Limit(fmt.Sprintf("%d processes", *r.Pids))
	}
}
