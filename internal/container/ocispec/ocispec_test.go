package ocispec

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// minimal is the smallest configuration that is accepted; tests change one
// thing in it.
func minimal() *specs.Spec {
	return &specs.Spec{
		Version: "1.3.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Cwd: "/", Args: []string{"sh"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace},
		}},
	}
}

func TestValidate(t *testing.T) {
	ptr := func(n int) *int { return &n }
	maps := func(c, h, n uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: c, HostID: h, Size: n}}
	}
	ns := func(s *specs.Spec, list ...specs.LinuxNamespaceType) {
		for _, n := range list {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n})
		}
	}
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
		want   string // "" is accepted
	}{
		{"minimal", func(*specs.Spec) {}, ""},
		{"no version", func(s *specs.Spec) { s.Version = "" }, "ociVersion: missing"},
		{"development version", func(s *specs.Spec) { s.Version = "1.0.2-dev" }, ""},
		{"version of another major", func(s *specs.Spec) { s.Version = "2.0.0" }, "ociVersion: 2.0.0 is not supported"},
		{"version is no version", func(s *specs.Spec) { s.Version = "1" }, "not a semantic version"},
		{"no root", func(s *specs.Spec) { s.Root = nil }, "root.path: missing"},
		{"no linux", func(s *specs.Spec) { s.Linux = nil }, "linux: missing"},
		{"no process", func(s *specs.Spec) { s.Process = nil }, ""},
		{"no arguments", func(s *specs.Spec) { s.Process.Args = nil }, "process.args: no command"},
		{"empty command", func(s *specs.Spec) { s.Process.Args = []string{""} }, "process.args: no command"},
		{"no cwd", func(s *specs.Spec) { s.Process.Cwd = "" }, "process.cwd: missing"},
		{"relative cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" }, "not an absolute path"},
		{"env without value", func(s *specs.Spec) { s.Process.Env = []string{"A"} }, "process.env[0]"},
		{"env without name", func(s *specs.Spec) { s.Process.Env = []string{"=A"} }, "process.env[0]"},
		{"oom score", func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(1001) }, "oomScoreAdj"},
		{"unknown rlimit", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, "no resource limit"},
		{"rlimit twice", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		}, "given twice"},
		{"soft above hard", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}}
		}, "above the hard limit"},
		{"capability that no kernel knows", func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"KILL"}}
		}, ""},
		{"scheduler policy", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "X"} }, "no policy"},
		{"deadline without its policy", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Runtime: 1}
		}, "SCHED_DEADLINE"},
		{"io class", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }, "no class"},
		{"hostname without uts", func(s *specs.Spec) { s.Hostname = "a" }, "needs a uts namespace"},
		{"hostname", func(s *specs.Spec) { s.Hostname = "a"; ns(s, specs.UTSNamespace) }, ""},
		{"long hostname", func(s *specs.Spec) {
			s.Hostname = strings.Repeat("a", 65)
			ns(s, specs.UTSNamespace)
		}, "longer than 64"},
		{"mount without destination", func(s *specs.Spec) { s.Mounts = []specs.Mount{{}} }, "mounts[0].destination: missing"},
		{"mount maps, one of two", func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/a", Type: "bind", UIDMappings: maps(0, 1, 1)}}
		}, "given together"},
		{"mount maps on proc", func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/a", Type: "proc", UIDMappings: maps(0, 1, 1), GIDMappings: maps(0, 1, 1)}}
		}, "bind mounts"},
		{"relative hook", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "true"}}}
		}, "hooks.poststop[0].path"},
		{"hook without time", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x", Timeout: ptr(0)}}}
		}, "hooks.createRuntime[0].timeout"},
		{"namespace twice", func(s *specs.Spec) { ns(s, specs.PIDNamespace) }, "given twice"},
		{"unknown namespace", func(s *specs.Spec) { ns(s, "x") }, "no namespace"},
		{"relative namespace path", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "x" }, "not an absolute path"},
		{"maps without namespace", func(s *specs.Spec) { s.Linux.UIDMappings = maps(0, 1, 1) }, "needs a user namespace"},
		{"namespace without maps", func(s *specs.Spec) { ns(s, specs.UserNamespace) }, "needs uidMappings and gidMappings"},
		{"map of nothing", func(s *specs.Spec) { s.Linux.UIDMappings = maps(0, 1, 0) }, "size: must be more"},
		{"map to the end", func(s *specs.Spec) {
			ns(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps(0, 1, 0xffffffff), maps(0, 1, 0xffffffff)
		}, ""},
		{"map beyond the end", func(s *specs.Spec) { s.Linux.UIDMappings = maps(2, 1, 0xffffffff) }, "beyond the largest ID"},
		{"maps overlap", func(s *specs.Spec) {
			s.Linux.UIDMappings = append(maps(0, 100, 10), maps(5, 200, 10)...)
		}, "overlaps"},
		{"user is not mapped", func(s *specs.Spec) {
			ns(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps(0, 1000, 10), maps(0, 1000, 10)
			s.Process.User.UID = 10
		}, "process.user.uid: 10 is not in"},
		{"group is not mapped", func(s *specs.Spec) {
			ns(s, specs.UserNamespace)
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps(0, 1000, 10), maps(0, 1000, 10)
			s.Process.User.AdditionalGids = []uint32{11}
		}, "group 11 is not in"},
		{"host sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, "would change the host"},
		{"sysctl with slashes", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel/panic": "1"} }, "would change the host"},
		{"network sysctl on the host's", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		}, "needs a network namespace"},
		{"network sysctl", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net/ipv4/ip_forward": "1"}
			ns(s, specs.NetworkNamespace)
		}, ""},
		{"sysctl that climbs", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"}
			ns(s, specs.NetworkNamespace)
		}, "not the name"},
		{"offsets without time namespace", func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}}
		}, "needs a new time namespace"},
		{"offsets of another clock", func(s *specs.Spec) {
			ns(s, specs.TimeNamespace)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 1}}
		}, "neither monotonic nor boottime"},
		{"relative masked path", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc/x"} }, "linux.maskedPaths[0]"},
		{"masks without mount namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = nil
			s.Linux.MaskedPaths = []string{"/proc/kcore"}
		}, "needs a mount namespace"},
		{"propagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }, "no propagation"},
		{"device type", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}} }, "not one of c, b, u, p"},
		{"device number", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: -1}}
		}, "no device number"},
		{"device rule", func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "c", Access: "rwx"}}}
		}, "not made of r, w, m"},
		{"negative memory", func(s *specs.Spec) {
			n := int64(-2)
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
		}, "linux.resources.memory.limit: -2 is negative"},
		{"unified path", func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"../x": "1"}}
		}, "not a controller's file"},
		{"rdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "linux.intelRdt: not supported"},
		{"network devices", func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}}
		}, "linux.netDevices: not supported"},
		{"notification of write", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActNotify}}}
		}, "cannot be used for the write"},
		{"notification of everything", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}
		}, "cannot be used as default"},
		{"selinux", func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c" }, "process.selinuxLabel: not supported"},
		{"vm", func(s *specs.Spec) { s.VM = &specs.VM{} }, "vm: not supported"},
		{"empty annotation", func(s *specs.Spec) { s.Annotations = map[string]string{"": "x"} }, "a key is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := minimal()
			c.change(s)
			err := Validate(s)
			if c.want == "" {
				if err != nil {
					t.Fatalf("got %v, want it accepted", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one sentence", err)
			}
		})
	}
}

