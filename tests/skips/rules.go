package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// rule excuses the skip of some tests on some machines. In the file:
//
//	PACKAGE TEST CONDITION REASON…
//
// PACKAGE is the end of an import path, TEST a pattern as in path.Match whose
// parts are matched against the test's name and its subtests', CONDITION one of
// those that machine knows, or "always".
type rule struct {
	pkg, test, condition, reason string
}

func parseRules(r io.Reader) ([]rule, error) {
	known := machine()
	var rules []rule
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 {
			return nil, fmt.Errorf("line %d: want package, test, condition and reason", n)
		}
		if _, ok := known[f[2]]; !ok {
			return nil, fmt.Errorf("line %d: unknown condition %q", n, f[2])
		}
		if _, err := path.Match(f[1], ""); err != nil {
			return nil, fmt.Errorf("line %d: test pattern %q: %w", n, f[1], err)
		}
		rules = append(rules, rule{f[0], f[1], f[2], strings.Join(f[3:], " ")})
	}
	return rules, s.Err()
}

// match finds a rule that excuses the skip of a test of a package.
func match(rules []rule, conditions map[string]bool, pkg, test string) (rule, bool) {
	for _, r := range rules {
		if !conditions[r.condition] {
			continue
		}
		if pkg != r.pkg && !strings.HasSuffix(pkg, "/"+r.pkg) {
			continue
		}
		// A pattern for a test covers its subtests too.
		for name := test; ; name = path.Dir(name) {
			if ok, _ := path.Match(r.test, name); ok {
				return r, true
			}
			if !strings.Contains(name, "/") {
				break
			}
		}
	}
	return rule{}, false
}

// machine tells which conditions hold here. Each is something that the tests
// cannot install for themselves.
func machine() map[string]bool {
	return map[string]bool{
		"always":                true,
		"short":                 os.Getenv("BULKHEAD_TIER") == "short",
		"vm":                    os.Getenv("BOUNDARY") == "vm",
		"not-vm":                os.Getenv("BOUNDARY") != "vm",
		"gvisor":                os.Getenv("BOUNDARY") == "gvisor",
		"no-i386":               !takesI386(),
		"no-apparmor":           !yes("/sys/module/apparmor/parameters/enabled"),
		"no-selinux":            !exists("/sys/fs/selinux/enforce"),
		"no-pure-cgroup2":       !exists("/sys/fs/cgroup/cgroup.controllers"),
		"pure-cgroup2":          exists("/sys/fs/cgroup/cgroup.controllers"),
		"not-root":              os.Geteuid() != 0,
		"no-cap-sys-resource":   !hasCapability(24),
		"no-swap":               swapIsEmpty(),
		"no-kvm":                !exists("/dev/kvm"),
		"no-guest-image":        !made(".cache/guest/*/vmlinux"),
		"no-kernel-6.1":         !strings.HasPrefix(release(), "6.1."),
		"no-docker":             !onPath("dockerd"),
		"no-podman":             !onPath("podman"),
		"no-runc":               !onPath("runc"),
		"no-crun":               !onPath("crun"),
		"no-runsc":              !onPath("runsc"),
		"no-chromium":           !onPath("chromium"),
		"no-network":            !defaultRoute(),
		"no-libseccomp-headers": !exists("/usr/include/seccomp.h"),
	}
}

// defaultRoute reports whether packets have a way out: a route to everywhere.
func defaultRoute() bool {
	v4, _ := os.ReadFile("/proc/net/route")
	for line := range strings.Lines(string(v4)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return true
		}
	}
	v6, _ := os.ReadFile("/proc/net/ipv6_route")
	for line := range strings.Lines(string(v6)) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.Trim(f[0]+f[1], "0") == "" && f[9] != "lo" {
			return true
		}
	}
	return false
}

// takesI386 runs a program of one segment, which asks for the exit of i386
// (arch/x86/entry/syscalls/syscall_32.tbl): some virtual machines do not let a
// 64-bit program do so, whatever their kernel was built with.
func takesI386() bool {
	code := []byte{
		0x31, 0xdb, // xor ebx, ebx
		0xb8, 1, 0, 0, 0, // mov eax, 1
		0xcd, 0x80, // int 0x80
		0xf4, // hlt, which ends it with a signal
	}
	const (
		base    = 0x400000
		headers = 64 + 56
	)
	size := uint64(headers + len(code))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Filesz: size, Memsz: size, Align: 4096},
		code,
	} {
		binary.Write(&b, binary.LittleEndian, part) //nolint:errcheck // to memory
	}
	dir, err := os.MkdirTemp("", "i386-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "exit")
	return os.WriteFile(program, b.Bytes(), 0o700) == nil && exec.Command(program).Run() == nil
}

func exists(file string) bool { _, err := os.Stat(file); return err == nil }

// made tells whether something matches a pattern below the module's root, where
// this program runs.
func made(pattern string) bool {
	found, err := filepath.Glob(pattern)
	return err == nil && len(found) > 0
}

func yes(file string) bool {
	b, err := os.ReadFile(file)
	return err == nil && bytes.HasPrefix(b, []byte("Y"))
}

func onPath(program string) bool { _, err := exec.LookPath(program); return err == nil }

func release() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return string(b)
}

func swapIsEmpty() bool {
	b, err := os.ReadFile("/proc/swaps")
	return err == nil && bytes.Count(b, []byte("\n")) < 2
}

// hasCapability looks in the bounding set, which is what a test run as root
// could have.
func hasCapability(bit uint) bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(b), "\n") {
		var set uint64
		if _, err := fmt.Sscanf(line, "CapBnd: %x", &set); err == nil {
			return set&(1<<bit) != 0
		}
	}
	return false
}
