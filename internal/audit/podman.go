package audit

import (
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// What Podman hides and protects when nothing is asked (specgen/generate/config_linux.go).
var (
	podmanMasked = []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/fs/selinux", "/sys/dev/block",
	}
	podmanReadOnly = []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// ParsePodman reads what `podman inspect` prints for containers, or one of its
// elements. What it does not show of them, such as what is not masked, is taken from
// the command that it remembers.
func ParsePodman(b []byte, engine *Engine) ([]*Config, error) {
	return parseContainers(b, func(n node) *Config { return podman(n, engine) })
}

func podman(n node, engine *Engine) *Config {
	host := n.get("HostConfig")
	if !host.there() {
		host.wrong("what `podman inspect` prints of a container")
		return nil
	}
	c := &Config{Kind: Podman, Name: n.get("Name").text(), Image: n.get("ImageName").text()}
	c.Boundary, c.BoundaryFrom, c.Guess = runtimeBoundary(n.get("OCIRuntime"))
	c.Privileged = isSet(host.get("Privileged"))
	opts := securityOptions(host.get("SecurityOpt"))
	command := createCommand(n)

	c.PID = sharing(host.get("PidMode"), true)
	c.Net = sharing(host.get("NetworkMode"), false)
	c.IPC = podmanIPC(host.get("IpcMode"), command)
	c.UTS = sharing(host.get("UTSMode"), true)
	c.UserNS = podmanUserNS(n, engine)

	if bounding := n.get("BoundingCaps"); n.has("BoundingCaps") {
		c.Caps = said(bounding.strings(), at(bounding))
	} else {
		c.Caps = unsaid[[]string]("", absent(bounding))
	}
	// A user other than root gets those that were added by name as ambient ones, and
	// they are what is in effect.
	if c.Ambient = c.Caps.Value; n.has("EffectiveCaps") {
		c.Ambient = n.get("EffectiveCaps").strings()
	}
	c.NoNewPrivileges = noNewPrivileges(host, opts, &Engine{NoNewPrivileges: said(false)})
	inspectUser(c, n.get("Config", "User"))
	c.Seccomp = engineSeccomp(host, opts, c, engine)
	c.LSM = lsm(n, opts, c.Privileged, engine)
	podmanPaths(c, n, command)
	c.Sysctls = command.sysctls()
	c.Mounts = inspectMounts(n.get("Mounts"))
	if root := n.get("Rootfs"); c.Mounts.Known && path.IsAbs(root.text()) && !isLayer(root.text()) {
		readOnly, _ := host.get("ReadonlyRootfs").boolean()
		c.Mounts.Value = append(c.Mounts.Value, Mount{Source: root.text(), Target: "/", ReadOnly: readOnly, From: at(root)})
	}
	inspectDevices(c, host)
	c.DeviceRules = command.deviceRules(c.Privileged)
	inspectLimits(c, host)
	c.ReadOnlyRoot = isSet(host.get("ReadonlyRootfs"))
	c.Ports = inspectPorts(n, host)
	return c
}

// remembered are the options of the command that made a container, as far as they
// can be told from the image and its arguments.
type remembered struct {
	n    node // where it is; null for a container that no command made
	args []string
}

func createCommand(n node) remembered {
	list := n.get("Config", "CreateCommand")
	r := remembered{list, list.strings()}
	// The program's own arguments are at the end.
	program := n.get("Config", "Cmd").strings()
	if len(program) > 0 && len(program) <= len(r.args) && slices.Equal(r.args[len(r.args)-len(program):], program) {
		r.args = r.args[:len(r.args)-len(program)]
	}
	return r
}

// values returns what an option was given, each time.
func (r remembered) values(option string) (out []string) {
	for i, a := range r.args {
		if v, ok := strings.CutPrefix(a, option+"="); ok {
			out = append(out, v)
		} else if a == option && i+1 < len(r.args) {
			out = append(out, r.args[i+1])
		}
	}
	return out
}

func (r remembered) evidence(option, value string) report.Evidence {
	return report.Evidence{Call: r.n.name(), Value: option + " " + value}
}

const forgotten = "podman inspect does not show it, and no command is remembered"

// podmanIPC does not trust the mode alone: Podman 4 shows the host's as "shareable".
func podmanIPC(mode node, command remembered) Said[Namespace] {
	for _, v := range command.values("--ipc") {
		if v == "host" {
			return said(Namespace{Host: true}, command.evidence("--ipc", v))
		}
	}
	if mode.text() == "shareable" && !command.n.there() {
		return unsaid[Namespace](forgotten, at(mode))
	}
	return sharing(mode, true)
}

func podmanUserNS(n node, engine *Engine) Said[Namespace] {
	mode, maps := n.get("HostConfig", "UsernsMode"), n.get("HostConfig", "IDMappings", "UidMap")
	if engine != nil && engine.Rootless.Known && engine.Rootless.Value {
		return said(Namespace{}, engine.Rootless.From...)
	}
	for _, p := range []node{n.get("StaticDir"), n.get("GraphDriver", "Data", "UpperDir")} {
		if strings.Contains(p.text(), "/.local/share/containers/") {
			return said(Namespace{}, at(p))
		}
	}
	if maps.there() {
		for _, m := range maps.strings() {
			// containerID:hostID:size
			if f := strings.Split(m, ":"); len(f) == 3 && f[1] == "0" {
				return said(Namespace{Host: true}, at(maps))
			}
		}
		return said(Namespace{}, at(maps))
	}
	switch {
	case mode.text() == "private" || strings.HasPrefix(mode.text(), "auto") || strings.HasPrefix(mode.text(), "keep-id") || strings.HasPrefix(mode.text(), "nomap"):
		return said(Namespace{}, at(mode))
	case engine != nil && engine.Rootless.Known, strings.HasPrefix(n.get("StaticDir").text(), "/var/lib/containers/"):
		return said(Namespace{Host: true}, at(mode), at(n.get("StaticDir")))
	}
	return unsaid[Namespace]("the engine may run without root; `podman info` tells", at(mode))
}

func podmanPaths(c *Config, n node, command remembered) {
	if c.Privileged.Value {
		c.Masked, c.ReadOnly = said([]string(nil), c.Privileged.From...), said([]string(nil), c.Privileged.From...)
		c.Writable = c.Privileged.From
		return
	}
	if !c.Privileged.Known || !command.n.there() {
		c.Masked, c.ReadOnly = unsaid[[]string](forgotten, absent(command.n)), unsaid[[]string](forgotten, absent(command.n))
		return
	}
	masked, readOnly := slices.Clone(podmanMasked), slices.Clone(podmanReadOnly)
	var more []string // masked by name, which nothing unmasks
	from := report.Evidence{Call: command.n.name(), Value: "no --security-opt unmask"}
	for _, v := range command.values("--security-opt") {
		name, value := podmanOption(v)
		switch {
		case name == "systempaths" && value == "unconfined": // as Docker calls it
			value = "ALL"
		case name == "mask":
			more = append(more, strings.Split(value, ":")...)
			continue
		case name != "unmask":
			continue
		}
		from = command.evidence("--security-opt", v)
		for p := range strings.SplitSeq(value, ":") {
			// A pattern that is none may be one to another version.
			unmasked := func(m string) bool {
				match, err := path.Match(p, m)
				return strings.EqualFold(p, "ALL") || match || err != nil
			}
			masked, readOnly = slices.DeleteFunc(masked, unmasked), slices.DeleteFunc(readOnly, unmasked)
			if unmasked("/sys/fs/cgroup") {
				c.Cgroups = []report.Evidence{from}
			}
		}
	}
	c.Masked, c.ReadOnly = said(append(masked, more...), from), said(readOnly, from)
	if systemd := n.get("Config", "SystemdMode"); isSet(systemd).Value {
		c.Cgroups = append(c.Cgroups, at(systemd)) // for systemd's own
	}
}

// podmanOption takes a security option apart as Podman does: at a colon where it has no
// equals sign (pkg/specgenutil/specgen.go).
func podmanOption(s string) (name, value string) {
	separator := ":"
	if strings.Contains(s, "=") {
		separator = "="
	}
	name, value, _ = strings.Cut(s, separator)
	return name, value
}

func (r remembered) sysctls() Said[[]Sysctl] {
	if !r.n.there() {
		return unsaid[[]Sysctl](forgotten, absent(r.n))
	}
	var out []Sysctl
	for _, v := range r.values("--sysctl") {
		name, value, _ := strings.Cut(v, "=")
		out = append(out, Sysctl{name, value, r.evidence("--sysctl", v)})
	}
	return said(out, report.Evidence{Call: r.n.name(), Value: "no --sysctl"})
}

func (r remembered) deviceRules(privileged Said[bool]) Said[[]string] {
	switch {
	case privileged.Value:
		return said([]string{"a *:* rwm"}, privileged.From...)
	case !privileged.Known || !r.n.there():
		return unsaid[[]string](forgotten, absent(r.n))
	}
	var out []string
	from := report.Evidence{Call: r.n.name(), Value: "no --device-cgroup-rule"}
	for _, v := range r.values("--device-cgroup-rule") {
		if wideRule(v) {
			out = append(out, v)
			from = r.evidence("--device-cgroup-rule", v)
		}
	}
	return said(out, from)
}
