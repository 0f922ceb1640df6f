package seccomp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var kernel61 = KernelVersion{6, 1}

// allCaps are the capabilities that the default profile asks about.
var allCaps = []string{
	"CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT",
	"CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON",
}

// mobyProfile is the default profile as moby has it.
func mobyProfile(t *testing.T, caps []string) *specs.LinuxSeccomp {
	t.Helper()
	native, err := nativeArch()
	if err != nil {
		t.Fatal(err)
	}
	s, err := resolve(moby.DefaultProfile(), Conditions{Caps: caps, Kernel: kernel61}, native)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDefaultEqualsLibseccomp compares every verdict of the default profile,
// moby's and ours, with libseccomp's.
func TestDefaultEqualsLibseccomp(t *testing.T) {
	ref := startReference(t)
	ours, err := Default(Conditions{Kernel: kernel61})
	if err != nil {
		t.Fatal(err)
	}
	oursAll, err := Default(Conditions{Caps: allCaps, Kernel: kernel61})
	if err != nil {
		t.Fatal(err)
	}
	// libseccomp adds its native architecture to the two of arm64, as we do.
	arm, err := defaultFor(Conditions{Kernel: kernel61}, mustArch(t, specs.ArchAARCH64))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		profile *specs.LinuxSeccomp
		ours    bool
	}{
		{"arm64", arm, false},
		{"moby", mobyProfile(t, nil), false},
		{"moby all capabilities", mobyProfile(t, allCaps), false},
		{"bulkhead", ours, true},
		{"bulkhead all capabilities", oursAll, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			theirs, unknown, refusal := ref.build(test.profile, 2)
			if refusal != "" {
				t.Fatalf("libseccomp refuses the profile: %s", refusal)
			}
			skip := func(a *arch, nr uint32) bool {
				// The second deliberate difference: this libseccomp is older
				// than our tables.
				if isUnknown(unknown, a, nr) {
					return true
				}
				// The third, see mux.go: with a conditional rule for socket
				// libseccomp opens socketcall(SYS_SOCKET). Tested below.
				return test.ours && a.socketcall != 0 && nr == a.socketcall
			}
			f := mustCompile(t, test.profile)
			c := compare(t, test.profile, f, theirs, 4000, skip)
			if c.first != "" {
				t.Error(c.first)
			}
			t.Logf("%d verdicts equal; %d instructions, libseccomp %d; names unknown to this libseccomp: %v",
				c.verdicts, len(f.Insns), len(theirs.Insns), slices.DeleteFunc(unknown, func(n string) bool { return strings.Contains(n, " ") }))
			if test.ours {
				compareSocketcall(t, f, theirs)
			}
		})
	}
}

// compareSocketcall states the difference between our filter and libseccomp's
// for the multiplexed socket functions.
func compareSocketcall(t *testing.T, ours, theirs Filter) {
	t.Helper()
	x86, err := findArch(specs.ArchX86)
	if err != nil {
		t.Fatal(err)
	}
	for function := range uint64(25) {
		d := Data{NR: x86.socketcall, Arch: x86.audit, Args: [6]uint64{function}}
		got, want := run(t, ours, d), run(t, theirs, d)
		if function == 1 {
			if got != Errno|1 || want != Allow {
				t.Errorf("socketcall(SYS_SOCKET): got %s, libseccomp %s, want errno 1 and allow", got, want)
			}
		} else if got != want {
			t.Errorf("socketcall(%d): got %s, libseccomp %s", function, got, want)
		}
	}
}

