package audit

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// at is where a value is written, and the value.
func at(n node) report.Evidence { return report.Evidence{Call: n.name(), Value: n.json(maxEvidence)} }

// absent is where a value would be written.
func absent(n node) report.Evidence { return report.Evidence{Call: n.name(), Value: "not there"} }

// ParseDocker reads what `docker inspect` prints for containers, or one of its
// elements. What the engine's defaults decide is said only where engine is known.
func ParseDocker(b []byte, engine *Engine) ([]*Config, error) {
	return parseContainers(b, func(n node) *Config { return docker(n, engine) })
}

// parseContainers reads a list of objects, or one.
func parseContainers(b []byte, parse func(node) *Config) ([]*Config, error) {
	v, err := parseJSON(b)
	if err != nil {
		return nil, err
	}
	elements, isList := v.([]any)
	if !isList {
		elements = []any{v}
	}
	if len(elements) > maxContainers {
		return nil, malformed("%d containers, at most %d are looked at", len(elements), maxContainers)
	}
	var out []*Config
	for i, e := range elements {
		n := node{value: e, f: &fault{}}
		if _, ok := e.(object); !ok {
			return nil, malformed("element %d is %s, want an object", i, kindOf(e))
		}
		c := parse(n)
		if n.f.err != nil {
			if isList && len(elements) > 1 {
				return nil, fmt.Errorf("%w (element %d of the list)", n.f.err, i)
			}
			return nil, n.f.err
		}
		out = append(out, c)
	}
	return out, nil
}

func docker(n node, engine *Engine) *Config {
	host := n.get("HostConfig")
	if !host.there() {
		host.wrong("what `docker inspect` prints of a container")
		return nil
	}
	c := &Config{Kind: Docker, Name: strings.TrimPrefix(n.get("Name").text(), "/"), Image: n.get("Config", "Image").text()}
	c.Boundary, c.BoundaryFrom, c.Guess = runtimeBoundary(host.get("Runtime"))
	c.Privileged = isSet(host.get("Privileged"))
	opts := securityOptions(host.get("SecurityOpt"))

	c.PID = sharing(host.get("PidMode"), true)
	c.Net = sharing(host.get("NetworkMode"), false)
	c.IPC = sharing(host.get("IpcMode"), true)
	c.UTS = sharing(host.get("UTSMode"), true)
	c.UserNS = dockerUserNS(n, engine)

	c.Caps = dockerCapabilities(host, c.Privileged)
	c.NoNewPrivileges = noNewPrivileges(host, opts, engine)
	inspectUser(c, n.get("Config", "User"))
	c.Seccomp = engineSeccomp(host, opts, c, engine)
	c.LSM = lsm(n, opts, c.Privileged, engine)
	protectedPaths(c, host)
	if c.Privileged.Value {
		// Docker mounts /sys and the cgroups writable, too.
		c.Writable = c.Privileged.From
	} else if opts.isSet("writable-cgroups") { // from Docker 28 on
		c.Cgroups = []report.Evidence{opts.from["writable-cgroups"]}
	}
	c.Sysctls = sysctlsOf(host.get("Sysctls"))
	c.Mounts = inspectMounts(n.get("Mounts"))
	inspectDevices(c, host)
	inspectVolumes(c, host.get("Mounts"))
	inspectLimits(c, host)
	c.ReadOnlyRoot = isSet(host.get("ReadonlyRootfs"))
	c.Ports = inspectPorts(n, host)
	return c
}

// isSet is a member that is true or false.
func isSet(n node) Said[bool] {
	v, ok := n.boolean()
	if !ok {
		return unsaid[bool]("", absent(n))
	}
	return said(v, at(n))
}

// runtimeBoundary takes a boundary from the name of a runtime.
func runtimeBoundary(n node) (Boundary, report.Evidence, string) {
	name, ok := n.str()
	base := path.Base(name)
	switch {
	case !ok || name == "":
		return SharedKernel, absent(n), ""
	case base == "runsc" || strings.HasPrefix(base, "runsc-") || strings.HasPrefix(base, "io.containerd.runsc."):
		return UserKernel, at(n), ""
	case strings.HasPrefix(base, "kata") || strings.HasPrefix(base, "io.containerd.kata"):
		return OwnVM, at(n), ""
	case slices.Contains([]string{"runc", "crun", "youki", "oci", "nvidia", "bulkhead-oci", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}, base):
		return SharedKernel, at(n), ""
	}
	return SharedKernel, at(n), fmt.Sprintf("the runtime %.60q is not known here; it is judged as one that shares the host's kernel", base)
}

