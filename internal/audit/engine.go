package audit

import (
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Engine is what `docker info` or `podman info` tell of an engine's defaults, which
// `inspect` of a container does not show.
type Engine struct {
	Kind    Kind
	Version string
	// UserNS tells that containers have a user namespace without the host's root,
	// Rootless that the engine itself has one.
	UserNS, Rootless Said[bool]
	NoNewPrivileges  Said[bool]
	// Profile is the default seccomp profile: "builtin", a path, "unconfined", or ""
	// where none is in force.
	Profile Said[string]
	// ProfileText is what Profile names, if somebody read it.
	ProfileText []byte
	// LSM tells that AppArmor or SELinux is in use.
	LSM Said[bool]
}

// ParseEngine reads the JSON of `docker info` or `podman info`.
func ParseEngine(kind Kind, b []byte) (*Engine, error) {
	v, err := parseJSON(b)
	if err != nil {
		return nil, err
	}
	n := node{value: v, f: &fault{}}
	var e *Engine
	switch kind {
	case Docker:
		e = dockerInfo(n)
	case Podman:
		e = podmanInfo(n)
	default:
		return nil, malformed("%s is no engine with defaults", kind)
	}
	return e, n.f.err
}

func dockerInfo(n node) *Engine {
	e := &Engine{Kind: Docker, Version: n.get("ServerVersion").text()}
	list := n.get("SecurityOptions")
	if !list.there() {
		return e // the daemon did not answer
	}
	from := report.Evidence{Call: "docker info: SecurityOptions", Value: list.json(maxEvidence)}
	options := map[string]map[string]string{}
	for _, s := range list.strings() {
		fields := map[string]string{}
		for f := range strings.SplitSeq(s, ",") {
			name, value, _ := strings.Cut(f, "=")
			fields[name] = value
		}
		options[fields["name"]] = fields
	}
	_, rootless := options["rootless"]
	_, remap := options["userns"]
	_, noNew := options["no-new-privileges"]
	_, apparmor := options["apparmor"]
	_, selinux := options["selinux"]
	e.UserNS, e.Rootless = said(rootless || remap, from), said(rootless, from)
	e.NoNewPrivileges = said(noNew, from)
	e.LSM = said(apparmor || selinux, from)
	e.Profile = said(options["seccomp"]["profile"], from)
	if e.Profile.Value == "default" { // as it was called before Docker 23
		e.Profile.Value = builtin
	}
	return e
}

// builtin is the default profile of an engine as it was released.
const builtin = "builtin"

func podmanInfo(n node) *Engine {
	e := &Engine{Kind: Podman, Version: n.get("version", "Version").text()}
	security := n.get("host", "security")
	if !security.there() {
		return e
	}
	from := report.Evidence{Call: "podman info: host.security", Value: security.json(maxEvidence)}
	is := func(name string) bool { v, _ := security.get(name).boolean(); return v }
	rootless := is("rootless")
	e.UserNS, e.Rootless = said(rootless, from), said(rootless, from)
	e.LSM = said(is("apparmorEnabled") || is("selinuxEnabled"), from)
	profile := ""
	if is("seccompEnabled") {
		profile = security.get("seccompProfilePath").text()
	}
	e.Profile = said(profile, from)
	return e
}

// closesAFALG tells whether Docker's own profile keeps programs from sockets of
// AF_ALG: from 29.4.2 on (moby/moby#52501). A version that a distribution has
// changed may have more than its number says.
func closesAFALG(version string) (closed, known bool) {
	v, ok := parseVersion(version)
	if !ok || strings.ContainsAny(version, "+~") {
		return false, false
	}
	return v.compare(mustVersion("29.4.2")) >= 0, true
}
