package seccomp

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// reference is a process that builds filters with the real libseccomp.
type reference struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

// startReference compiles and starts testdata/reference.c. It skips the test
// where there is no compiler or no libseccomp.
func startReference(t *testing.T) *reference {
	t.Helper()
	if nativeName(t) != specs.ArchX86_64 {
		t.Skip("skipped: the comparison with libseccomp is written for amd64")
	}
	bin := filepath.Join(t.TempDir(), "reference")
	gcc := exec.Command("gcc", "-O1", "-o", bin, "testdata/reference.c", "-lseccomp")
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Skipf("skipped: cannot build against libseccomp (Debian: apt-get install gcc libseccomp-dev): %v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("reference: %v", err)
		}
	})
	return &reference{t: t, in: in, out: bufio.NewReader(out)}
}

func nativeName(t *testing.T) specs.Arch {
	t.Helper()
	a, err := nativeArch()
	if err != nil {
		t.Fatal(err)
	}
	return a.name
}

var scmpArchNames = map[specs.Arch]string{
	specs.ArchX86_64: "x86_64", specs.ArchX86: "x86", specs.ArchX32: "x32",
	specs.ArchAARCH64: "aarch64", specs.ArchARM: "arm", specs.ArchRISCV64: "riscv64",
	specs.ArchMIPSEL: "mipsel", specs.ArchMIPSEL64: "mipsel64", specs.ArchPPC64LE: "ppc64le",
}

var scmpOps = map[specs.LinuxSeccompOperator]int{
	specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3, specs.OpEqualTo: 4,
	specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7,
}

// build translates a profile to calls of libseccomp as runc does: rules that
// equal the default are left out, and conditions that share an argument become
// rules of their own. It returns the names that libseccomp does not know, at
// all ("name") or on an architecture ("x32 name"), and why it refuses the
// profile if it does.
func (r *reference) build(s *specs.LinuxSeccomp, optimize int) (f Filter, unknown []string, refusal string) {
	r.t.Helper()
	var b strings.Builder
	def := mustVerdict(r.t, s.DefaultAction, s.DefaultErrnoRet)
	fmt.Fprintf(&b, "default %d\noptimize %d\n", uint32(def), optimize)
	for _, a := range s.Architectures {
		fmt.Fprintf(&b, "arch %s\n", scmpArchNames[a])
	}
	for _, sc := range s.Syscalls {
		v := mustVerdict(r.t, sc.Action, sc.ErrnoRet)
		if v == def {
			continue
		}
		for _, name := range sc.Names {
			for _, args := range splitReference(sc.Args) {
				fmt.Fprintf(&b, "rule %d %s %d", uint32(v), name, len(args))
				for _, a := range args {
					fmt.Fprintf(&b, " %d %d %d %d", a.Index, scmpOps[a.Op], a.Value, a.ValueTwo)
				}
				b.WriteString("\n")
			}
		}
	}
	b.WriteString("end\n")
	if _, err := io.WriteString(r.in, b.String()); err != nil {
		r.t.Fatal(err)
	}
	for {
		line, err := r.out.ReadString('\n')
		if err != nil {
			r.t.Fatalf("reference ended: %v\n%s", err, b.String())
		}
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "unknown", "missing":
			if !slices.Contains(unknown, rest) {
				unknown = append(unknown, rest)
			}
		case "fail":
			return Filter{}, unknown, rest
		case "bpf":
			raw, err := hex.DecodeString(rest)
			if err != nil {
				r.t.Fatal(err)
			}
			for ; len(raw) >= 8; raw = raw[8:] {
				f.Insns = append(f.Insns, Insn{
					Code: binary.NativeEndian.Uint16(raw), JT: raw[2], JF: raw[3], K: binary.NativeEndian.Uint32(raw[4:]),
				})
			}
			return f, unknown, ""
		default:
			r.t.Fatalf("reference printed %q", line)
		}
	}
}

// isUnknown tells whether libseccomp lacks a call that we have.
func isUnknown(unknown []string, a *arch, nr uint32) bool {
	name := SyscallName(a.audit, nr)
	return slices.Contains(unknown, name) || slices.Contains(unknown, scmpArchNames[a.name]+" "+name)
}

func splitReference(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	var seen [6]int
	for _, a := range args {
		seen[a.Index]++
	}
	if slices.Max(seen[:]) < 2 {
		return [][]specs.LinuxSeccompArg{args}
	}
	var split [][]specs.LinuxSeccompArg
	for i := range args {
		split = append(split, args[i:i+1])
	}
	return split
}