// options are security options by their names; later ones win.
type options struct {
	by   map[string]string
	from map[string]report.Evidence
	list node
}

func securityOptions(n node) options {
	o := options{map[string]string{}, map[string]report.Evidence{}, n}
	for _, e := range n.list() {
		s := e.text()
		i := strings.IndexAny(s, "=:")
		name, value := s, ""
		if i >= 0 {
			name, value = s[:i], s[i+1:]
		}
		if name == "label" && value != "disable" && o.by[name] == "disable" {
			continue
		}
		o.by[name], o.from[name] = value, at(e)
	}
	return o
}

// isSet reports whether an option is there that is true or has no value.
func (o options) isSet(name string) bool {
	value, ok := o.by[name]
	on, err := strconv.ParseBool(value)
	return ok && (value == "" || err == nil && on)
}

// sharing reads whose a namespace is. Empty is the container's own if own is set,
// and so is what Docker may call it.
func sharing(n node, own bool) Said[Namespace] {
	mode, ok := n.str()
	of, joined := strings.CutPrefix(mode, "container:")
	switch {
	case !ok, mode == "" && !own:
		return unsaid[Namespace]("", absent(n))
	case mode == "host":
		return said(Namespace{Host: true}, at(n))
	case joined:
		return said(Namespace{Of: "container " + of}, at(n))
	case strings.HasPrefix(mode, "ns:"):
		return said(Namespace{Of: strings.TrimPrefix(mode, "ns:")}, at(n))
	}
	return said(Namespace{}, at(n))
}

// remapped is the directory in which a daemon with --userns-remap keeps all.
var remapped = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`/[0-9]+\.[0-9]+/(containers|overlay2|vfs|fuse-overlayfs|btrfs|zfs|image)/`)
})

// dockerUserNS finds out what inspect does not tell plainly. Its paths do: a daemon
// that remaps keeps its state below a directory of the first IDs, one without root
// in somebody's home.
func dockerUserNS(n node, engine *Engine) Said[Namespace] {
	mode := n.get("HostConfig", "UsernsMode")
	if mode.text() == "host" {
		if engine != nil && engine.Rootless.Known && engine.Rootless.Value {
			return said(Namespace{}, engine.Rootless.From...)
		}
		return said(Namespace{Host: true}, at(mode))
	}
	if engine != nil && engine.UserNS.Known {
		return said(Namespace{Host: !engine.UserNS.Value}, engine.UserNS.From...)
	}
	for _, p := range []node{n.get("ResolvConfPath"), n.get("GraphDriver", "Data", "UpperDir"), n.get("HostsPath")} {
		switch s := p.text(); {
		case s == "":
		case remapped().MatchString(s), strings.Contains(s, "/.local/share/docker/"):
			return said(Namespace{}, at(p))
		case strings.HasPrefix(s, "/var/lib/docker/"):
			return said(Namespace{Host: true}, at(mode), at(p))
		}
	}
	return unsaid[Namespace]("the daemon may have been started with --userns-remap, or without root; `docker info` tells", at(mode))
}

func dockerCapabilities(host node, privileged Said[bool]) Said[[]string] {
	if privileged.Value {
		return said(slices.Clone(capabilities), privileged.From...)
	}
	add, drop := host.get("CapAdd"), host.get("CapDrop")
	if !privileged.Known || !host.has("CapAdd") || !host.has("CapDrop") {
		return unsaid[[]string]("", absent(add))
	}
	set := tweak(dockerCaps, add.strings(), drop.strings())
	return said(set, at(add), at(drop))
}

func noNewPrivileges(host node, opts options, engine *Engine) Said[bool] {
	value, ok := opts.by["no-new-privileges"]
	set, err := strconv.ParseBool(cmp.Or(value, "true"))
	switch {
	case ok && err != nil:
		return unsaid[bool]("it is neither true nor false", opts.from["no-new-privileges"])
	case ok:
		return said(set, opts.from["no-new-privileges"])
	case !host.has("SecurityOpt"):
		return unsaid[bool]("", absent(opts.list))
	case engine != nil && engine.NoNewPrivileges.Known:
		return said(engine.NoNewPrivileges.Value, append([]report.Evidence{at(opts.list)}, engine.NoNewPrivileges.From...)...)
	}
	return unsaid[bool]("the daemon's default decides; `docker info` tells", at(opts.list))
}

