package cgroup

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// run interprets the program, as far as this package uses eBPF. It fails on
// what the kernel's verifier would refuse.
func run(t *testing.T, prog []sys.BPFInstruction, kind, rights, major, minor uint32) uint64 {
	t.Helper()
	ctx := map[int16]uint32{0: rights<<16 | kind, 4: major, 8: minor}
	var reg [11]uint64
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		jump := false
		switch in.Code {
		case opLoadWord:
			reg[in.Dst] = uint64(ctx[in.Offset])
		case opMovReg:
			reg[in.Dst] = uint64(uint32(reg[in.Src]))
		case opMovImm:
			reg[in.Dst] = uint64(uint32(in.Imm))
		case opAndImm:
			reg[in.Dst] = uint64(uint32(reg[in.Dst]) & uint32(in.Imm))
		case opXorImm:
			reg[in.Dst] = uint64(uint32(reg[in.Dst]) ^ uint32(in.Imm))
		case opRshImm:
			reg[in.Dst] = uint64(uint32(reg[in.Dst]) >> uint(in.Imm))
		case opJneImm:
			jump = reg[in.Dst] != uint64(int64(in.Imm))
		case opJeqImm:
			jump = reg[in.Dst] == uint64(int64(in.Imm))
		case opExit:
			return reg[r0]
		default:
			t.Fatalf("instruction %d: opcode %#x", pc, in.Code)
		}
		if jump {
			if in.Offset < 0 {
				t.Fatalf("instruction %d jumps back", pc)
			}
			pc += int(in.Offset)
		}
	}
	t.Fatal("the program ran off its end")
	return 0
}

// allows is the policy itself, written down as plainly as can be.
func (p devicePolicy) allows(d device, want access) bool {
	for e, acc := range p.exceptions {
		if !e.covers(d) {
			continue
		}
		if !p.allow && want&^acc == 0 {
			return true
		}
		if p.allow && want&acc != 0 {
			return false
		}
	}
	return p.allow
}

// checkProgram compares program and policy around every number it names.
func checkProgram(t *testing.T, p devicePolicy) {
	t.Helper()
	prog := p.program()
	for e := range p.exceptions {
		for _, major := range []int64{e.major, e.major + 1, 0, 1<<32 - 1} {
			for _, minor := range []int64{e.minor, e.minor + 1, 7} {
				if major < 0 || minor < 0 {
					continue
				}
				for want := access(1); want <= accessAll; want++ {
					checkOne(t, p, prog, device{'b', major, minor}, want)
					checkOne(t, p, prog, device{'c', major, minor}, want)
				}
			}
		}
	}
}

func checkOne(t *testing.T, p devicePolicy, prog []sys.BPFInstruction, d device, want access) {
	t.Helper()
	kind := uint32(2)
	if d.kind == 'b' {
		kind = 1
	}
	got := run(t, prog, kind, uint32(want), uint32(d.major), uint32(d.minor)) == 1
	// Numbers wrap at 32 bits, in the kernel as here.
	d.major, d.minor = int64(uint32(d.major)), int64(uint32(d.minor))
	if wanted := p.allows(d, want); got != wanted {
		t.Fatalf("%v %v: program says %v, policy %v: %+v", d, want, got, wanted, p)
	}
}

func TestDeviceProgramIsThePolicy(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	number := func() *int64 {
		return []*int64{nil, ptr(int64(0)), ptr(int64(1)), ptr(int64(5)), ptr(int64(1<<31 + 3))}[random.IntN(5)]
	}
	var good int
	for range 1000 {
		var rules []specs.LinuxDeviceCgroup
		for range random.IntN(6) {
			rules = append(rules, specs.LinuxDeviceCgroup{
				Allow: random.IntN(2) == 0, Type: []string{"a", "b", "c", "c"}[random.IntN(4)],
				Major: number(), Minor: number(), Access: []string{"r", "w", "m", "rw", "rwm", ""}[random.IntN(6)],
			})
		}
		p, err := newDevicePolicy(rules)
		if err != nil {
			continue
		}
		good++
		checkProgram(t, p)
	}
	if good < 200 {
		t.Errorf("only %d of the random policies were valid", good)
	}
}

func TestDevicePolicy(t *testing.T) {
	c := func(allow bool, major, minor int64, acc string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: &major, Minor: &minor, Access: acc}
	}
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	for _, x := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string // what is written to v1
	}{
		{"nothing", nil, "devices.allow a, devices.deny"},
		{"all denied", []specs.LinuxDeviceCgroup{deny}, "devices.deny a, devices.allow"},
		{"merged", []specs.LinuxDeviceCgroup{deny, c(true, 1, 3, "r"), c(true, 1, 3, "w")}, "devices.deny a, devices.allow c 1:3 rw"},
		{"taken back", []specs.LinuxDeviceCgroup{deny, c(true, 1, 3, "rwm"), c(false, 1, 3, "w")}, "devices.deny a, devices.allow c 1:3 rm"},
		{"wildcard", []specs.LinuxDeviceCgroup{deny, c(true, 136, -1, "rwm")}, "devices.deny a, devices.allow c 136:* rwm"},
		{"reset", []specs.LinuxDeviceCgroup{c(false, 1, 3, "r"), deny, c(true, 1, 5, "r")}, "devices.deny a, devices.allow c 1:5 r"},
		{"both kinds, not everything", []specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "a", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "r"}},
			"devices.deny a, devices.allow b 1:3 r, c 1:3 r"},
		{"covered by a wildcard", []specs.LinuxDeviceCgroup{deny, c(true, 5, 1, "rw"), c(true, 5, 2, "r"), c(false, 5, -1, "rw")}, "devices.deny a, devices.allow"},
		{"denied from allowed", []specs.LinuxDeviceCgroup{c(false, 1, 3, "rw")}, "devices.allow a, devices.deny c 1:3 rw"},
	} {
		p, err := newDevicePolicy(x.rules)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		first, then, lines := p.v1Lines()
		if got := strings.TrimSpace(first + " a, " + then + " " + strings.Join(lines, ", ")); got != x.want {
			t.Errorf("%s:\n got %q\nwant %q", x.name, got, x.want)
		}
	}
}

func TestTooManyDeviceRules(t *testing.T) {
	if _, err := newDevicePolicy(make([]specs.LinuxDeviceCgroup, maxDeviceRules+1)); err == nil {
		t.Error("no error")
	}
}

// TestLargestDeviceProgram lets the kernel's verifier judge the longest one.
func TestLargestDeviceProgram(t *testing.T) {
	lay := native(t)
	if lay.V2 == "" {
		t.Skip("no v2 hierarchy is mounted")
	}
	rules := []specs.LinuxDeviceCgroup{{Access: "rwm"}}
	for i := range int64(maxDeviceRules - 1) {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: ptr(i), Minor: ptr(1<<32 - 1 - i), Access: "rw"})
	}
	p, err := newDevicePolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	m := create(t, lay, "largest", nil)
	if err := p.attach(m.v2); err != nil {
		t.Fatalf("%d instructions: %v", len(p.program()), err)
	}
}
