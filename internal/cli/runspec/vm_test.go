package runspec

import (
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/pflag"
)

// vmHost is the machine of the other tests with the boundary vm.
func vmHost() Host {
	h := testHost()
	h.Boundaries = []string{"container", "vm"}
	return h
}

func parseVM(t *testing.T, line string) (workload.Spec, error) {
	t.Helper()
	var o Options
	f := testFlags(&o)
	if err := f.Parse(strings.Fields(line)); err != nil {
		t.Fatal(err)
	}
	r, err := o.Check(vmHost(), f.Args()[1:])
	if err != nil {
		return workload.Spec{}, err
	}
	return r.Spec(vmHost(), workload.Image{Reference: "docker.io/library/x:latest", Digest: "sha256:1"}, ImageConfig{})
}

func TestMachineFlags(t *testing.T) {
	for _, tt := range []struct {
		line string
		want workload.VM
	}{
		{"--boundary vm x p", workload.VM{}},
		{"--boundary vm --kernel small --accel tcg x p", workload.VM{Kernel: "small", Accel: "tcg"}},
		{"--boundary vm --kernel /boot/../vmlinux x p", workload.VM{Kernel: "/vmlinux"}},
		{"--boundary vm --disk 32m x p", workload.VM{Disk: 32 << 20}},
		{"--boundary vm --disk 16t x p", workload.VM{Disk: 16 << 40}},
		{"--tenant acme x p", workload.VM{Tenant: "acme"}},
	} {
		s, err := parseVM(t, tt.line)
		if err != nil || s.VM != tt.want || s.Boundary != "vm" {
			t.Errorf("%s: boundary %s, %+v, %v; want %+v", tt.line, s.Boundary, s.VM, err, tt.want)
		}
	}
}

func TestBadMachineFlags(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"--boundary vm --disk 31m x p", "out of range"}, {"--boundary vm --disk 17t x p", "out of range"}, {"--boundary vm --disk lots x p", "not a size"},
		{"--boundary vm --kernel ./vmlinux x p", "not an absolute path"}, {"--boundary vm --accel xen x p", "unknown accelerator"},
		{"--kernel small x p", "no meaning behind the boundary container"}, {"--disk 1g x p", "no meaning"}, {"--accel tcg x p", "no meaning"},
		{"--boundary container --tenant acme x p", "no meaning"}, {"--tenant ../x x p", "not a valid name"}, {"--tenant acme --disk 1g x p", "the machine is the tenant's"},
		{"--boundary vm --network host x p", "kernel of its own"}, {"--boundary vm --pid host x p", "kernel of its own"}, {"--boundary vm --device /dev/null x p", "kernel of its own"},
		{"--boundary vm -m 64m --memory-swap 128m x p", "kernel of its own"}, {"--boundary vm --cpuset-cpus 0 x p", "kernel of its own"},
		{"--boundary vm --privileged x p", "virtual machine"},
	} {
		_, err := parseVM(t, tt.line)
		if err == nil || !strings.Contains(err.Error(), tt.want) || advice.Fix(err) == "" {
			t.Errorf("%s: error %v with fix %q, want %q and a fix", tt.line, err, advice.Fix(err), tt.want)
		}
	}
}

// TestTenantFlags: what makes a tenant's machine is checked like a workload's.
func TestTenantFlags(t *testing.T) {
	for line, want := range map[string]string{
		"--disk 1k": "out of range", "--accel xen": "unknown accelerator", "--kernel ./x": "not an absolute path", "": "",
	} {
		var vm VMFlags
		f := pflag.NewFlagSet("create", pflag.ContinueOnError)
		vm.AddFlags(f)
		if err := f.Parse(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		s, err := Machine(vmHost(), &vm, &ResourceFlags{}, nil)
		if want == "" {
			if err != nil || !s.VM.Machine || s.Boundary != "vm" || slices.Contains([]string{"", "host"}, s.Network) {
				t.Errorf("%+v, %v", s, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", line, err, want)
		}
	}
}
