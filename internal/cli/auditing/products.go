package auditing

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"runtime"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
)

// programs are those that containers and machines rely on, and their names.
var programs = []struct{ product, program string }{
	{"runc", "runc"}, {"crun", "crun"}, {"containerd", "containerd"}, {"docker", "dockerd"}, {"podman", "podman"}, {"runsc", "runsc"},
	{"qemu", map[string]string{"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}[runtime.GOARCH]},
}

// versionWord is a version in what a program prints: "1.1.5+ds1", "v2.0.0-rc.3".
var versionWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\bv?[0-9]+(\.[0-9]+)+([-+~][0-9A-Za-z.+~-]*)?`) })

// Products asks the programs of this machine for their versions.
func Products(ctx context.Context, run func(context.Context, string, ...string) ([]byte, error)) (out []audit.Product) {
	for _, p := range programs {
		text, err := run(ctx, p.program, "--version")
		if errors.Is(err, ErrNotInstalled) {
			continue
		}
		found := audit.Product{Name: p.product, Path: p.program}
		if path, err := exec.LookPath(p.program); err == nil {
			found.Path = path
		}
		if err != nil {
			found.Failed = "it does not tell its version: " + err.Error()
		} else {
			found.Version = string(versionWord().Find(text))
		}
		out = append(out, found)
	}
	return out
}
