package audit

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// socketFamilies are address families that no container needs and that led to the
// host: the kernel's ciphers (CVE-2026-31431), and sockets between machines, which
// reach services of the host that take no other guests into account.
var socketFamilies = []struct {
	name   string
	number uint64
}{{"AF_ALG", 38}, {"AF_VSOCK", 40}}

// auditArch is the AUDIT_ARCH_* value of this program's architecture.
var auditArch = map[string]uint32{"amd64": 0xc000003e, "arm64": 0xc00000b7}

// AUDIT_ARCH_I386 and its socketcall(2), whose first function makes sockets. It
// finds its arguments in memory, where no filter sees them.
const (
	auditI386      = 0x40000003
	socketcall     = 102
	socketcallMake = 1
)

// families tells which of socketFamilies a program under a filter can make sockets
// of. It runs the filter as the kernel would; the kernel looks at the lower half of
// the argument only, whatever the filter compares.
func families(s *specs.LinuxSeccomp) ([]string, error) {
	f, err := seccomp.Compile(s)
	if err != nil {
		return nil, err
	}
	arch, ok := auditArch[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no filter is interpreted on %s", runtime.GOARCH)
	}
	open := func(d seccomp.Data) (bool, error) {
		v, err := f.Run(d)
		a := v.Action()
		return a == seccomp.Allow || a == seccomp.Log, err
	}
	var out []string
	for _, family := range socketFamilies {
		for _, try := range []struct {
			data seccomp.Data
			how  string
		}{
			{seccomp.Data{NR: syscall.SYS_SOCKET, Arch: arch, Args: [6]uint64{family.number}}, ""},
			{seccomp.Data{NR: syscall.SYS_SOCKET, Arch: arch, Args: [6]uint64{1<<32 | family.number}}, " (with a bit above the 32 that the kernel looks at)"},
			{seccomp.Data{NR: socketcall, Arch: auditI386, Args: [6]uint64{socketcallMake}}, " (by socketcall(2) of 32-bit programs)"},
		} {
			is, err := open(try.data)
			if err != nil {
				return nil, err
			}
			if is {
				out = append(out, family.name+try.how)
				break
			}
		}
	}
	return out, nil
}

// parseProfile reads a profile in Docker's form, as it applies to a set of
// capabilities.
func parseProfile(text []byte, caps []string) (*specs.LinuxSeccomp, error) {
	// Only what ptrace(2) may do depends on the kernel's version.
	return seccomp.ParseProfile(text, seccomp.Conditions{Caps: caps, Kernel: seccomp.KernelVersion{Major: 6, Minor: 1}})
}

// profileFamilies is families for the text of a profile.
func profileFamilies(text []byte, caps []string, from report.Evidence) Said[[]string] {
	s, err := parseProfile(text, caps)
	if err == nil {
		var list []string
		if list, err = families(s); err == nil {
			return said(list, from)
		}
	}
	return unsaid[[]string](fmt.Sprintf("the profile cannot be interpreted: %.200s", err), from)
}

// noFilter is what a profile amounts to that lets every call pass, if s is one.
func noFilter(s *specs.LinuxSeccomp) (Filter, bool) {
	passes := func(a specs.LinuxSeccompAction) bool { return a == specs.ActAllow || a == specs.ActLog }
	refuses := func(c specs.LinuxSyscall) bool { return len(c.Names) > 0 && !passes(c.Action) }
	return Filter{Off: true, Name: "a profile that refuses nothing"}, passes(s.DefaultAction) && !slices.ContainsFunc(s.Syscalls, refuses)
}

// profileFilter is the filter that the text of a profile makes.
func profileFilter(name string, text []byte, caps []string, from report.Evidence) Filter {
	if s, err := parseProfile(text, caps); err == nil {
		if none, ok := noFilter(s); ok {
			return none
		}
	}
	return Filter{Name: name, Families: profileFamilies(text, caps, from)}
}

// ociSeccomp reads linux.seccomp.
func ociSeccomp(n node) Said[Filter] {
	if !n.there() {
		return said(Filter{Off: true}, absent(n))
	}
	action := n.get("defaultAction")
	f := Filter{Name: fmt.Sprintf("a profile with the default %.40s", action.text())}
	var s specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(n.json(0)), &s); err != nil {
		n.wrong("a seccomp profile of the runtime specification")
		return unsaid[Filter]("")
	}
	if none, ok := noFilter(&s); ok {
		return said(none, at(action))
	}
	list, err := families(&s)
	if err != nil {
		f.Families = unsaid[[]string](fmt.Sprintf("the profile cannot be interpreted: %.200s", err), report.Evidence{Call: n.name()})
	} else {
		f.Families = said(list, report.Evidence{Call: n.get("syscalls").name(), Value: fmt.Sprintf("%d rules for system calls", len(s.Syscalls))})
	}
	return said(f, at(action))
}

// engineSeccomp reads the option of an engine, or finds what it leaves to the
// engine's default.
func engineSeccomp(host node, opts options, c *Config, engine *Engine) Said[Filter] {
	value, ok := opts.by["seccomp"]
	from := opts.from["seccomp"]
	switch {
	case ok && value == "unconfined":
		return said(Filter{Off: true}, from)
	case ok && strings.HasPrefix(strings.TrimSpace(value), "{"):
		from.Value = fmt.Sprintf("a profile of %d bytes", len(value))
		return said(profileFilter("a profile of its own", []byte(value), c.Caps.Value, from), from)
	case ok && value != builtin && value != "default":
		return said(Filter{Name: "the profile in " + value, Families: unsaid[[]string]("the profile is in a file that the configuration does not hold", from)}, from)
	case c.Privileged.Value && !ok:
		return said(Filter{Off: true}, c.Privileged.From...)
	case !c.Privileged.Known || !host.has("SecurityOpt"):
		return unsaid[Filter]("", absent(opts.list))
	case engine == nil || !engine.Profile.Known:
		return unsaid[Filter]("the engine's default decides, which `"+string(c.Kind)+" info` tells", at(opts.list))
	}
	where := append([]report.Evidence{at(opts.list)}, engine.Profile.From...)
	if engine.Profile.Value == "" || engine.Profile.Value == "unconfined" {
		return said(Filter{Off: true}, where...)
	}
	name := "the engine's default, " + engine.Profile.Value
	if len(engine.ProfileText) > 0 {
		return said(profileFilter(name, engine.ProfileText, c.Caps.Value, report.Evidence{Call: engine.Profile.Value}), where...)
	}
	return said(Filter{Name: name, Families: engine.families(c.Caps.Value)}, where...)
}

// families are those that the engine's default profile leaves open, without its text.
func (e *Engine) families(caps []string) Said[[]string] {
	from := report.Evidence{Call: string(e.Kind) + " info: version", Value: e.Version}
	if e.Kind == Docker && e.Profile.Value == builtin {
		closed, known := closesAFALG(e.Version)
		switch {
		case known && !closed:
			return said([]string{"AF_ALG"}, from)
		case known:
			text, err := json.Marshal(moby.DefaultProfile())
			if err != nil {
				return unsaid[[]string](err.Error(), from)
			}
			return profileFamilies(text, caps, from)
		}
	}
	return unsaid[[]string]("which families of sockets the engine's default profile closes depends on its version", from)
}
