package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// KernelVersion is the first two numbers of a kernel release.
type KernelVersion struct{ Major, Minor int }

// ParseKernelVersion reads the release of uname(2), such as "6.1.0-28-amd64".
func ParseKernelVersion(release string) (KernelVersion, error) {
	major, rest, ok := strings.Cut(release, ".")
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		rest = rest[:end]
	}
	v := KernelVersion{}
	var errMajor, errMinor error
	v.Major, errMajor = strconv.Atoi(major)
	v.Minor, errMinor = strconv.Atoi(rest)
	if !ok || errMajor != nil || errMinor != nil || v.Major < 0 {
		return KernelVersion{}, fmt.Errorf("seccomp: kernel release %.64q does not start with two numbers", release)
	}
	return v, nil
}

func (v KernelVersion) atLeast(min *moby.KernelVersion) bool {
	if uint64(v.Major) != min.Kernel {
		return uint64(v.Major) > min.Kernel
	}
	return uint64(v.Minor) >= min.Major
}

// Conditions decide which entries of a profile apply.
type Conditions struct {
	// Caps are the capabilities of the container's bounding set, as
	// "CAP_SYS_ADMIN".
	Caps   []string
	Kernel KernelVersion
}

// Families that Default closes. Both led out of containers into code of the
// kernel that few have reviewed; vsock also reaches the host's services.
const (
	afALG   = 38
	afVSOCK = 40
)

// Default returns the profile that containers get: moby's, resolved for the
// conditions and the architecture of this program, with these changes.
//
// Moby allows socket(2) for families below AF_ALG, between the two, and above
// AF_VSOCK, comparing 64 bits. The kernel only looks at the lower 32, so
// socket(1<<32 | AF_VSOCK) passes. Here the lower half decides. Families from
// 64 on, which do not exist, fail with EPERM instead of EAFNOSUPPORT.
//
// Moby allows socketcall(2), through which 32-bit x86 programs reach every
// family. Here socketcall is open for the functions that the profile allows
// without conditions, that is all but SYS_SOCKET. A 32-bit program that makes
// sockets with socket(2) itself (musl) works; one that only knows socketcall
// (glibc for i386, Go for 386) cannot make sockets. AllowSocketcall brings
// moby's behaviour back.
//
// Importing moby's package costs 37 kB and no measurable start time; its
// profile is data that is built when asked for.
func Default(c Conditions) (*specs.LinuxSeccomp, error) {
	native, err := nativeArch()
	if err != nil {
		return nil, err
	}
	return defaultFor(c, native)
}

func defaultFor(c Conditions, native *arch) (*specs.LinuxSeccomp, error) {
	p := moby.DefaultProfile()
	if err := closeSockets(p); err != nil {
		return nil, err
	}
	return resolve(p, c, native)
}

// AllowSocketcall opens socketcall(2), and with it every address family for
// 32-bit programs. It is a weakening that must be asked for by name.
func AllowSocketcall(s *specs.LinuxSeccomp) {
	s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"socketcall"}, Action: specs.ActAllow})
}

// closeSockets replaces the profile's rules for socket and removes its one for
// socketcall. An error means that the profile has changed in a way that this
// function does not know, and must not be used.
func closeSockets(p *moby.Seccomp) error {
	found := 0
	kept := p.Syscalls[:0]
	for _, sc := range p.Syscalls {
		if slices.Contains(sc.Names, "socket") {
			if len(sc.Names) != 1 || len(sc.Args) != 1 || sc.Includes != nil || sc.Excludes != nil {
				return errors.New("seccomp: unexpected rule for socket in the default profile")
			}
			found++
			continue
		}
		sc.Names = slices.DeleteFunc(sc.Names, func(n string) bool { return n == "socketcall" })
		if len(sc.Names) > 0 {
			kept = append(kept, sc)
		}
	}
	if found == 0 {
		return errors.New("seccomp: no rule for socket in the default profile")
	}
	p.Syscalls = append(kept, socketRules()...)
	return nil
}

