package gvisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// fate is what becomes of a field of the specification behind gvisor. With set,
// it is tried: a refusal, or what says it in what runsc gets.
type fate struct {
	how     string
	set     func(*workload.Spec)
	refused bool
	shows   func(c *specs.Spec, text string) bool
}

const (
	byEngine  = "the engine's affair, the same behind every boundary"
	byCgroup  = "in force in the cgroup that holds the sandbox, or Create fails"
	bySandbox = "in force in the sandbox"
	byStage   = "in force on the host, in the mount that the sandbox is given"
)

func file() []workload.Mount {
	return []workload.Mount{{Type: "bind", Source: "/etc", Target: "/host"}}
}

func tmpfs(m workload.Mount) func(*workload.Spec) {
	m.Type, m.Target = "tmpfs", "/scratch"
	return func(s *workload.Spec) { s.Mounts = []workload.Mount{m} }
}

// fates has every field of workload.Spec, by its path. What is neither refused
// nor in force must not be there.
var fates = map[string]fate{
	"ID": {how: byEngine}, "Name": {how: byEngine}, "Created": {how: byEngine}, "Boundary": {how: byEngine}, "Image": {how: byEngine},
	"Labels": {how: byEngine}, "Networks": {how: byEngine}, "Ports": {how: byEngine}, "Exposed": {how: byEngine}, "DNS": {how: byEngine},
	"ExtraHosts": {how: byEngine}, "StopSignal": {how: byEngine}, "StopTimeout": {how: byEngine}, "Restart": {how: byEngine},
	"Health": {how: byEngine}, "Log": {how: byEngine}, "AutoRemove": {how: byEngine}, "KeepStdin": {how: byEngine},
	"VM": {how: "of another boundary: the command line refuses it"},
	"Runtime": {how: "the runsc to use", set: func(s *workload.Spec) { s.Runtime = workload.Runtime{Name: "mine", Path: "/opt/mine"} },
		shows: func(_ *specs.Spec, text string) bool { return strings.Contains(text, "\n/opt/mine --root") }},
	"Hostname": {how: bySandbox, set: func(s *workload.Spec) { s.Hostname = "cell" },
		shows: func(c *specs.Spec, _ string) bool { return c.Hostname == "cell" }},
	"ReadOnlyRoot": {how: bySandbox, set: func(s *workload.Spec) { s.ReadOnlyRoot = true },
		shows: func(c *specs.Spec, _ string) bool { return c.Root.Readonly }},
	"Init":    {how: "bulkhead-init runs in the sandbox"},
	"Network": {how: "the host's is refused", refused: true, set: func(s *workload.Spec) { s.Network = workload.NetworkHost }},
	"Devices": {how: "refused", refused: true, set: func(s *workload.Spec) { s.Devices = []workload.Device{{Source: "/dev/null"}} }},

	"Process.Args": {how: bySandbox}, "Process.Cwd": {how: bySandbox}, "Process.Groups": {how: bySandbox},
	"Process.User": {how: "a number in the sandbox, looked up by us"},
	"Process.Rows": {how: bySandbox}, "Process.Cols": {how: bySandbox}, "Process.Terminal": {how: bySandbox},
	"Process.Env": {how: bySandbox, set: func(s *workload.Spec) { s.Process.Env = []string{"A=b"} },
		shows: func(c *specs.Spec, _ string) bool { return slices.Contains(c.Process.Env, "A=b") }},
	"Process.Rlimits": {how: bySandbox,
		set: func(s *workload.Spec) {
			s.Process.Rlimits = []workload.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 7, Hard: 8}}
		},
		shows: func(c *specs.Spec, _ string) bool {
			return len(c.Process.Rlimits) == 1 && c.Process.Rlimits[0].Soft == 7
		}},

	"Namespaces.HostUser": {how: "the sandbox is in no user namespace of its own", set: func(s *workload.Spec) { s.Namespaces.HostUser = true },
		shows: func(c *specs.Spec, _ string) bool {
			return !slices.ContainsFunc(c.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
		}},
	"Namespaces.HostPID": {how: "refused", refused: true, set: func(s *workload.Spec) { s.Namespaces.HostPID = true }},
	"Namespaces.HostIPC": {how: "refused", refused: true, set: func(s *workload.Spec) { s.Namespaces.HostIPC = true }},
	"Namespaces.HostUTS": {how: "refused", refused: true, set: func(s *workload.Spec) { s.Namespaces.HostUTS = true }},

	"Mounts.Type": {how: byStage}, "Mounts.Source": {how: byStage}, "Mounts.Target": {how: byStage}, "Mounts.Recursive": {how: byStage},
	"Mounts.CreateSource": {how: byEngine}, "Mounts.Anonymous": {how: byEngine}, "Mounts.NoCopy": {how: byEngine},
	"Mounts.ReadOnly": {how: byStage, set: func(s *workload.Spec) { s.Mounts = file(); s.Mounts[0].ReadOnly = true },
		shows: func(_ *specs.Spec, text string) bool {
			return strings.Contains(text, "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NODEV")
		}},
	"Mounts.NoExec": {how: byStage, set: func(s *workload.Spec) { s.Mounts = file(); s.Mounts[0].NoExec = true },
		shows: func(_ *specs.Spec, text string) bool { return strings.Contains(text, "MOUNT_ATTR_NOEXEC") }},
	"Mounts.Propagation": {how: "any but private is refused", refused: true, set: func(s *workload.Spec) { s.Mounts = file(); s.Mounts[0].Propagation = "rslave" }},
	"Mounts.TmpfsSize": {how: byStage, set: tmpfs(workload.Mount{TmpfsSize: 12345}),
		shows: func(_ *specs.Spec, text string) bool { return strings.Contains(text, `"size", "12345"`) }},
	"Mounts.TmpfsMode": {how: byStage, set: tmpfs(workload.Mount{TmpfsMode: 0o710}),
		shows: func(_ *specs.Spec, text string) bool { return strings.Contains(text, `"mode", "710"`) }},

	"Resources.Memory": {how: byCgroup}, "Resources.MemorySwap": {how: byCgroup}, "Resources.MemoryReservation": {how: byCgroup},
	"Resources.CPUs": {how: byCgroup}, "Resources.CPUWeight": {how: byCgroup}, "Resources.CpusetCPUs": {how: byCgroup},
	"Resources.CpusetMems": {how: byCgroup}, "Resources.Pids": {how: byCgroup}, "Resources.IOWeight": {how: byCgroup},
	"Resources.IOLimits": {how: byCgroup}, "Resources.Unified": {how: byCgroup},
	"Resources.OOMScoreAdj": {how: "of the sandbox", set: func(s *workload.Spec) { n := 5; s.Resources.OOMScoreAdj = &n },
		shows: func(c *specs.Spec, _ string) bool { return c.Process.OOMScoreAdj != nil && *c.Process.OOMScoreAdj == 5 }},
	"Resources.ShmSize": {how: bySandbox, set: func(s *workload.Spec) { s.Resources.ShmSize = 4096 },
		shows: func(c *specs.Spec, _ string) bool {
			return slices.ContainsFunc(c.Mounts, func(m specs.Mount) bool {
				return m.Destination == "/dev/shm" && slices.Contains(m.Options, "size=4096")
			})
		}},

	"Security.CapAdd": {how: bySandbox, set: func(s *workload.Spec) { s.Security.CapAdd = []string{"NET_RAW"} },
		shows: func(c *specs.Spec, text string) bool {
			return slices.Contains(c.Process.Capabilities.Bounding, "CAP_NET_RAW") && strings.Contains(text, " --net-raw")
		}},
	"Security.CapDrop": {how: bySandbox, set: func(s *workload.Spec) { s.Security.CapDrop = []string{"ALL"} },
		shows: func(c *specs.Spec, _ string) bool { return len(c.Process.Capabilities.Bounding) == 0 }},
	"Security.Seccomp": {how: bySandbox, set: func(s *workload.Spec) { s.Security.Seccomp = `{"defaultAction":"SCMP_ACT_KILL"}` },
		shows: func(c *specs.Spec, text string) bool {
			return c.Linux.Seccomp.DefaultAction == specs.ActKill && strings.Contains(text, " --oci-seccomp")
		}},
	"Security.SeccompReport": {how: "refused", refused: true, set: func(s *workload.Spec) { s.Security.SeccompReport = true }},
	"Security.AppArmor":      {how: "refused by name; the default confines containers", refused: true, set: func(s *workload.Spec) { s.Security.AppArmor = "mine" }},
	"Security.NewPrivileges": {how: bySandbox, set: func(s *workload.Spec) { s.Security.NewPrivileges = true },
		shows: func(c *specs.Spec, text string) bool {
			return !c.Process.NoNewPrivileges && strings.Contains(text, " --allow-suid")
		}},
	"Security.Unmask":  {how: "nothing is masked: what /proc and /sys show is the sandbox's own"},
	"Security.Sysctls": {how: "refused, but for those that gVisor knows", refused: true, set: func(s *workload.Spec) { s.Security.Sysctls = map[string]string{"net.core.somaxconn": "1"} }},
}