func run(t *testing.T, f Filter, d Data) Verdict {
	t.Helper()
	v, err := f.Run(d)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A generator makes random profiles.
type generator struct {
	*rand.Rand
	plain    bool
	high     uint32 // of plain values
	equality bool   // no bounds
	// inequality is 1 if NE counts as equality. Two rules for "not this" with
	// different actions are the one case there where libseccomp's order depends
	// on the half of the argument that differs.
	inequality int
}

func newGenerator(seed uint64, plain bool) generator {
	g := generator{Rand: rand.New(rand.NewPCG(seed, 1)), plain: plain}
	if g.IntN(3) == 0 {
		g.high = uint32(g.IntN(5))
	}
	return g
}

// names of the random profiles: calls of low and high numbers, some with other
// numbers on other architectures, some multiplexed on x86, some without a
// number somewhere.
var randomNames = []string{
	"read", "write", "ioctl", "clone", "personality", "openat2", "mmap", "mmap2", "umount", "rt_sigaction", "execveat",
	"keyctl", "arch_prctl", "breakpoint", "set_tls", "futex_time64", "shmget", "bind", "socketcall", "no_such_call",
}

var randomOps = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// value returns a value for a comparison. In plain profiles all values share
// their upper half, as they do in every real profile.
func (g generator) value() uint64 {
	v := uint64(0)
	switch g.IntN(4) {
	case 0:
		v = uint64(g.IntN(3))
	case 1:
		v = uint64(g.Uint32())
	case 2:
		v = uint64(^uint32(0) >> g.IntN(32))
	default:
		v = uint64(g.IntN(64))
	}
	if g.plain {
		return v | uint64(g.high)<<32
	}
	switch g.IntN(4) {
	case 0:
		return v | uint64(g.IntN(4))<<32
	case 1:
		return v | g.Uint64()&^0xffffffff
	case 2:
		return v << 32
	}
	return v
}

func (g generator) arg(index uint) specs.LinuxSeccompArg {
	ops := randomOps
	if g.equality {
		ops = []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpMaskedEqual, specs.OpNotEqual}[:2+g.inequality]
	}
	return specs.LinuxSeccompArg{Index: index, Op: ops[g.IntN(len(ops))], Value: g.value(), ValueTwo: g.value()}
}

func (g generator) action() (specs.LinuxSeccompAction, *uint) {
	e := uint(g.IntN(4) + 1)
	switch g.IntN(7) {
	case 0:
		return specs.ActAllow, nil
	case 1:
		return specs.ActErrno, &e
	case 2:
		return specs.ActTrace, &e
	case 3:
		return specs.ActLog, nil
	case 4:
		return specs.ActTrap, nil
	case 5:
		return specs.ActKillProcess, nil
	}
	return specs.ActKillThread, nil
}

