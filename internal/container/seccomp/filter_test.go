package seccomp

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files")

func mustArch(t testing.TB, name specs.Arch) *arch {
	t.Helper()
	a, err := findArch(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestGolden holds the default filter of the two architectures that we ship.
func TestGolden(t *testing.T) {
	for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64} {
		t.Run(string(name), func(t *testing.T) {
			native := mustArch(t, name)
			s, err := defaultFor(Conditions{Kernel: kernel61}, native)
			if err != nil {
				t.Fatal(err)
			}
			f, err := compile(s, native)
			if err != nil {
				t.Fatal(err)
			}
			summary, err := summaryFor(s, native)
			if err != nil {
				t.Fatal(err)
			}
			got := summary + "\n" + f.Disassemble()
			file := filepath.Join("testdata", "default."+native.goarch+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("default filter (-want +got; -update writes it):\n%s", diff)
			}
		})
	}
}

// TestDefaultSockets tries every family, with and without the upper half set,
// and each function of socketcall.
func TestDefaultSockets(t *testing.T) {
	native := mustArch(t, specs.ArchX86_64)
	s, err := defaultFor(Conditions{Kernel: kernel61}, native)
	if err != nil {
		t.Fatal(err)
	}
	f, err := compile(s, native)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchX32, specs.ArchX86} {
		a := mustArch(t, name)
		index, _ := syscallIndex("socket")
		nr, _ := a.number(index)
		for family := range uint64(70) {
			want := Allow
			if family == afALG || family == afVSOCK || family >= 64 {
				want = Errno | 1
			}
			for _, high := range []uint64{0, 1 << 32, 1 << 63, 0xffffffff << 32} {
				d := Data{NR: nr, Arch: a.audit, Args: [6]uint64{family | high}}
				if got := run(t, f, d); got != want {
					t.Errorf("%s socket(%#x): got %s, want %s", name, family|high, got, want)
				}
			}
		}
	}
	AllowSocketcall(s)
	if f, err = compile(s, native); err != nil {
		t.Fatal(err)
	}
	x86 := mustArch(t, specs.ArchX86)
	if got := run(t, f, Data{NR: x86.socketcall, Arch: x86.audit, Args: [6]uint64{1}}); got != Allow {
		t.Errorf("socketcall(SYS_SOCKET) after AllowSocketcall: got %s, want allow", got)
	}
}

// TestAllowedWithoutArguments checks that no unconditional verdict depends on a
// load of an argument, so that the kernel can work it out beforehand and skip
// the program (kernel/seccomp.c:seccomp_is_const_allow).
func TestAllowedWithoutArguments(t *testing.T) {
	native := mustArch(t, specs.ArchX86_64)
	s, err := defaultFor(Conditions{Kernel: kernel61}, native)
	if err != nil {
		t.Fatal(err)
	}
	f, err := compile(s, native)
	if err != nil {
		t.Fatal(err)
	}
	bare := Filter{Insns: slices.Clone(f.Insns)}
	for i := range bare.Insns {
		if bare.Insns[i].Code == ldAbs && bare.Insns[i].K > offArch {
			bare.Insns[i].Code = 0xffff // an error when it is reached
		}
	}
	p, err := prepare(s, native)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range p.arches {
		calls, _, err := p.calls(a)
		if err != nil {
			t.Fatal(err)
		}
		conditional := 0
		for _, c := range calls {
			got, err := bare.Run(Data{NR: c.nr, Arch: a.audit})
			switch {
			case len(c.rules[0].conds) > 0:
				conditional++
				if err == nil {
					t.Errorf("%s on %s: got %s without a look at the arguments", SyscallName(a.audit, c.nr), a.name, got)
				}
			case err != nil || got != c.rules[0].verdict:
				t.Errorf("%s on %s: got %s, %v, want %s", SyscallName(a.audit, c.nr), a.name, got, err, c.rules[0].verdict)
			}
		}
		if conditional < 3 || len(calls) < 300 {
			t.Errorf("%s: %d calls, %d conditional: the test checks too little", a.name, len(calls), conditional)
		}
	}
}

