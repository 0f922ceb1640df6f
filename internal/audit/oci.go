package audit

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// ParseOCI reads a config.json of the OCI runtime specification. It does not name
// the runtime that will read it, which is taken to share the host's kernel unless
// the file has a section for virtual machines.
func ParseOCI(b []byte) (*Config, error) {
	v, err := parseJSON(b)
	if err != nil {
		return nil, err
	}
	n := node{value: v, f: &fault{}}
	if _, ok := n.get("ociVersion").str(); !ok {
		n.get("ociVersion").wrong("the version of the runtime specification")
	}
	c := oci(n)
	return c, n.f.err
}

func oci(n node) *Config {
	process, linux := n.get("process"), n.get("linux")
	c := &Config{Kind: OCI, Command: strings.Join(process.get("args").strings(), " ")}
	c.BoundaryFrom = absent(n.get("vm"))
	if vm := n.get("vm"); vm.there() {
		c.BoundaryFrom = report.Evidence{Call: "vm", Value: vm.json(maxEvidence)}
		c.Guess = "a config.json does not name its runtime, and most pass over its section for a virtual machine; it is judged as one that shares the host's kernel"
	}
	if !linux.there() {
		linux.wrong("the part of the specification for Linux")
		return c
	}
	c.PID, c.Net = ociNamespace(linux, "pid"), ociNamespace(linux, "network")
	c.IPC, c.UTS = ociNamespace(linux, "ipc"), ociNamespace(linux, "uts")
	c.UserNS = ociUserNS(linux)
	ociProcess(c, process)
	c.Seccomp = ociSeccomp(linux.get("seccomp"))
	for name, to := range map[string]*Said[[]string]{"maskedPaths": &c.Masked, "readonlyPaths": &c.ReadOnly} {
		paths := linux.get(name)
		*to = said(paths.strings(), at(paths))
	}
	c.ReadOnlyRoot = said(false, absent(n.get("root", "readonly")))
	if v, ok := n.get("root", "readonly").boolean(); ok {
		c.ReadOnlyRoot = said(v, at(n.get("root", "readonly")))
	}
	ociDevices(c, linux)
	ociMounts(c, n)
	c.Sysctls = sysctlsOf(linux.get("sysctl"))
	ociLimits(c, linux.get("resources"))
	c.Ports = unsaid[[]Port]("a runtime publishes no ports; the engine that called it may", absent(n.get("annotations")))
	return c
}

// ociNamespace finds a namespace in the list. One that is not there is the
// runtime's own, which is the host's.
func ociNamespace(linux node, kind string) Said[Namespace] {
	list := linux.get("namespaces")
	for _, e := range list.list() {
		if e.get("type").text() != kind {
			continue
		}
		p := e.get("path").text()
		switch {
		case p == "":
			return said(Namespace{}, at(e))
		case strings.HasPrefix(path.Clean(p), "/proc/1/ns/"):
			return said(Namespace{Host: true}, at(e))
		}
		return said(Namespace{Of: p}, at(e))
	}
	return said(Namespace{Host: true}, report.Evidence{Call: list.name(), Value: "no " + kind})
}

func ociUserNS(linux node) Said[Namespace] {
	ns := ociNamespace(linux, "user")
	maps := linux.get("uidMappings")
	if ns.Value.Host || ns.Value.Of != "" {
		return ns
	}
	for _, m := range maps.list() {
		if id, ok := m.get("hostID").number(); !ok || id == 0 { // to runtimes, a number that is missing is 0
			return said(Namespace{Host: true}, at(maps))
		}
	}
	ns.From = append(ns.From, at(maps))
	return ns
}

func ociProcess(c *Config, process node) {
	bounding := process.get("capabilities", "bounding")
	c.Caps = said(capNames(bounding.strings()), at(bounding))
	c.Ambient = capNames(process.get("capabilities", "ambient").strings())
	// A set that is not bounded is still held by the first process itself.
	for _, set := range []string{"effective", "permitted", "inheritable"} {
		bounded := len(c.Caps.Value)
		c.Caps.Value = union(c.Caps.Value, capNames(process.get("capabilities", set).strings()))
		for _, name := range c.Caps.Value[bounded:] {
			c.Caps.From = append(c.Caps.From, report.Evidence{Call: "process.capabilities." + set, Value: name})
		}
	}
	noNew := process.get("noNewPrivileges")
	c.NoNewPrivileges = said(false, absent(noNew))
	if v, ok := noNew.boolean(); ok {
		c.NoNewPrivileges = said(v, at(noNew))
	}
	uid := process.get("user", "uid")
	id, ok := uid.number()
	if !ok {
		id = 0 // as Go's zero value, with which every runtime reads it
	}
	c.User, c.Root = fmt.Sprint(id), said(id == 0, at(uid))
	profile, label := process.get("apparmorProfile"), process.get("selinuxLabel")
	switch {
	case label.text() != "" && !unconfinedLabel(label.text()):
		c.LSM = said(label.text(), at(label))
	case profile.text() == "unconfined":
		c.LSM = said("", at(profile))
	default:
		c.LSM = said(profile.text(), at(profile), at(label))
	}
}

