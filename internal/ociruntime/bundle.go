package ociruntime

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/apparmor"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The files of this package in a workload's run-time directory. A runtime sees
// the directory as container.StageDir.
const (
	cgroupFile  = "cgroup" // written before the cgroup is made
	configFile  = "config.json"
	stateDir    = "state"
	logFile     = "log"
	pidFile     = "pid"
	consoleFile = "console"
)

// containerID is what the runtime calls every workload: its state directory has
// no other.
const containerID = "workload"

// oldVersion is of the specification: what is younger, ID-mapped and recursively
// read-only mounts, is made before the runtime sees it, and the runtimes of Debian
// 12 refuse what calls itself younger.
const oldVersion = "1.0.2"

// inner is the cgroup, below the workload's, that a runtime makes for the
// container, and helpers the one where its commands run on cgroup v2, which has
// no processes in a cgroup with others below.
const (
	inner   = "container"
	helpers = "runtime"
)

// specification is what the runtime is told, but for what the stage decides, and
// the limits that we set ourselves.
func (r Runtime) specification(ctx context.Context, s workload.Spec, p boundary.Prepared) (*specs.Spec, *specs.LinuxResources, error) {
	if err := r.check(s, p); err != nil {
		return nil, nil, err
	}
	v, err := runtimespec.Kernel()
	if err != nil {
		return nil, nil, err
	}
	spec, err := runtimespec.Of(s, p, v)
	if err != nil {
		return nil, nil, err
	}
	if s.Init {
		if err := runtimespec.AddInit(spec, p.Init); err != nil {
			return nil, nil, err
		}
	}
	spec.Root.Path = container.StageRoot
	spec.Version = oldVersion
	limits := *spec.Linux.Resources
	if r.Sentry {
		return spec, &limits, sentry(spec, s)
	}
	profile, err := apparmor.Host{}.Resolve(ctx, s.Security.AppArmor)
	if err != nil {
		return nil, nil, err
	}
	spec.Process.ApparmorProfile = profile.Name
	// The limits are in force above, and device rules are the runtime's own: it
	// allows itself some that it needs.
	spec.Linux.CgroupsPath = path.Join(p.Cgroup, inner)
	spec.Linux.Resources = &specs.LinuxResources{Devices: limits.Devices}
	limits.Devices = nil
	return spec, &limits, nil
}

// stageConfig is what the stage of a workload is made from.
func (r Runtime) stageConfig(dir string, s workload.Spec, p boundary.Prepared, spec *specs.Spec) (container.StageConfig, error) {
	lay, err := cgroup.Detect()
	if err != nil {
		return container.StageConfig{}, err
	}
	c := container.StageConfig{
		Dir: dir, Layers: container.Layers{Lower: p.Layers, Upper: p.Upper, Work: p.Work, Volatile: s.AutoRemove},
		UIDs: spec.Linux.UIDMappings, GIDs: spec.Linux.GIDMappings, Mounts: spec.Mounts,
		Tree: r.Sentry, ReadOnly: s.ReadOnlyRoot, Below: !r.Sentry,
	}
	if lay.Mode == cgroup.ModeHybrid && !r.Sentry {
		c.Hide = lay.V2 // where the limits are on v1; crun refuses the mixture
	}
	return c, nil
}

// flags are those before a runtime's command.
func (r Runtime) flags(s workload.Spec, log string) []string {
	in := func(name string) string { return path.Join(container.StageDir, name) }
	out := []string{"--root", in(stateDir), "--log", in(log), "--log-format", "json"}
	if !r.Sentry {
		return out
	}
	out = append(out,
		"--ignore-cgroups",     // it is in ours
		"--overlay2=none",      // what is written is where it can be copied and kept
		"--file-access=shared", // and others write, too: volumes, copies in
		"--oci-seccomp",        // the workload's filter is in force inside, too
	)
	if caps, err := runtimespec.Capabilities(s.Security); err == nil && slices.Contains(caps, "CAP_NET_RAW") {
		out = append(out, "--net-raw")
	}
	if s.Security.NewPrivileges {
		out = append(out, "--allow-suid")
	}
	return out
}

func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// short is one line of somebody else's text, without what a terminal would obey.
func short(s string) string {
	const most = 500
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(clean) > most {
		clean = clean[:most] + "…"
	}
	return strings.TrimSpace(clean)
}
