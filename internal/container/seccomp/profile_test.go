package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestParseEqualsMoby reads moby's own profile as a file and compares with what
// moby makes of it.
func TestParseEqualsMoby(t *testing.T) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, allCaps} {
		want, err := moby.LoadProfile(string(text), &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseProfile(text, Conditions{Caps: caps, Kernel: kernel61})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("capabilities %v (-moby +got):\n%s", caps, diff)
		}
	}
}

func TestParseProfile(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain":         {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL"}]}`, "read"},
		"old name":      {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_KILL"}]}`, "read"},
		"arch in":       {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"arches":["amd64"]}}]}`, "read"},
		"arch not in":   {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"arches":["arm64"]}}]}`, ""},
		"arch out":      {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","excludes":{"arches":["amd64"]}}]}`, ""},
		"cap in":        {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"caps":["CAP_X"]}}]}`, "read"},
		"two caps":      {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"caps":["CAP_X","CAP_Y"]}}]}`, ""},
		"cap out":       {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","excludes":{"caps":["CAP_Y","CAP_X"]}}]}`, ""},
		"kernel in":     {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"minKernel":"6.1"}}]}`, "read"},
		"newer kernel":  {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"minKernel":"6.2"}}]}`, ""},
		"kernel out":    {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","excludes":{"minKernel":"5.4"}}]}`, ""},
		"bad kernel":    {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"minKernel":"6"}}]}`, "error: invalid kernel version"},
		"empty":         {`{}`, "error: no defaultAction"},
		"not JSON":      {`{`, "error: parse profile"},
		"trailing":      {`{"defaultAction":"SCMP_ACT_ALLOW"}x`, "error: parse profile"},
		"null rule":     {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[null]}`, "error: rule 0 of the profile is null"},
		"no names":      {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_KILL"}]}`, "error: rule 0 of the profile names no"},
		"name and list": {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_KILL"}]}`, "error: both name and names"},
		"two lists":     {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, "error: both architectures and archMap"},
		"huge":          {`{"defaultAction":"SCMP_ACT_ALLOW"}` + strings.Repeat(" ", maxProfile), "error: limit is 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parseFor([]byte(test.text), Conditions{Caps: []string{"CAP_X"}, Kernel: kernel61}, mustArch(t, specs.ArchX86_64))
			if want, ok := strings.CutPrefix(test.want, "error: "); ok {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v, want an error with %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, sc := range s.Syscalls {
				got += strings.Join(sc.Names, " ")
			}
			if got != test.want {
				t.Errorf("got rules for %q, want %q", got, test.want)
			}
		})
	}
}

func TestParseKernelVersion(t *testing.T) {
	for release, want := range map[string]KernelVersion{
		"6.1.0-28-amd64": {6, 1}, "6.18.44": {6, 18}, "5.10": {5, 10}, "7.0-rc1": {7, 0}, "4.19+": {4, 19},
	} {
		if got, err := ParseKernelVersion(release); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", release, got, err, want)
		}
	}
	for _, release := range []string{"", "6", "6.", ".1", "a.b", "-6.1"} {
		if got, err := ParseKernelVersion(release); err == nil {
			t.Errorf("%q: got %v, want an error", release, got)
		}
	}
}

// TestHostileProfiles compiles files that are as bad as the limit on their size
// allows. It only has to end, with little memory.
func TestHostileProfiles(t *testing.T) {
	names := strings.TrimSuffix(strings.Repeat(`"read",`, 100_000), ",")
	args := strings.TrimSuffix(strings.Repeat(`{"index":0,"value":1,"op":"SCMP_CMP_EQ"},`, 2000), ",")
	var different []string
	for i := range 2000 {
		different = append(different, fmt.Sprintf(`{"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":%d,"args":[{"index":%d,"value":%d,"op":"SCMP_CMP_GE"}]}`, i, i%6, i*i))
	}
	for name, rules := range map[string]string{
		"names and conditions equal to the default": `{"names":[` + names + `],"action":"SCMP_ACT_ALLOW","args":[` + args + `]}`,
		"names and conditions":                      `{"names":[` + names + `],"action":"SCMP_ACT_KILL","args":[` + args + `]}`,
		"names":                                     `{"names":[` + names + `],"action":"SCMP_ACT_KILL"}`,
		"rules of different actions":                strings.Join(different, ","),
	} {
		t.Run(name, func(t *testing.T) {
			text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + rules + `]}`
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s, err := ParseProfile([]byte(text), Conditions{Kernel: kernel61})
			if err != nil {
				t.Fatal(err)
			}
			_, err = Compile(s)
			if err != nil && !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v, want nil or %v", err, ErrTooLarge)
			}
			runtime.ReadMemStats(&after)
			if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 100 {
				t.Errorf("%d MiB were allocated for a file of %d bytes", got, len(text))
			}
		})
	}
}

// FuzzProfile feeds profile files to the parser and the compiler. Whatever
// comes out must be a program that the kernel's checks accept: it ends, jumps
// only inside, and gives a verdict for every call.
func FuzzProfile(f *testing.F) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X32"]}],` +
		`"syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY","args":[{"index":0,"value":1,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"},{"index":0,"value":9,"op":"SCMP_CMP_LT"}]},` +
		`{"names":["read"],"action":"SCMP_ACT_TRAP","args":[{"index":1,"value":4294967296,"op":"SCMP_CMP_GE"}]}]}`))
	native, err := findArch(specs.ArchX86_64)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseFor(text, Conditions{Kernel: kernel61}, native)
		if err != nil {
			return
		}
		p, err := compile(s, native)
		if err != nil {
			return
		}
		if len(p.Insns) == 0 || len(p.Insns) > maxInsns || len(p.Bytes()) != 8*len(p.Insns) {
			t.Fatalf("%d instructions", len(p.Insns))
		}
		for pc, i := range p.Insns {
			next := uint64(pc) + 1
			bad := i.Code == ja && next+uint64(i.K) >= uint64(len(p.Insns)) ||
				i.Code != ja && next+uint64(max(i.JT, i.JF)) >= uint64(len(p.Insns)) && i.Code != ret
			if bad || pc == len(p.Insns)-1 && i.Code != ret {
				t.Fatalf("instruction %d (%s) leaves the program", pc, i.text(pc))
			}
		}
		for _, nr := range []uint32{0, 1, 41, 200, 1000, x32Bit, x32Bit + 520, noCall} {
			for _, a := range []uint32{native.audit, 0x40000003, 7} {
				if _, err := p.Run(Data{NR: nr, Arch: a, Args: [6]uint64{1, 1 << 32, ^uint64(0)}}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