func capNames(list []string) (out []string) {
	for _, c := range list {
		out = append(out, capName(c))
	}
	return out
}

// ociMounts reads mounts, and the root, which is a directory of the host like any
// other unless it is an engine's, or a bundle in the home of root.
func ociMounts(c *Config, n node) {
	var out []Mount
	if p := n.get("root", "path"); path.IsAbs(p.text()) && !isLayer(p.text()) && !strings.HasPrefix(hostPath(p.text()), "/root/") {
		out = append(out, Mount{Source: p.text(), Target: "/", ReadOnly: c.ReadOnlyRoot.Value, From: at(p)})
	}
	list := n.get("mounts")
	for _, e := range list.list() {
		options := e.get("options").strings()
		has := func(names ...string) bool {
			return slices.ContainsFunc(options, func(o string) bool { return slices.Contains(names, o) })
		}
		m := Mount{
			Source: e.get("source").text(), Target: e.get("destination").text(), From: at(e),
			ReadOnly: has("ro", "rro"), Shared: has("shared", "rshared"),
		}
		kind := e.get("type").text()
		if !has("bind", "rbind") {
			c.addKernel(kind, m)
		}
		switch {
		case has("bind", "rbind") || kind == "bind":
			out = append(out, m)
		case kind == "sysfs" && !m.ReadOnly:
			c.Writable = append(c.Writable, m.From)
		case (kind == "cgroup" || kind == "cgroup2") && !m.ReadOnly:
			c.Cgroups = append(c.Cgroups, m.From)
		default:
			dirs, devices := mounted(kind, options, m)
			out, c.Devices.Value = append(out, dirs...), append(c.Devices.Value, devices...)
		}
	}
	c.Mounts = said(out, report.Evidence{Call: list.name()})
	if p := n.get("linux", "rootfsPropagation"); p.text() == "shared" || p.text() == "rshared" {
		c.SharedRoot = []report.Evidence{at(p)}
	}
}

func ociDevices(c *Config, linux node) {
	var devices []Device
	for _, e := range linux.get("devices").list() {
		devices = append(devices, Device{Path: e.get("path").text(), Block: e.get("type").text() == "b", From: at(e)})
	}
	c.Devices = said(devices, at(linux.get("devices")))
	rules := linux.get("resources", "devices")
	var open []node
	denied := deniedDevices{}
	// The last rule that fits decides: from the last on, what is denied later is known.
	for _, n := range slices.Backward(rules.list()) {
		r := ociDeviceRule(n)
		if allow, _ := n.get("allow").boolean(); !allow {
			denied.add(r)
		} else if r.wide() && !denied.covers(r) {
			open = append(open, n)
		}
	}
	slices.Reverse(open)
	switch {
	case len(open) > 0:
		var found []string
		var from []report.Evidence
		for _, n := range open {
			found, from = append(found, n.json(maxEvidence)), append(from, at(n))
		}
		c.DeviceRules = said(found, from...)
	case !denied.covers(deviceRule{kind: "a", access: "rw"}):
		c.DeviceRules = said([]string{"no rule denies anything"}, report.Evidence{Call: rules.name(), Value: rules.json(maxEvidence)})
	default:
		c.DeviceRules = said([]string(nil), at(rules))
	}
}

func ociLimits(c *Config, r node) {
	positive := func(unit string, nodes ...node) Said[Limit] {
		var from []report.Evidence
		for _, n := range nodes {
			if s, ok := n.value.(string); ok && s != "" {
				return said(Limit(s), at(n))
			} else if ok {
				continue
			}
			if v, ok := n.number(); ok && v > 0 && v < 1<<62 {
				return said(Limit(fmt.Sprintf("%d%s", v, unit)), at(n))
			}
			from = append(from, at(n))
		}
		return said(Limit(""), from...)
	}
	unified := r.get("unified")
	set := func(l *Said[Limit], name string) {
		if s, _, _ := strings.Cut(unified.get(name).text(), " "); s != "" {
			if s == "max" {
				s = ""
			}
			*l = said(Limit(s), at(unified.get(name)))
		}
	}
	c.Memory = positive(" bytes", r.get("memory", "limit"))
	c.CPU = positive("", r.get("cpu", "quota"), r.get("cpu", "cpus"))
	c.PIDs = positive(" processes", r.get("pids", "limit"))
	set(&c.Memory, "memory.max")
	set(&c.CPU, "cpu.max")
	set(&c.PIDs, "pids.max")
}
