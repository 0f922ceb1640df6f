package runtimespec

import (
	"errors"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func specOf(t *testing.T, change func(*workload.Spec)) *specs.Spec {
	t.Helper()
	out, err := trySpec(change)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func trySpec(change func(*workload.Spec)) (*specs.Spec, error) {
	s := workload.Spec{ID: workload.NewID(), Hostname: "cell", Network: "none", Process: workload.Process{Args: []string{"true"}, Cwd: "/"}}
	change(&s)
	p := boundary.Prepared{IDBase: 100000, IDCount: 65536, Cgroup: "/bulkhead/x", Files: map[string]string{"/etc/hosts": "/run/hosts"}}
	return Of(s, p, seccomp.KernelVersion{Major: 6, Minor: 1})
}

// knownBut is every capability but one.
func knownBut(c string) []string {
	return slices.DeleteFunc(container.KnownCapabilities(), func(k string) bool { return k == c })
}

func TestCapabilities(t *testing.T) {
	for _, tt := range []struct {
		name      string
		add, drop []string
		want      string // of the bounding set; "default" and "all" stand for those
	}{
		{"nothing said", nil, nil, "default"},
		{"drop all", nil, []string{"ALL"}, ""},
		{"drop all, add one", []string{"net_raw"}, []string{"all"}, "CAP_NET_RAW"},
		{"prefix or not", []string{"CAP_NET_RAW", "NET_RAW"}, []string{"ALL"}, "CAP_NET_RAW"},
		{"add all", []string{"ALL"}, nil, "all"},
		{"add all, drop one", []string{"ALL"}, []string{"SYS_ADMIN"}, "all but CAP_SYS_ADMIN"},
		{"drop what was added", []string{"SYS_TIME"}, []string{"ALL", "SYS_TIME"}, ""},
	} {
		got, err := Capabilities(workload.Security{CapAdd: tt.add, CapDrop: tt.drop})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var want []string
		switch {
		case tt.want == "default":
			want = slices.Clone(defaultCapabilities)
		case strings.HasPrefix(tt.want, "all"):
			want = knownBut(strings.TrimPrefix(tt.want, "all but "))
		default:
			want = strings.Fields(tt.want)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, want)
		}
	}
	if _, err := Capabilities(workload.Security{CapAdd: []string{"FLY"}}); err == nil {
		t.Error("an unknown capability was taken")
	}
}

// TestSetsOfCapabilities: what is not in the bounding set is nowhere else, and
// nothing is inheritable or ambient.
func TestSetsOfCapabilities(t *testing.T) {
	c := specOf(t, func(*workload.Spec) {}).Process.Capabilities
	if len(c.Ambient)+len(c.Inheritable) > 0 {
		t.Errorf("ambient %v, inheritable %v; want none", c.Ambient, c.Inheritable)
	}
	if !slices.Equal(c.Bounding, c.Permitted) || !slices.Equal(c.Bounding, c.Effective) {
		t.Errorf("the sets differ: %+v", c)
	}
}

func TestNamespaces(t *testing.T) {
	all := []specs.LinuxNamespaceType{"mount", "cgroup", "user", "pid", "ipc", "uts", "network"}
	for name, tt := range map[string]struct {
		change  func(*workload.Spec)
		missing specs.LinuxNamespaceType
	}{
		"default":        {func(*workload.Spec) {}, ""},
		"--userns host":  {func(s *workload.Spec) { s.Namespaces.HostUser = true }, "user"},
		"--pid host":     {func(s *workload.Spec) { s.Namespaces.HostPID = true }, "pid"},
		"--ipc host":     {func(s *workload.Spec) { s.Namespaces.HostIPC = true }, "ipc"},
		"--uts host":     {func(s *workload.Spec) { s.Namespaces.HostUTS = true }, "uts"},
		"--network host": {func(s *workload.Spec) { s.Network = "host" }, "network"},
	} {
		var got []specs.LinuxNamespaceType
		spec := specOf(t, tt.change)
		for _, n := range spec.Linux.Namespaces {
			got = append(got, n.Type)
		}
		want := slices.DeleteFunc(slices.Clone(all), func(n specs.LinuxNamespaceType) bool { return n == tt.missing })
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if mapped := len(spec.Linux.UIDMappings) > 0; mapped == (tt.missing == "user") {
			t.Errorf("%s: ID mappings %v", name, spec.Linux.UIDMappings)
		}
	}
}

func TestMasks(t *testing.T) {
	spec := specOf(t, func(*workload.Spec) {})
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/acpi", "/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap"} {
		if !slices.Contains(spec.Linux.MaskedPaths, p) {
			t.Errorf("%s is not masked", p)
		}
	}
	open := specOf(t, func(s *workload.Spec) { s.Security.Unmask = []string{"/proc/kcore/", "/proc/sys"} })
	if slices.Contains(open.Linux.MaskedPaths, "/proc/kcore") || slices.Contains(open.Linux.ReadonlyPaths, "/proc/sys") {
		t.Error("what was to be unmasked is not")
	}
	if !slices.Contains(open.Linux.MaskedPaths, "/proc/keys") {
		t.Error("more than what was to be unmasked is open")
	}
	if all := specOf(t, func(s *workload.Spec) { s.Security.Unmask = []string{"all"} }); len(all.Linux.MaskedPaths)+len(all.Linux.ReadonlyPaths) > 0 {
		t.Error("unmask=ALL leaves masks")
	}
}

