package runspec

import (
	"encoding/csv"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const (
	volumeFix     = "write --volume HOST-DIRECTORY:TARGET[:OPTIONS] or NAME:TARGET[:OPTIONS], such as -v /srv/data:/data:ro or -v db:/data"
	mountFix      = "write --mount type=bind,src=/srv/data,dst=/data[,ro], --mount type=volume,src=db,dst=/data or --mount type=tmpfs,dst=/scratch[,tmpfs-size=64m]"
	tmpfsFix      = "write --tmpfs TARGET[:OPTIONS], such as --tmpfs /run:size=64m,mode=1777"
	volumeNameFix = "a volume's name has letters, digits, \"_\", \".\" and \"-\", the first a letter or digit; a host directory begins with / or ."
)

// propagations are the values of bind-propagation (mount_namespaces(7)).
var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

// ParseVolume reads the -v syntax: HOST:TARGET[:OPTIONS] for a directory or file
// of the host, NAME:TARGET[:OPTIONS] for a named volume, TARGET for an anonymous
// one. A host path may be relative when it begins with a dot; it is made
// absolute. z and Z are accepted where SELinux is off, as there is nothing to
// relabel.
func ParseVolume(host Host, s string) (workload.Mount, error) {
	var m workload.Mount
	const flag = "--volume"
	if strings.ContainsRune(s, 0) {
		return m, bad(flag, s, "a path cannot hold a zero byte", volumeFix)
	}
	parts := strings.Split(s, ":")
	switch {
	case len(parts) > 3:
		return m, bad(flag, s, "too many colons", volumeFix+"; for a path with a colon use --mount")
	case len(parts) == 1:
		target, err := mountTarget(flag, s, parts[0], volumeFix)
		return workload.Mount{Type: "volume", Target: target}, err
	case parts[0] == "" || parts[1] == "":
		return m, bad(flag, s, "the source or the target is empty", volumeFix)
	}
	m, err := volumeSource(host, s, parts[0])
	if err != nil {
		return m, err
	}
	if m.Target, err = mountTarget(flag, s, parts[1], volumeFix); err != nil {
		return m, err
	}
	if len(parts) == 3 {
		err = volumeOptions(&m, host, s, parts[2])
	}
	return m, err
}

// volumeSource tells a host path from a volume's name.
func volumeSource(host Host, s, source string) (workload.Mount, error) {
	if !filepath.IsAbs(source) && source[0] != '.' {
		if err := volume.CheckName(source); err != nil {
			return workload.Mount{}, bad("--volume", s, fmt.Sprintf("%q is neither a path nor a volume's name", source), volumeNameFix)
		}
		return workload.Mount{Type: "volume", Source: source}, nil
	}
	path, err := absolute(host, "--volume", s, source)
	return workload.Mount{Type: "bind", Source: path, Recursive: true, CreateSource: true}, err
}

// absolute resolves a relative host path against the working directory.
func absolute(host Host, flag, s, source string) (string, error) {
	if filepath.IsAbs(source) {
		return filepath.Clean(source), nil
	}
	wd, err := host.Getwd()
	if err != nil {
		return "", fmt.Errorf("%s %q: find the working directory: %w", flag, s, err)
	}
	return filepath.Join(wd, source), nil
}

// volumeOptions applies the third field of -v.
func volumeOptions(m *workload.Mount, host Host, s, options string) error {
	const flag = "--volume"
	seen := map[string]string{} // kind of option to the option given
	for opt := range strings.SplitSeq(options, ",") {
		kind := "propagation"
		switch {
		case opt == "ro" || opt == "readonly":
			kind, m.ReadOnly = "access", true
		case opt == "rw":
			kind = "access"
		case slices.Contains(propagations, opt):
			m.Propagation = opt
		case opt == "rbind" || opt == "bind":
			kind, m.Recursive = "recursion", opt == "rbind"
		case opt == "noexec" || opt == "exec":
			kind, m.NoExec = "exec", opt == "noexec"
		case opt == "z" || opt == "Z":
			kind = "label"
			if host.SELinux {
				return bad(flag, s, "SELinux labels cannot be changed by this version", "label the directory with chcon and leave out z and Z")
			}
		case opt == "cached" || opt == "delegated" || opt == "consistent":
			kind = "consistency" // meaningful to Docker Desktop only
		case opt == "nocopy" || opt == "copy":
			kind, m.NoCopy = "copying", opt == "nocopy"
		case opt == "U" || opt == "O" || opt == "idmap" || opt == "nosuid" || opt == "nodev":
			return bad(flag, s, fmt.Sprintf("option %q is not available in this version", opt), "leave it out")
		default:
			return bad(flag, s, fmt.Sprintf("unknown option %q", opt), "options are ro, rw, rbind, bind, exec, noexec, copy, nocopy, z, Z and "+strings.Join(propagations, ", "))
		}
		if before, dup := seen[kind]; dup {
			return bad(flag, s, fmt.Sprintf("options %q and %q exclude each other", before, opt), "give one of them")
		}
		seen[kind] = opt
	}
	for _, kind := range []string{"propagation", "recursion"} {
		if seen[kind] != "" && m.Type == "volume" {
			return bad(flag, s, fmt.Sprintf("option %q is for host directories: nothing is mounted below a volume", seen[kind]), "leave it out")
		}
	}
	if seen["copying"] != "" && m.Type == "bind" {
		return bad(flag, s, fmt.Sprintf("option %q is for volumes: nothing is copied into a host directory", seen["copying"]), "leave it out")
	}
	return nil
}

// mountTarget checks and cleans a path inside the workload.
func mountTarget(flag, s, target, fix string) (string, error) {
	if !path.IsAbs(target) {
		return "", bad(flag, s, fmt.Sprintf("the target %q is not an absolute path", target), fix)
	}
	target = path.Clean(target)
	switch {
	case target == "/":
		return "", bad(flag, s, "the target cannot be the root directory", "mount below it, or import the directory as an image")
	case target == "/proc" || strings.HasPrefix(target, "/proc/"):
		return "", bad(flag, s, "nothing can be mounted over /proc", "choose another target; --security-opt unmask=PATH opens a masked path")
	}
	return target, nil
}

// ParseMount reads the --mount syntax: comma-separated key=value fields, quoted
// as in CSV (RFC 4180) when a value holds a comma.
func ParseMount(host Host, s string) (workload.Mount, error) {
	var m workload.Mount
	const flag = "--mount"
	if strings.ContainsAny(s, "\x00\n\r") {
		return m, bad(flag, s, "a zero byte or line break is not allowed", mountFix)
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return m, bad(flag, s, "badly quoted fields", mountFix)
	}
	p := mountParser{host: host, text: s, seen: map[string]bool{}}
	p.m.Type, p.m.Recursive = "volume", true
	for _, field := range fields {
		if err := p.field(field); err != nil {
			return m, err
		}
	}
	return p.finish()
}

// mountParser collects the fields of one --mount.
type mountParser struct {
	host Host
	text string
	m    workload.Mount
	seen map[string]bool
	// onlyReadOnly is set by bind-recursive=readonly, which asks for all that is mounted
	// below to be read-only and does not say that any of it shall be.
	onlyReadOnly bool
}

// mountKeys maps every spelling of a key to one.
var mountKeys = map[string]string{
	"type": "type", "source": "src", "src": "src", "destination": "dst", "dst": "dst", "target": "dst",
	"readonly": "ro", "ro": "ro", "bind-propagation": "bind-propagation", "bind-nonrecursive": "bind-nonrecursive",
	"bind-recursive": "bind-recursive", "tmpfs-size": "tmpfs-size", "tmpfs-mode": "tmpfs-mode",
	"consistency": "consistency", "noexec": "noexec", "volume-nocopy": "volume-nocopy", "volume-driver": "volume-driver",
}

// refusedKeys are keys of Docker's that say what this version does not do.
var refusedKeys = map[string]string{
	"volume-label":   "make the volume first, with `bulkhead volume create --label`",
	"volume-opt":     "for a file system in memory use type=tmpfs,tmpfs-size=…, for a host directory type=bind",
	"volume-subpath": "a workload could have put a link there that leads elsewhere; mount the whole volume",
}

// field applies one key=value.
func (p *mountParser) field(field string) error {
	k, v, hasValue := strings.Cut(field, "=")
	key, ok := mountKeys[strings.ToLower(k)]
	if fix := refusedKeys[strings.ToLower(k)]; fix != "" {
		return p.bad(fmt.Sprintf("key %q is not available", k), fix)
	}
	if !ok {
		return p.bad(fmt.Sprintf("unknown key %q", k), mountFix)
	}
	if p.seen[key] {
		return p.bad(fmt.Sprintf("key %q is given twice", k), "give it once")
	}
	p.seen[key] = true
	if slices.Contains([]string{"ro", "bind-nonrecursive", "noexec", "volume-nocopy"}, key) {
		return p.boolean(key, v, hasValue)
	}
	if v == "" {
		return p.bad(fmt.Sprintf("key %q has no value", k), mountFix)
	}
	return p.value(key, v)
}

// boolean applies a key that may stand alone.
func (p *mountParser) boolean(key, v string, hasValue bool) error {
	on := true
	if hasValue {
		var err error
		if on, err = strconv.ParseBool(v); err != nil {
			return p.bad(fmt.Sprintf("%s=%s is neither true nor false", key, v), mountFix)
		}
	}
	switch key {
	case "ro":
		p.m.ReadOnly = on
	case "noexec":
		p.m.NoExec = on
	case "volume-nocopy":
		p.m.NoCopy = on
	default:
		p.m.Recursive = !on
	}
	return nil
}

// value applies a key that needs a value.
func (p *mountParser) value(key, v string) (err error) {
	switch key {
	case "type":
		p.m.Type = v
	case "src":
		p.m.Source = v
	case "dst":
		p.m.Target, err = mountTarget("--mount", p.text, v, mountFix)
	case "bind-propagation":
		if !slices.Contains(propagations, v) {
			return p.bad(fmt.Sprintf("unknown bind-propagation %q", v), "it is one of "+strings.Join(propagations, ", "))
		}
		p.m.Propagation = v
	case "bind-recursive":
		return p.bindRecursive(v)
	case "volume-driver":
		if v != "local" {
			return p.bad(fmt.Sprintf("volume driver %q is not available", v), "this version has local, which needs no naming")
		}
	case "tmpfs-size":
		p.m.TmpfsSize, err = ParseSize("--mount tmpfs-size", v)
	case "tmpfs-mode":
		p.m.TmpfsMode, err = parseMode("--mount tmpfs-mode", v)
	}
	return err
}

// bindRecursive applies Docker's newer words for recursion.
func (p *mountParser) bindRecursive(v string) error {
	switch v {
	case "enabled":
	case "readonly":
		p.onlyReadOnly = true // which is always recursive here
	case "disabled":
		p.m.Recursive = false
	default:
		return p.bad(fmt.Sprintf("bind-recursive=%s is not available", v), "it is enabled, disabled or readonly; ro always covers the mounts below")
	}
	return nil
}

// keysOf are the keys that only one type of mount has.
var keysOf = map[string][]string{
	"bind":   {"bind-propagation", "bind-recursive", "bind-nonrecursive"},
	"tmpfs":  {"tmpfs-size", "tmpfs-mode"},
	"volume": {"volume-nocopy", "volume-driver"},
}

// finish checks the fields against each other.
func (p *mountParser) finish() (workload.Mount, error) {
	m := p.m
	if keysOf[m.Type] == nil {
		return m, p.bad(fmt.Sprintf("unknown type %q", m.Type), mountFix)
	}
	for kind, keys := range keysOf {
		for _, key := range keys {
			if kind != m.Type && p.seen[key] {
				return m, p.bad(fmt.Sprintf("%s is an option of type=%s, and this is a mount of type %s", key, kind, m.Type), "leave it out or use type="+kind)
			}
		}
	}
	if m.Target == "" {
		return m, p.bad("the target is missing", "add dst=PATH; "+mountFix)
	}
	switch m.Type {
	case "volume":
		return p.finishVolume(m)
	case "tmpfs":
		m.Recursive = false
		m.NoExec = m.NoExec || !p.seen["noexec"] // as with --tmpfs
		if p.seen["src"] {
			return m, p.bad("a tmpfs has no source", "leave it out or use type=bind")
		}
		return m, nil
	}
	return p.finishBind(m)
}

func (p *mountParser) finishVolume(m workload.Mount) (workload.Mount, error) {
	m.Recursive = false
	if m.Source == "" {
		return m, nil
	}
	if err := volume.CheckName(m.Source); err != nil {
		return m, p.bad(fmt.Sprintf("%q is not a volume's name", m.Source), volumeNameFix+"; that is type=bind")
	}
	return m, nil
}

func (p *mountParser) finishBind(m workload.Mount) (workload.Mount, error) {
	switch {
	case m.Source == "":
		return m, p.bad("the source is missing", "add src=PATH; "+mountFix)
	case p.onlyReadOnly && !m.ReadOnly:
		return m, p.bad("bind-recursive=readonly makes nothing read-only by itself", "add ro, which covers the mounts below, too")
	case p.seen["bind-recursive"] && p.seen["bind-nonrecursive"]:
		return m, p.bad("bind-recursive and bind-nonrecursive exclude each other", "give one of them")
	}
	source, err := absolute(p.host, "--mount", p.text, m.Source)
	m.Source = source
	if err == nil {
		if _, statErr := p.host.Stat(source); statErr != nil {
			return m, p.bad(fmt.Sprintf("the source %s does not exist", source), "create it first, or use -v, which makes a missing directory")
		}
	}
	return m, err
}

// bad is an error about this --mount.
func (p *mountParser) bad(wrong, fix string) error { return bad("--mount", p.text, wrong, fix) }

// ParseTmpfs reads the --tmpfs syntax, TARGET[:OPTIONS]. As with Docker a tmpfs
// made this way is noexec unless "exec" is given.
func ParseTmpfs(s string) (workload.Mount, error) {
	const flag = "--tmpfs"
	m := workload.Mount{Type: "tmpfs", NoExec: true}
	if strings.ContainsRune(s, 0) {
		return m, bad(flag, s, "a path cannot hold a zero byte", tmpfsFix)
	}
	target, options, hasOptions := strings.Cut(s, ":")
	var err error
	if m.Target, err = mountTarget(flag, s, target, tmpfsFix); err != nil || !hasOptions {
		return m, err
	}
	for opt := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "size":
			m.TmpfsSize, err = ParseSize("--tmpfs size", value)
		case "mode":
			m.TmpfsMode, err = parseMode("--tmpfs mode", value)
		default:
			err = tmpfsWord(&m, s, opt)
		}
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// tmpfsWord applies an option of --tmpfs that is a single word.
func tmpfsWord(m *workload.Mount, s, opt string) error {
	switch opt {
	case "ro":
		m.ReadOnly = true
	case "exec":
		m.NoExec = false
	case "noexec":
		m.NoExec = true
	case "rw", "nosuid", "nodev": // as it is anyway
	default:
		return bad("--tmpfs", s, fmt.Sprintf("unknown or unavailable option %q", opt), "options are size=SIZE, mode=OCTAL, ro, rw, exec, noexec, nosuid and nodev")
	}
	return nil
}

// parseMode reads permission bits in octal, at most 07777.
func parseMode(flag, s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, bad(flag, s, "not an octal mode", "write up to four octal digits, such as 1777 or 0700")
	}
	if n == 0 {
		return 0, bad(flag, s, "nobody could use a file system with mode 0", "write at least one permission bit, such as 0700")
	}
	return uint32(n), nil
}