// socketRules allows the families from 0 to 63 except the closed ones, by
// aligned blocks: the operators have no other way to leave the upper half of
// the argument out.
func socketRules() []*moby.Syscall {
	var rules []*moby.Syscall
	for start := uint64(0); start < 64; {
		if start == afALG || start == afVSOCK {
			start++
			continue
		}
		size := uint64(32)
		for start%size != 0 || contains(start, size, afALG) || contains(start, size, afVSOCK) {
			size /= 2
		}
		rules = append(rules, &moby.Syscall{LinuxSyscall: specs.LinuxSyscall{
			Names: []string{"socket"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{
				Index: 0, Op: specs.OpMaskedEqual, Value: 0xffffffff &^ (size - 1), ValueTwo: start,
			}},
		}})
		start += size
	}
	return rules
}

func contains(start, size, v uint64) bool { return v >= start && v < start+size }

// maxProfile bounds a profile file, in bytes. Docker's own has 14,000.
const maxProfile = 1 << 20

// ParseProfile reads a profile file of Docker's form (archMap, includes and
// excludes; a plain runtime spec profile is one too) and resolves it.
func ParseProfile(text []byte, c Conditions) (*specs.LinuxSeccomp, error) {
	native, err := nativeArch()
	if err != nil {
		return nil, err
	}
	return parseFor(text, c, native)
}

func parseFor(text []byte, c Conditions, native *arch) (*specs.LinuxSeccomp, error) {
	if len(text) > maxProfile {
		return nil, fmt.Errorf("seccomp: profile has %d bytes, the limit is %d", len(text), maxProfile)
	}
	var p moby.Seccomp
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("seccomp: parse profile: %w", err)
	}
	if p.DefaultAction == "" {
		// Docker takes an empty profile for "unconfined". Nobody who names a
		// profile file means that.
		return nil, errors.New("seccomp: profile has no defaultAction")
	}
	if len(p.Architectures) != 0 && len(p.ArchMap) != 0 {
		return nil, errors.New("seccomp: profile has both architectures and archMap")
	}
	return resolve(&p, c, native)
}

// profileArchNames are the names of architectures in includes and excludes,
// where moby's differ from Go's.
var profileArchNames = [...][2]string{{"386", "x86"}, {"loong64", "loongarch64"}, {"mips64le", "mipsel64"}, {"mipsle", "mipsel"}}

func profileArchName(goarch string) string {
	for _, n := range profileArchNames {
		if n[0] == goarch {
			return n[1]
		}
	}
	return goarch
}

// resolve makes a runtime spec profile of a Docker one.
func resolve(p *moby.Seccomp, c Conditions, native *arch) (*specs.LinuxSeccomp, error) {
	out := p.LinuxSeccomp
	out.Syscalls = nil
	for _, m := range p.ArchMap {
		if m.Arch == native.name {
			out.Architectures = append([]specs.Arch{m.Arch}, m.SubArches...)
			break
		}
	}
	name := profileArchName(native.goarch)
	for i, sc := range p.Syscalls {
		if sc == nil {
			return nil, fmt.Errorf("seccomp: rule %d of the profile is null", i)
		}
		if sc.Name != "" { //nolint:staticcheck // deprecated, but old profile files have it
			if len(sc.Names) != 0 {
				return nil, fmt.Errorf("seccomp: rule %d of the profile has both name and names", i)
			}
			sc.Names = []string{sc.Name} //nolint:staticcheck // as above
		}
		if len(sc.Names) == 0 {
			return nil, fmt.Errorf("seccomp: rule %d of the profile names no system call", i)
		}
		if c.excluded(sc.Excludes, name) || !c.included(sc.Includes, name) {
			continue
		}
		out.Syscalls = append(out.Syscalls, sc.LinuxSyscall)
	}
	return &out, nil
}

// excluded tells whether any of the filter's conditions holds.
func (c Conditions) excluded(f *moby.Filter, arch string) bool {
	return f != nil && (slices.Contains(f.Arches, arch) ||
		slices.ContainsFunc(f.Caps, c.has) ||
		f.MinKernel != nil && c.Kernel.atLeast(f.MinKernel))
}

// included tells whether all of the filter's conditions hold.
func (c Conditions) included(f *moby.Filter, arch string) bool {
	return f == nil || (len(f.Arches) == 0 || slices.Contains(f.Arches, arch)) &&
		!slices.ContainsFunc(f.Caps, func(n string) bool { return !c.has(n) }) &&
		(f.MinKernel == nil || c.Kernel.atLeast(f.MinKernel))
}

func (c Conditions) has(capability string) bool { return slices.Contains(c.Caps, capability) }