// inspectUser reads USER as it is in force: a number, or a name that the image's
// /etc/passwd turns into one. Empty is root.
func inspectUser(c *Config, n node) {
	user, ok := n.str()
	if !ok {
		c.Root = unsaid[bool]("", absent(n))
		return
	}
	c.User, c.Root = user, rootUser(user, at(n))
}

func rootUser(user string, from report.Evidence) Said[bool] {
	name, _, _ := strings.Cut(user, ":")
	switch {
	case name == "" || name == "root" || strings.Trim(name, "0") == "":
		return said(true, from)
	case strings.Trim(name, "0123456789") == "":
		return said(false, from)
	}
	return unsaid[bool](fmt.Sprintf("/etc/passwd of the image says which number %.60q has", name), from)
}

// lsm reads which profile of a security module confines a container. It is chosen
// when the container starts.
func lsm(n node, opts options, privileged Said[bool], engine *Engine) Said[string] {
	profile, label := n.get("AppArmorProfile"), n.get("ProcessLabel")
	asked, apparmor := opts.by["apparmor"]
	none := engine != nil && engine.LSM.Known && !engine.LSM.Value
	switch {
	case label.text() != "" && !unconfinedLabel(label.text()):
		return said(label.text(), at(label))
	case asked == "unconfined":
		return said("", opts.from["apparmor"])
	case profile.text() == "unconfined":
		return said("", at(profile))
	case profile.text() != "" && none:
		return said("", append([]report.Evidence{at(profile)}, engine.LSM.From...)...)
	case profile.text() != "" && (engine == nil || !engine.LSM.Known) && n.has("State") && !started(n):
		return unsaid[string]("it was asked for, the container was never started, and whether the kernel has AppArmor only the engine's info tells", at(profile))
	case profile.text() != "":
		return said(profile.text(), at(profile))
	case label.text() != "":
		return said("", at(label))
	case privileged.Value && !apparmor:
		return said("", privileged.From...)
	case none:
		return said("", append([]report.Evidence{at(profile), at(label)}, engine.LSM.From...)...)
	case !n.has("AppArmorProfile"):
		return unsaid[string]("", absent(profile))
	case n.get("State", "Pid").value != nil && started(n):
		return said("", at(profile), at(label))
	}
	return unsaid[string]("it is chosen when the container starts, and this one has not", at(profile), at(label))
}

// unconfinedLabel tells labels of SELinux, user:role:type:level, that the usual policies
// allow everything: container-selinux has spc_t for privileged containers.
func unconfinedLabel(label string) bool {
	f := strings.Split(label, ":")
	return len(f) > 2 && slices.Contains([]string{"spc_t", "unconfined_t", "unconfined_service_t"}, f[2])
}

// started reports whether a container was ever started.
func started(n node) bool {
	s := n.get("State", "StartedAt").text()
	return s != "" && !strings.HasPrefix(s, "0001-")
}

func protectedPaths(c *Config, host node) {
	for name, to := range map[string]*Said[[]string]{"MaskedPaths": &c.Masked, "ReadonlyPaths": &c.ReadOnly} {
		n := host.get(name)
		switch {
		case n.there():
			*to = said(n.strings(), at(n))
		case host.has(name) && c.Privileged.Value:
			*to = said([]string(nil), c.Privileged.From...)
		case host.has(name):
			*to = said([]string(nil), at(n))
		default:
			*to = unsaid[[]string]("", absent(n))
		}
	}
}

func sysctlsOf(n node) Said[[]Sysctl] {
	var out []Sysctl
	names, nodes := n.members()
	for i := range nodes {
		out = append(out, Sysctl{names[i], nodes[i].text(), at(nodes[i])})
	}
	return said(out, at(n)) // engines leave it out where there is none
}

func inspectMounts(n node) Said[[]Mount] {
	if !n.there() {
		return unsaid[[]Mount]("", absent(n))
	}
	var out []Mount
	for _, e := range n.list() {
		rw, ok := e.get("RW").boolean()
		propagation := e.get("Propagation").text()
		if e.get("Type").text() != "bind" {
			continue
		}
		out = append(out, Mount{
			Source: e.get("Source").text(), Target: e.get("Destination").text(), ReadOnly: ok && !rw,
			Shared: propagation == "shared" || propagation == "rshared", From: at(e),
		})
	}
	return said(out, at(n))
}