func TestUnsupportedIsTyped(t *testing.T) {
	s := minimal()
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{}
	var e *UnsupportedError
	if err := Validate(s); !errors.As(err, &e) || e.Property != "linux.intelRdt" {
		t.Fatalf("got %v, want an UnsupportedError for linux.intelRdt", err)
	}
}

func TestSysctlName(t *testing.T) {
	for _, c := range []struct{ key, name string }{
		{"net.ipv4.ip_forward", "net.ipv4.ip_forward"},
		{"net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"},
		{"net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"},
		{"", ""}, {"net..a", ""}, {"/net/a", ""}, {"net/../a", ""}, {"net/a/", ""}, {"net.//.a", ""},
	} {
		name, err := SysctlName(c.key)
		if (c.name == "") != (err != nil) || err == nil && name != c.name {
			t.Errorf("SysctlName(%q) = %q, %v; want %q", c.key, name, err, c.name)
		}
	}
}

func TestParseExplains(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "line 1 is not JSON"},
		{"cut off", "{\n\"root\": {", "line 2 is not JSON"},
		{"wrong kind", `{"ociVersion": "1.0.0", "process": {"cwd": 1}}`, "process.cwd: a number cannot be read as string"},
		{"NUL", `{"ociVersion": "1.0.0", "hostname": "a\u0000b"}`, "NUL"},
		{"escaped backslash, no NUL", `{"ociVersion": "1.0.0", "hostname": "a\\u0000b"}`, "root.path: missing"},
		{"backslash and NUL", `{"hostname": "a\\\u0000b"}`, "NUL"},
		{"not an object", `[]`, "cannot"},
	} {
		_, err := Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Load(dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "has no config.json") {
		t.Errorf("empty bundle: got %v", err)
	}
	file := filepath.Join(dir, ConfigName)
	text, err := json.Marshal(minimal())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, kept, err := Load(dir)
	if err != nil || s.Process.Args[0] != "sh" || string(kept) != string(text) {
		t.Errorf("got %+v, %q, %v", s, kept, err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(MaxSize + 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, _, err := Load(dir); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge file: got %v, want ErrTooLarge", err)
	}
}

func TestReadResources(t *testing.T) {
	r, err := ReadResources(strings.NewReader(`{"pids": {"limit": 10}}`))
	if err != nil || *r.Pids.Limit != 10 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := ReadResources(strings.NewReader(`{"memory": {"limit": -5}}`)); err == nil {
		t.Error("a negative limit was accepted")
	}
}

func FuzzParse(f *testing.F) {
	text, _ := json.Marshal(minimal())
	f.Add(text)
	f.Add([]byte(`{"linux":{"sysctl":{"net/../a":""},"uidMappings":[{"size":4294967295}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		// What was accepted says the same after a round trip.
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(again); err != nil {
			t.Fatalf("accepted, but not after a round trip: %v", err)
		}
	})
}