// archSets are sets of architectures; the first four are what amd64 kernels run.
var archSets = [][]specs.Arch{
	nil, {specs.ArchX86_64, specs.ArchX86}, {specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, {specs.ArchX32}, {specs.ArchX86_64, specs.ArchAARCH64, specs.ArchARM}, {specs.ArchMIPSEL, specs.ArchPPC64LE, specs.ArchMIPSEL64},
}

// profile makes a profile with up to size rules of up to maxArgs conditions.
// With oneAction all rules have the same action.
func (g generator) profile(size, maxArgs int, oneAction bool) *specs.LinuxSeccomp {
	sets := archSets
	if g.plain {
		sets = sets[:4]
	}
	s := &specs.LinuxSeccomp{Architectures: sets[g.IntN(len(sets))]}
	s.DefaultAction, s.DefaultErrnoRet = g.action()
	only, onlyErrno := g.action()
	for range 1 + g.IntN(size) {
		sc := specs.LinuxSyscall{Action: only, ErrnoRet: onlyErrno}
		if !oneAction {
			sc.Action, sc.ErrnoRet = g.action()
		}
		for range 1 + g.IntN(3) {
			sc.Names = append(sc.Names, randomNames[g.IntN(len(randomNames))])
		}
		for _, index := range g.Perm(6)[:g.IntN(maxArgs+1)] {
			sc.Args = append(sc.Args, g.arg(uint(index%3+3*(index/5))))
		}
		s.Syscalls = append(s.Syscalls, sc)
	}
	return s
}

// TestRandomProfilesEqualLibseccomp compares random profiles. With one action,
// rules can only add to each other; with several, libseccomp's order decides.
//
// libseccomp is not always right: where a call has several bounds, values whose
// upper halves differ, or several conditions a rule, its program may compare
// the wrong half of an argument or skip a rule (seen in 2.5.4, and the same in
// the code of 2.6.1). meaning decides then: it works out the verdict from the
// words of the profile alone, ours must be one that they allow, and differences
// are counted. In plain profiles, with equalities of values that share their
// upper half, none is accepted.
func TestRandomProfilesEqualLibseccomp(t *testing.T) {
	ref := startReference(t)
	for _, test := range []struct {
		name      string
		maxArgs   int
		oneAction bool
		plain     bool
		strict    bool
	}{
		{"one action, equality", 1, true, true, true},
		{"several actions, equality", 1, false, true, true},
		{"one action, several conditions", 3, true, true, false},
		{"one action, bounds", 1, true, true, false},
		{"several actions, bounds", 1, false, true, false},
		{"several actions and conditions", 3, false, true, false},
		{"one action, any values", 1, true, false, false},
		{"several actions, any values", 1, false, false, false},
		{"several actions and conditions, any values", 3, false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var refused, verdicts, wrong, order int
			const rounds = 40
			for seed := range uint64(rounds) {
				g := newGenerator(seed, test.plain)
				g.equality = test.strict
				if test.oneAction {
					g.inequality = 1
				}
				s := g.profile(8, test.maxArgs, test.oneAction)
				theirs, unknown, refusal := ref.build(s, int(seed%2)*2)
				if refusal != "" {
					refused++
					continue
				}
				ours, err := Compile(s)
				if err != nil {
					t.Fatalf("seed %d: libseccomp takes the profile, we do not: %v\n%s", seed, err, describe(s))
				}
				skip := func(a *arch, nr uint32) bool {
					return isUnknown(unknown, a, nr) || a.socketcall != 0 && (nr == a.socketcall || nr == a.ipc) && conditionalMux(s)
				}
				c := compare(t, s, ours, theirs, 100, skip)
				verdicts += c.verdicts
				if c.wrong > 0 {
					wrong++
				}
				if c.order > 0 {
					order++
				}
				if c.first != "" && test.strict {
					t.Error(c.first)
				}
				if t.Failed() {
					t.Fatalf("seed %d: %s", seed, describe(s))
				}
			}
			t.Logf("%d profiles, %d verdicts; libseccomp refused %d profiles, gave wrong verdicts for %d, decided between rules in another order for %d",
				rounds, verdicts, refused, wrong, order)
			if refused+wrong+order > rounds/3 {
				t.Error("too few profiles without a difference")
			}
		})
	}
}

// conditionalMux tells whether a profile permits a multiplexed call under
// conditions, the difference that mux.go describes.
func conditionalMux(s *specs.LinuxSeccomp) bool {
	for _, sc := range s.Syscalls {
		permits := sc.Action == specs.ActAllow || sc.Action == specs.ActLog
		if len(sc.Args) > 0 && permits && (slices.Contains(sc.Names, "bind") || slices.Contains(sc.Names, "shmget")) {
			return true
		}
	}
	return false
}

func describe(s *specs.LinuxSeccomp) string {
	text := fmt.Sprintf("default %s, architectures %v", s.DefaultAction, s.Architectures)
	for _, sc := range s.Syscalls {
		text += fmt.Sprintf("\n  %v %s", sc.Names, sc.Action)
		if sc.ErrnoRet != nil {
			text += fmt.Sprintf(" %d", *sc.ErrnoRet)
		}
		for _, a := range sc.Args {
			text += fmt.Sprintf(" [%d %s %#x %#x]", a.Index, a.Op, a.Value, a.ValueTwo)
		}
	}
	return text
}
