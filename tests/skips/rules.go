package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/tsc"
	"github.com/seed-f5e3b97b/bulkhead/tests/abilities"
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
		"no-i386":               !abilities.TakesI386(),
		"no-tsc":                !tsc.Trusted(),
		"no-apparmor":           !yes("/sys/module/apparmor/parameters/enabled"),
		"no-selinux":            !exists("/sys/fs/selinux/enforce"),
		"no-pure-cgroup2":       !exists("/sys/fs/cgroup/cgroup.controllers"),
		"pure-cgroup2":          exists("/sys/fs/cgroup/cgroup.controllers"),
		"not-root":              os.Geteuid() != 0,
		"no-cap-sys-resource":   !hasCapability(24),
		"no-cap-sys-time":       !hasCapability(25),
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