func TestSeccompChoice(t *testing.T) {
	if s := specOf(t, func(*workload.Spec) {}).Linux.Seccomp; s == nil || s.DefaultAction == specs.ActAllow {
		t.Errorf("default filter: %+v", s)
	}
	if s := specOf(t, func(s *workload.Spec) { s.Security.Seccomp = "unconfined" }).Linux.Seccomp; s != nil {
		t.Error("unconfined has a filter")
	}
	own := specOf(t, func(s *workload.Spec) {
		s.Security.Seccomp = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`
	}).Linux.Seccomp
	if own == nil || own.DefaultAction != specs.ActAllow || len(own.Syscalls) != 1 {
		t.Errorf("own profile became %+v", own)
	}
	if _, err := trySpec(func(s *workload.Spec) { s.Security.Seccomp = "{" }); err == nil {
		t.Error("a broken profile was taken")
	}
}

func TestUserMountsReplaceOurs(t *testing.T) {
	spec := specOf(t, func(s *workload.Spec) {
		s.Mounts = []workload.Mount{{Type: "bind", Source: "/srv", Target: "/etc/hosts/", ReadOnly: true}, {Type: "tmpfs", Target: "/scratch", TmpfsSize: 1 << 20}}
	})
	n := 0
	for _, m := range spec.Mounts {
		if strings.TrimRight(m.Destination, "/") == "/etc/hosts" {
			n++
			for _, want := range []string{"bind", "ro", "nodev", "idmap", "rprivate"} {
				if !slices.Contains(m.Options, want) {
					t.Errorf("options %v lack %q", m.Options, want)
				}
			}
		}
		if m.Destination == "/scratch" && !slices.Contains(m.Options, "size=1048576") {
			t.Errorf("tmpfs options %v", m.Options)
		}
	}
	if n != 1 {
		t.Errorf("%d mounts at /etc/hosts, want 1", n)
	}
	_, err := trySpec(func(s *workload.Spec) { s.Mounts = []workload.Mount{{Type: "nfs", Target: "/x"}} })
	if !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("mount type nfs: got %v, want ErrUnsupported", err)
	}
}

// TestFilesComeAfterUserMounts: a volume at /etc covers the image's files, not the
// engine's, but for those that the user mounts something in the place of.
func TestFilesComeAfterUserMounts(t *testing.T) {
	s := workload.Spec{Mounts: []workload.Mount{{Type: "bind", Source: "/srv", Target: "/etc"}, {Type: "bind", Source: "/opt", Target: "/etc/hosts/"}}}
	all, err := mounts(s, boundary.Prepared{Files: map[string]string{"/etc/hosts": "/run/hosts", "/etc/resolv.conf": "/run/resolv", "/etc/hostname": "/run/name"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		if strings.HasPrefix(m.Destination, "/etc") {
			got = append(got, m.Destination+" "+m.Source)
		}
	}
	if want := []string{"/etc /srv", "/etc/hosts/ /opt", "/etc/hostname /run/name", "/etc/resolv.conf /run/resolv"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestShiftedSources wants an ID-mapped mount for every source but those whose
// files show the workload's owners already: mapped twice, they would belong to nobody.
func TestShiftedSources(t *testing.T) {
	s := workload.Spec{Mounts: []workload.Mount{
		{Type: "bind", Source: "/srv", Target: "/a"},
		{Type: "bind", Source: "/srv", Target: "/b", Recursive: true},
		{Type: "bind", Source: "/opt", Target: "/c"},
		{Type: "bind", Source: "/opt", Target: "/d", Recursive: true, ReadOnly: true},
		{Type: "bind", Source: "/opt", Target: "/e", Recursive: true, NoExec: true},
	}}
	all, err := mounts(s, boundary.Prepared{IDBase: 100000, IDCount: 65536, Shifted: []string{"/srv"}})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"/a": "bind rprivate nodev",
		"/b": "rbind rprivate nodev rnodev",
		"/c": "bind rprivate nodev idmap",
		"/d": "rbind rprivate nodev ridmap rnodev rro ro",
		"/e": "rbind rprivate nodev ridmap rnodev rnoexec noexec",
	} {
		i := slices.IndexFunc(all, func(m specs.Mount) bool { return m.Destination == target })
		if got := strings.Join(all[i].Options, " "); got != want {
			t.Errorf("%s: got %q, want %q", target, got, want)
		}
	}
}

func TestResources(t *testing.T) {
	for _, bad := range []workload.Resources{{CPUs: -1}, {CPUs: 0.001}, {IOWeight: 10, IOLimits: []workload.IOLimit{{Device: "/dev/null", ReadBPS: 1}}}, {IOLimits: []workload.IOLimit{{Device: "/nonexistent"}}}} {
		if _, err := Resources(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	r, err := Resources(workload.Resources{CPUs: 1.5})
	if err != nil || *r.CPU.Quota != 150000 || *r.CPU.Period != 100000 {
		t.Errorf("1.5 processors: %+v, %v", r.CPU, err)
	}
	if r, _ := Resources(workload.Resources{}); r.Memory != nil || r.CPU != nil || r.Pids != nil || r.BlockIO != nil || len(r.Devices) == 0 || r.Devices[0].Allow {
		t.Errorf("no limits became %+v", r)
	}
}

func TestOldKernel(t *testing.T) {
	for release, ok := range map[string]bool{"6.1.0-28-amd64": true, "6.18.44": true, "7.0": true, "6.0.19": false, "5.15.0-91-generic": false} {
		v, err := seccomp.ParseKernelVersion(release)
		if err != nil {
			t.Fatal(err)
		}
		err = checkKernel(v)
		if ok != (err == nil) || err != nil && (!errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "6.1")) {
			t.Errorf("%s: %v", release, err)
		}
	}
}