// fields lists the fields of the specification, and those of its parts that are
// asked for one by one.
func fields(t reflect.Type, prefix string) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		switch f.Name {
		case "Process", "Namespaces", "Resources", "Security":
			out = append(out, fields(f.Type, f.Name+".")...)
		case "Mounts":
			out = append(out, fields(f.Type.Elem(), f.Name+".")...)
		default:
			out = append(out, prefix+f.Name)
		}
	}
	return out
}

// TestEveryField goes through the specification: each field is in force, or
// refused. A new one fails here until somebody has looked.
func TestEveryField(t *testing.T) {
	all := fields(reflect.TypeFor[workload.Spec](), "")
	for _, name := range all {
		f, ok := fates[name]
		if !ok {
			t.Errorf("%s: nobody has decided what it means behind gvisor", name)
			continue
		}
		if f.set == nil {
			continue
		}
		s := workload.Spec{ID: workload.NewID(), Hostname: "h", Network: "none", Process: workload.Process{Args: []string{"true"}, Cwd: "/"}}
		f.set(&s)
		var text bytes.Buffer
		err := Boundary{Program: "/usr/bin/runsc"}.Explain(s, prepared(t), &text)
		if f.refused {
			if !errors.Is(err, workload.ErrUnsupported) {
				t.Errorf("%s: got %v, want a refusal", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !f.shows(config(t, text.String()), text.String()) {
			t.Errorf("%s, %s: not to be seen in\n%s", name, f.how, text.String())
		}
	}
	for name := range fates {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no field any more", name)
		}
	}
}

// config finds the bundle's configuration in what Explain prints.
func config(t *testing.T, text string) *specs.Spec {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n{\n")
	if !ok {
		t.Fatalf("no configuration in\n%s", text)
	}
	var c specs.Spec
	if err := json.NewDecoder(strings.NewReader("{" + rest)).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return &c
}

// TestUnusedLimits wants every limit of a process refused that gVisor never looks at.
func TestUnusedLimits(t *testing.T) {
	for name, refused := range map[string]bool{
		"MSGQUEUE": true, "NICE": true, "RTPRIO": true, "RTTIME": true, "SIGPENDING": true, "NOFILE": false, "STACK": false,
	} {
		s := workload.Spec{Process: workload.Process{Rlimits: []workload.Rlimit{{Type: "RLIMIT_" + name, Soft: 1, Hard: 1}}}}
		err := check(s)
		if errors.Is(err, workload.ErrUnsupported) != refused || refused && !strings.Contains(err.Error(), "--ulimit "+strings.ToLower(name)) {
			t.Errorf("%s: got %v, want a refusal: %v", name, err, refused)
		}
	}
}

func prepared(t *testing.T) boundary.Prepared {
	dir := t.TempDir()
	return boundary.Prepared{Dir: dir, Layers: []string{dir + "/layer"}, Upper: dir + "/upper", Work: dir + "/work", IDBase: 100000, IDCount: 65536, Cgroup: "/bulkhead/x"}
}

func TestMissingProgram(t *testing.T) {
	if _, err := ociruntime.Find("runsc"); err == nil {
		t.Skip("runsc is installed")
	}
	err := Boundary{}.Check(t.Context())
	if !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "make runsc") {
		t.Errorf("got %v", err)
	}
	if _, err := (Boundary{Program: "/no/such/runsc"}).Create(t.Context(), workload.Spec{ID: workload.NewID(), Process: workload.Process{Args: []string{"x"}}}, prepared(t)); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("create: got %v", err)
	}
}
