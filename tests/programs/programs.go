// Package programs is what tests that run Bulkhead's programs have in common.
package programs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Find returns the directory of the programs: $BULKHEAD_BIN, or one below dir into
// which they are built. The test runs two levels below the module's directory.
func Find(dir string) (string, error) {
	if bin := os.Getenv("BULKHEAD_BIN"); bin != "" {
		return bin, nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("no programs: set BULKHEAD_BIN, or install Go")
	}
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "../../cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return bin, nil
}

// RemoveCgroups removes the cgroups that the engine keeps for its next workload,
// unless somebody uses them: a test leaves nothing.
func RemoveCgroups() {
	for _, name := range []string{"bulkhead/supervisors", "bulkhead"} {
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(filepath.Join(mount, name)) // the pattern is well-formed
			for _, d := range dirs {
				os.Remove(d) // fails where others use it
			}
		}
	}
}