// inspectVolumes reads the volumes that the container's own --mount made. The driver
// local mounts what its options say, as mount(8) does: a directory of the host, too.
// The list of all mounts shows such a volume like any other.
func inspectVolumes(c *Config, list node) {
	for _, e := range list.list() {
		driver := e.get("VolumeOptions", "DriverConfig")
		if name := driver.get("Name").text(); e.get("Type").text() != "volume" || name != "" && name != "local" {
			continue
		}
		get := func(name string) string { return driver.get("Options", name).text() }
		options := strings.Split(get("o"), ",")
		readOnly, _ := e.get("ReadOnly").boolean()
		m := Mount{Source: get("device"), Target: e.get("Target").text(), ReadOnly: readOnly || slices.Contains(options, "ro"), From: at(e)}
		if slices.Contains(options, "bind") || slices.Contains(options, "rbind") {
			c.Mounts.Value = append(c.Mounts.Value, m)
			continue
		}
		c.addKernel(get("type"), m)
		dirs, devices := mounted(get("type"), options, m)
		c.Mounts.Value, c.Devices.Value = append(c.Mounts.Value, dirs...), append(c.Devices.Value, devices...)
	}
}

func inspectDevices(c *Config, host node) {
	devices, rules, requests := host.get("Devices"), host.get("DeviceCgroupRules"), host.get("DeviceRequests")
	var out []Device
	for _, e := range devices.list() {
		out = append(out, Device{Path: e.get("PathOnHost").text(), From: at(e)})
	}
	for _, e := range requests.list() {
		out = append(out, Device{Path: "devices of the driver " + e.get("Driver").text(), From: at(e)})
	}
	c.Devices = said(out, at(devices))
	if !c.Privileged.Known || !host.has("Devices") {
		c.Devices, c.DeviceRules = unsaid[[]Device]("", absent(devices)), unsaid[[]string]("", absent(rules))
		return
	}
	if c.Privileged.Value {
		c.Devices = said(append(out, Device{Path: allDevices, From: c.Privileged.From[0]}), c.Privileged.From...)
		c.DeviceRules = said([]string{"a *:* rwm"}, c.Privileged.From...)
		return
	}
	c.DeviceRules = said(slices.DeleteFunc(rules.strings(), func(r string) bool { return !wideRule(r) }), at(rules))
}

func inspectLimits(c *Config, host node) {
	positive := func(what string, names ...string) Said[Limit] {
		var from []report.Evidence
		known := false
		for _, name := range names {
			n := host.get(name)
			known = known || host.has(name)
			if s, isText := n.value.(string); isText && s != "" {
				return said(Limit(s), at(n))
			} else if isText {
				continue
			}
			if v, ok := n.number(); ok && v > 0 {
				return said(Limit(fmt.Sprintf("%d%s", v, what)), at(n))
			}
			if n.there() || host.has(name) {
				from = append(from, at(n))
			}
		}
		if !known {
			return unsaid[Limit]("", absent(host.get(names[0])))
		}
		return said(Limit(""), from...)
	}
	c.Memory = positive(" bytes", "Memory")
	c.CPU = positive("", "NanoCpus", "CpuQuota", "CpusetCpus")
	c.PIDs = positive(" processes", "PidsLimit")
}

// everyPort stands for those of -P.
const everyPort = "every exposed port"

// swarmTask is a label of the containers that a swarm makes for a service. What the
// service publishes each node of the swarm passes on, and no container tells.
const swarmTask = "com.docker.swarm.service.id"

func inspectPorts(n, host node) Said[[]Port] {
	bindings, all := host.get("PortBindings"), host.get("PublishAllPorts")
	if mode := host.get("NetworkMode"); mode.text() == "none" {
		return said([]Port(nil), at(mode))
	}
	var out []Port
	names, nodes := bindings.members()
	for i, n := range nodes {
		for _, e := range n.list() {
			out = append(out, Port{e.get("HostIp").text(), names[i], at(e)})
		}
	}
	if v, ok := all.boolean(); ok && v {
		out = append(out, Port{"", everyPort, at(all)})
	}
	service := n.get("Config", "Labels", swarmTask)
	switch {
	case !bindings.there() && !all.there():
		return unsaid[[]Port]("", absent(bindings))
	case service.there() && !slices.ContainsFunc(out, everyAddress):
		return unsaid[[]Port]("it is a task of a swarm, which publishes what the service does; `docker service inspect` tells", at(service))
	}
	return said(out, at(bindings))
}