func mustVerdict(t *testing.T, a specs.LinuxSeccompAction, e *uint) Verdict {
	t.Helper()
	v, err := verdict(a, e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustCompile(t *testing.T, s *specs.LinuxSeccomp) Filter {
	t.Helper()
	f, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// boundaries returns the values at which a condition changes its mind, with
// the upper half clear and set.
func boundaries(a specs.LinuxSeccompArg) []uint64 {
	v := []uint64{0, 1, ^uint64(0), 1 << 32, 1<<32 - 1, 1 << 63}
	for _, x := range []uint64{a.Value, a.ValueTwo, a.Value & a.ValueTwo, a.ValueTwo | ^a.Value, ^a.Value} {
		v = append(v, x-1, x, x+1, x|1<<32, x^1<<32, x^1<<63, x&0xffffffff, x&0xffffffff-1, x&0xffffffff+1, x>>32, x<<32)
	}
	slices.Sort(v)
	return slices.Compact(v)
}

// argSets returns combinations of boundary values for the arguments that a
// call's rules mention, at most limit of them, spread evenly.
func argSets(s *specs.LinuxSeccomp, name string, limit int) [][6]uint64 {
	var values [6][]uint64
	total := 1
	for _, sc := range s.Syscalls {
		if slices.Contains(sc.Names, name) {
			for _, a := range sc.Args {
				values[a.Index] = append(values[a.Index], boundaries(a)...)
			}
		}
	}
	for i := range values {
		if len(values[i]) == 0 {
			values[i] = []uint64{0}
		}
		slices.Sort(values[i])
		values[i] = slices.Compact(values[i])
		total *= len(values[i])
	}
	stride := total/limit + 1
	if stride > 1 {
		stride |= 1 // odd, so that it does not keep hitting one value
	}
	var sets [][6]uint64
	for n := 0; n < total; n += stride {
		var set [6]uint64
		rest := n
		for i := range set {
			set[i] = values[i][rest%len(values[i])]
			rest /= len(values[i])
		}
		sets = append(sets, set)
	}
	return sets
}

// newestNamed is an independent count of the highest number that a profile
// names on an architecture.
func newestNamed(s *specs.LinuxSeccomp, a *arch) uint32 {
	var newest uint32
	for _, sc := range s.Syscalls {
		for _, name := range sc.Names {
			if i, ok := syscallIndex(name); ok {
				if n, ok := a.number(i); ok && n > newest && n < x32Bit+10000 && (a.column != colARM || n < armPrivate) {
					newest = n
				}
			}
		}
	}
	return newest
}

// namedPrivate tells whether the number is one of ARM's private calls and the
// profile has a rule for it other than its default, so that ENOSYS does not
// apply.
func namedPrivate(s *specs.LinuxSeccomp, a *arch, nr uint32) bool {
	return a.private(nr) && slices.ContainsFunc(s.Syscalls, func(sc specs.LinuxSyscall) bool {
		v, err := verdict(sc.Action, sc.ErrnoRet)
		def, _ := verdict(s.DefaultAction, s.DefaultErrnoRet)
		return err == nil && v != def && slices.Contains(sc.Names, SyscallName(a.audit, nr))
	})
}

// numbers are those that every comparison visits: all that any table has, the
// x32 range, ARM's private ones and the ends.
func numbers() []uint32 {
	var n []uint32
	for i := uint32(0); i <= 600; i++ {
		n = append(n, i, x32Bit+i)
	}
	for i := uint32(0); i < 10; i++ {
		n = append(n, armPrivate+i, 4000+100*i, 5000+i, 1<<31+i, 0xffffffff-i)
	}
	return append(n, x32Bit-1, 0x7fffffff)
}

// An exception says that a call is not to be compared, and why.
type exception func(a *arch, nr uint32) bool

// meaning works out the verdict for a call from the words of the profile,
// without tables of steps or programs. If rules with different actions hold at
// once, an order has to decide; it returns all of their verdicts.
func meaning(t *testing.T, s *specs.LinuxSeccomp, a *arch, d Data) []Verdict {
	t.Helper()
	def := mustVerdict(t, s.DefaultAction, s.DefaultErrnoRet)
	name := SyscallName(a.audit, d.NR)
	var held []Verdict
	for _, sc := range s.Syscalls {
		v := mustVerdict(t, sc.Action, sc.ErrnoRet)
		if !slices.Contains(sc.Names, name) || v == def {
			continue
		}
		for _, args := range splitReference(sc.Args) {
			if allHold(a, args, d) {
				if unconditional(a, args) {
					return []Verdict{v}
				}
				held = append(held, v)
			}
		}
	}
	slices.Sort(held)
	if held = slices.Compact(held); len(held) > 0 {
		return held
	}
	if newest := newestNamed(s, a); def.Action() == Errno && newest > 0 && d.NR > newest && !namedPrivate(s, a, d.NR) {
		return []Verdict{Errno | enosys}
	}
	return []Verdict{def}
}

func unconditional(a *arch, args []specs.LinuxSeccompArg) bool {
	for _, c := range args {
		mask := c.Value
		if !a.wide {
			mask = uint64(uint32(mask))
		}
		if c.Op != specs.OpMaskedEqual || mask != 0 {
			return false
		}
	}
	return true
}

func allHold(a *arch, args []specs.LinuxSeccompArg, d Data) bool {
	for _, c := range args {
		x, v, w := d.Args[c.Index], c.Value, c.ValueTwo
		if !a.wide {
			x, v, w = uint64(uint32(x)), uint64(uint32(v)), uint64(uint32(w))
		}
		holds := false
		switch c.Op {
		case specs.OpEqualTo:
			holds = x == v
		case specs.OpNotEqual:
			holds = x != v
		case specs.OpLessThan:
			holds = x < v
		case specs.OpLessEqual:
			holds = x <= v
		case specs.OpGreaterThan:
			holds = x > v
		case specs.OpGreaterEqual:
			holds = x >= v
		case specs.OpMaskedEqual:
			holds = x&v == w&v
		}
		if !holds {
			return false
		}
	}
	return true
}

// A comparison counts the verdicts of two filters.
type comparison struct {
	verdicts int
	// wrong is how many verdicts of libseccomp contradict every rule of the
	// profile that holds.
	wrong int
	// order is how many verdicts differ where rules with different actions
	// hold and each filter follows one of them.
	order int
	first string // the first difference
}

// compare compares two filters over all numbers and boundary arguments. The
// test fails if our verdict is not one that the profile allows for.
func compare(t *testing.T, s *specs.LinuxSeccomp, ours, theirs Filter, limit int, skip exception) (c comparison) {
	t.Helper()
	audits := []uint32{}
	for i := range arches {
		if !slices.Contains(audits, arches[i].audit) {
			audits = append(audits, arches[i].audit) // those outside the profile are the foreign ones
		}
	}
	audits = append(audits, 0, 0xffffffff)
	def := mustVerdict(t, s.DefaultAction, s.DefaultErrnoRet)
	for _, audit := range audits {
		for _, nr := range numbers() {
			a := archOf(audit, nr)
			if a != nil && skip != nil && skip(a, nr) {
				continue
			}
			inside := a != nil && (a.name == nativeName(t) || slices.Contains(s.Architectures, a.name))
			sets := [][6]uint64{{}}
			if inside {
				sets = argSets(s, SyscallName(audit, nr), limit)
				if nr == a.socketcall || nr == a.ipc {
					for i := range uint64(30) {
						sets = append(sets, [6]uint64{i}, [6]uint64{i | 1<<32})
					}
				}
			}
			for _, args := range sets {
				d := Data{NR: nr, Arch: audit, Args: args}
				got, want := run(t, ours, d), run(t, theirs, d)
				// The first deliberate difference, runc's: ENOSYS above the
				// newest call that the profile names.
				if def.Action() == Errno && inside && want == def {
					if newest := newestNamed(s, a); newest > 0 && nr > newest && !namedPrivate(s, a, nr) {
						want = Errno | enosys
					}
				}
				c.verdicts++
				if got == want {
					continue
				}
				what := fmt.Sprintf("%s nr %#x (%s) args %#x: got %s, libseccomp %s",
					ArchName(audit, nr), nr, SyscallName(audit, nr), args, got, want)
				if c.first == "" {
					c.first = what
				}
				var meant []Verdict
				if inside {
					meant = meaning(t, s, a, d)
				}
				switch {
				case !slices.Contains(meant, got):
					t.Errorf("%s, the profile says %v", what, meant)
					return c
				case slices.Contains(meant, want):
					c.order++
				default:
					c.wrong++
				}
			}
		}
	}
	return c
}