// TestLongJumps compiles a profile whose parts lie further apart than a
// conditional jump reaches.
func TestLongJumps(t *testing.T) {
	native := mustArch(t, specs.ArchX86_64)
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActTrap, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActErrno, specs.ActKillProcess, specs.ActTrace}
	for i := range 300 {
		s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{
			Names: []string{syscallName(i)}, Action: actions[i%len(actions)],
			Args: []specs.LinuxSeccompArg{{Index: uint(i % 6), Op: specs.OpEqualTo, Value: uint64(i)}},
		})
	}
	f, err := compile(s, native)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Insns) < 1000 {
		t.Errorf("%d instructions: too short for the test", len(f.Insns))
	}
	checked := 0
	for _, name := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
		a := mustArch(t, name)
		for i := range 300 {
			nr, ok := a.number(i)
			if !ok {
				continue
			}
			checked++
			d := Data{NR: nr, Arch: a.audit, Args: [6]uint64{1000, 1000, 1000, 1000, 1000, 1000}}
			if got := run(t, f, d); got != Trap {
				t.Errorf("%s %s: got %s for another argument, want trap", name, syscallName(i), got)
			}
			d.Args[i%6] = uint64(i)
			if got, want := run(t, f, d), mustVerdict(t, actions[i%len(actions)], nil); got != want {
				t.Errorf("%s %s: got %s, want %s", name, syscallName(i), got, want)
			}
		}
	}
	if checked < 500 {
		t.Errorf("only %d calls checked", checked)
	}
}

func TestDefaultFollowsConditions(t *testing.T) {
	native := mustArch(t, specs.ArchX86_64)
	for _, test := range []struct {
		call string
		cap  string
		kver KernelVersion
		want Verdict
	}{
		{"mount", "", kernel61, Errno | 1},
		{"mount", "CAP_SYS_ADMIN", kernel61, Allow},
		{"clone3", "", kernel61, Errno | 38},
		{"clone3", "CAP_SYS_ADMIN", kernel61, Allow},
		{"ptrace", "", kernel61, Allow},
		{"ptrace", "", KernelVersion{4, 7}, Errno | 1},
		{"ptrace", "", KernelVersion{4, 8}, Allow},
		{"ptrace", "CAP_SYS_PTRACE", KernelVersion{4, 7}, Allow},
		{"bpf", "CAP_BPF", kernel61, Allow},
		{"arch_prctl", "", kernel61, Allow},
		{"chroot", "", kernel61, Errno | 1},
	} {
		s, err := defaultFor(Conditions{Caps: []string{test.cap}, Kernel: test.kver}, native)
		if err != nil {
			t.Fatal(err)
		}
		f, err := compile(s, native)
		if err != nil {
			t.Fatal(err)
		}
		index, _ := syscallIndex(test.call)
		nr, _ := native.number(index)
		if got := run(t, f, Data{NR: nr, Arch: native.audit}); got != test.want {
			t.Errorf("%s with %q on %v: got %s, want %s", test.call, test.cap, test.kver, got, test.want)
		}
	}
}

func uintp(v uint) *uint { return &v }

func TestCompileErrors(t *testing.T) {
	rule := func(sc specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{sc}}
	}
	arg := func(index uint, o specs.LinuxSeccompOperator) []specs.LinuxSeccompArg {
		return []specs.LinuxSeccompArg{{Index: index, Op: o}}
	}
	var many []specs.LinuxSeccompArg
	for i := range uint64(5000) {
		many = append(many, specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: i << 32})
	}
	for name, test := range map[string]struct {
		profile *specs.LinuxSeccomp
		want    string
	}{
		"nil":             {nil, "no profile"},
		"empty":           {&specs.LinuxSeccomp{}, `unknown action ""`},
		"default":         {&specs.LinuxSeccomp{DefaultAction: "ALLOW"}, `unknown action "ALLOW"`},
		"errno for allow": {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: uintp(1)}, "takes no errnoRet"},
		"errno":           {&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: uintp(4096)}, "4096 is above 4095"},
		"trace":           {&specs.LinuxSeccomp{DefaultAction: specs.ActTrace, DefaultErrnoRet: uintp(65536)}, "65536 is above 65535"},
		"arch":            {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_PARISC"}}, `"SCMP_ARCH_PARISC"`},
		"byte order":      {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchS390X}}, "byte order"},
		"flag":            {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, `unknown flag "X"`},
		"wait":            {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}}, "needs a rule"},
		"no names":        {rule(specs.LinuxSyscall{Action: specs.ActAllow}), "rule 0 names no system call"},
		"empty name":      {rule(specs.LinuxSyscall{Names: []string{""}, Action: specs.ActAllow}), "empty system call name"},
		"action":          {rule(specs.LinuxSyscall{Names: []string{"read"}, Action: "X"}), `rule 0 ("read"): seccomp: unknown action "X"`},
		"index":           {rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: arg(6, specs.OpEqualTo)}), "index 6 is above 5"},
		"operator":        {rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: arg(0, "X")}), `unknown operator "X"`},
		"conflict": {&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActAllow, Args: arg(0, specs.OpEqualTo)},
			{Names: []string{"read"}, Action: specs.ActKill, Args: arg(0, specs.OpEqualTo)},
		}}, "system call read on SCMP_ARCH_X86_64: seccomp: two rules with the same conditions"},
		"too large": {rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: many}), "4096 instructions"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(test.profile, mustArch(t, specs.ArchX86_64))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	_, err := compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"Z"}}, mustArch(t, specs.ArchX86_64))
	if unknown := (*UnknownArchError)(nil); !errors.As(err, &unknown) || unknown.Arch != "Z" {
		t.Errorf("got %v, want an UnknownArchError for Z", err)
	}
}

