package container

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// planDry plans without making anything.
func planDry(t testing.TB, cfg *Config, f facts) error {
	p, err := newPlanner(cfg, f)
	if err != nil {
		return err
	}
	defer p.release()
	p.dry = true
	defer p.prog.Close()
	if err := p.plan(pipes{-1, -1, -1, -1, -1}); err != nil {
		return err
	}
	_, err = p.prog.WriteTo(io.Discard)
	return err
}

// FuzzPlan: whatever a config.json asks for is planned or refused, without a
// panic, without much time and without a descriptor left. It does not go
// through package ocispec, whose checks the engine's own specifications skip.
func FuzzPlan(f *testing.F) {
	seed := func(change func(*specs.Spec)) {
		s := testSpec("sh")
		change(s)
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	id, mode, gid := 7, os.FileMode(0o4755), uint32(1<<32-1)
	seed(func(*specs.Spec) {})
	seed(func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:6]; s.Process.User.UID = gid })
	seed(func(s *specs.Spec) { s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 1 << 40} })
	seed(func(s *specs.Spec) { s.Process.OOMScoreAdj, s.Process.Cwd = &id, "/proc/self/cwd/../.." })
	seed(func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/../proc/x", Type: "c", Major: 1 << 40, FileMode: &mode, GID: &gid}, {Path: "", Type: "p"}}
	})
	seed(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/..//dev/pts/0/x", Type: "tmpfs", Options: []string{"rro", "uid=x", "", "rbind", "r"}},
			specs.Mount{Destination: "/proc/../sys", Type: "bind", Source: "/", Options: []string{"ridmap"}, UIDMappings: []specs.LinuxIDMapping{{Size: 1<<32 - 1}}})
	})
	seed(func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net/../kernel/x": "1", ".": "", "net.": "\x00"}
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: -1 << 63, Nanosecs: gid}}
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-18446744073709551615"}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: "x"}
	})
	seed(func(s *specs.Spec) {
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 1<<32 - 1, HostID: 1<<32 - 1, Size: 1<<32 - 1}, {Size: 0}}
	})
	host, root := fakeFacts(f), f.TempDir()
	if err := os.Mkdir(root+"/bin", 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(root+"/bin/sh", nil, 0o755); err != nil {
		f.Fatal(err)
	}
	config := func(s *specs.Spec) *Config {
		return &Config{ID: "fuzz", Dir: "/run/bulkhead/fuzz", Spec: s, Layers: &Layers{Lower: []string{root}, Upper: "/none/u", Work: "/none/w"}}
	}
	if err := planDry(f, config(testSpec("sh")), host); err != nil {
		f.Fatal("the first seed is to be planned: ", err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s specs.Spec
		if json.Unmarshal(text, &s) != nil {
			return
		}
		for _, m := range s.Mounts { // nothing of the real host is looked at
			if strings.HasPrefix(m.Source, "/proc/") {
				return
			}
		}
		if s.Linux != nil {
			for _, n := range s.Linux.Namespaces {
				if n.Path != "" {
					return
				}
			}
		}
		before := openFiles(t)
		began := time.Now()
		_ = planDry(t, config(&s), host) // refusing is right too
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("planning took %v", took)
		}
		// What ends of earlier tests opens and closes some meanwhile; a leak stays.
		after := openFiles(t)
		for limit := time.Now().Add(time.Second); after > before && time.Now().Before(limit); after = openFiles(t) {
			time.Sleep(time.Millisecond)
		}
		if after > before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func openFiles(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestTooMany: lists of a hostile specification are refused before they cost
// time.
func TestTooMany(t *testing.T) {
	const many = 200_000
	for name, change := range map[string]func(*Config){
		"mounts": func(c *Config) {
			c.Spec.Mounts = make([]specs.Mount, many)
			for i := range c.Spec.Mounts {
				c.Spec.Mounts[i] = specs.Mount{Destination: "/m" + itoa(i), Type: "tmpfs"}
			}
		},
		"devices": func(c *Config) {
			c.Spec.Linux.Devices = make([]specs.LinuxDevice, many)
			for i := range c.Spec.Linux.Devices {
				c.Spec.Linux.Devices[i] = specs.LinuxDevice{Path: "/dev/" + itoa(i), Type: "p"}
			}
		},
		"maskedPaths":             func(c *Config) { c.Spec.Linux.MaskedPaths = make([]string, many) },
		"readonlyPaths":           func(c *Config) { c.Spec.Linux.ReadonlyPaths = make([]string, many) },
		"rlimits":                 func(c *Config) { c.Spec.Process.Rlimits = make([]specs.POSIXRlimit, many) },
		"descriptors to preserve": func(c *Config) { c.PreserveFDs = 1 << 30 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &Config{ID: "test", Dir: "/none", Spec: testSpec("sh"), Layers: &Layers{Lower: []string{t.TempDir()}}}
			change(cfg)
			began := time.Now()
			err := planDry(t, cfg, fakeFacts(t))
			if err == nil || !strings.Contains(err.Error(), name+": at most") {
				t.Errorf("got %v, want too many %s", err, name)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