func TestFlags(t *testing.T) {
	notify := []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}
	for _, test := range []struct {
		flags []specs.LinuxSeccompFlag
		calls []specs.LinuxSyscall
		want  uint
	}{
		{nil, nil, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}, nil, FlagLog | FlagSpecAllow},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, nil, FlagTSync},
		{nil, notify, FlagNewListener},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, notify, FlagTSync | FlagTSyncESRCH | FlagNewListener},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, notify, FlagNewListener | FlagWaitKillableRecv},
	} {
		f := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: test.flags, Syscalls: test.calls})
		if f.Flags != test.want || f.Listener != (test.calls != nil) {
			t.Errorf("%v %v: got flags %#x, listener %v, want %#x", test.flags, test.calls, f.Flags, f.Listener, test.want)
		}
	}
}

// TestX32Table compares the derived table with the kernel's header, as far as
// that header knows.
func TestX32Table(t *testing.T) {
	const file = "/usr/include/x86_64-linux-gnu/asm/unistd_x32.h"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("skipped: %v (Debian: linux-libc-dev)", err)
	}
	a := mustArch(t, specs.ArchX32)
	found := 0
	for _, line := range strings.Split(string(text), "\n") {
		name, number, ok := strings.Cut(strings.TrimPrefix(line, "#define __NR_"), " (__X32_SYSCALL_BIT + ")
		if !ok {
			continue
		}
		found++
		var want uint32
		for _, c := range strings.TrimSuffix(number, ")") {
			want = want*10 + uint32(c-'0')
		}
		index, ok := syscallIndex(name)
		if !ok {
			t.Errorf("%s is not in the tables", name)
			continue
		}
		if got, ok := a.number(index); !ok || got != want|x32Bit {
			t.Errorf("%s: got %#x, header %#x", name, got, want|x32Bit)
		}
	}
	if found < 300 {
		t.Errorf("only %d numbers found in %s", found, file)
	}
}

func TestTables(t *testing.T) {
	names := make([]string, len(syscallEnds))
	for i := range names {
		names[i] = syscallName(i)
		if got, ok := syscallIndex(names[i]); !ok || got != i {
			t.Errorf("%s: found at %d, want %d", names[i], got, i)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(syscallEnds) {
		t.Error("the names are not sorted and unique")
	}
	if _, ok := syscallIndex("nope"); ok {
		t.Error("nope was found")
	}
	for _, test := range []struct {
		arch specs.Arch
		nr   uint32
		want string
	}{
		{specs.ArchX86_64, 59, "execve"}, {specs.ArchX32, x32Bit + 520, "execve"}, {specs.ArchX86, 11, "execve"},
		{specs.ArchAARCH64, 221, "execve"}, {specs.ArchARM, armPrivate + 2, "cacheflush"}, {specs.ArchX86_64, 600, ""},
		{specs.ArchMIPSEL, 4011, "execve"}, {specs.ArchRISCV64, 259, "riscv_flush_icache"},
	} {
		if got := SyscallName(mustArch(t, test.arch).audit, test.nr); got != test.want {
			t.Errorf("%s %d: got %q, want %q", test.arch, test.nr, got, test.want)
		}
	}
}

func TestExplain(t *testing.T) {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read", "kexec_load"}, Action: specs.ActAllow},
		{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
			{Index: 1, Op: specs.OpLessThan, Value: 7}, {Index: 0, Op: specs.OpMaskedEqual, Value: 0x10, ValueTwo: 0x10},
		}},
	}}
	if runtimeArch := nativeName(t); runtimeArch == specs.ArchX86_64 {
		got, err := Explain(s)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"read: allow", "clone: allow if arg0 & 0x10 == 0x10 and arg1 < 0x7", "kexec_load: allow"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	got, err := summaryFor(s, mustArch(t, specs.ArchX86_64))
	if want := "default errno 1, newer calls errno 38, 2 calls allow, 1 by arguments; architectures X86_64"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	s, err := Default(Conditions{Kernel: kernel61})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		if _, err := Default(Conditions{Kernel: kernel61}); err != nil {
			b.Fatal(err)
		}
	}
}
