// Package ociruntime makes workloads by an OCI runtime that is not ours: runsc,
// runc, crun, or any program with their command line.
//
//	supervisor ──MakeStage──▶ a mount namespace with the root file system, volumes, the bundle
//	    │ in it, in the workload's cgroup:
//	    ├─ RUNTIME create ──▶ the container's first process, left to the supervisor
//	    ├─ RUNTIME start        (child subreaper, prctl(2)): it sees how it ends
//	    ├─ RUNTIME exec  ──▶ one more process
//	    └─ RUNTIME kill
//
// A runtime has no place on the host that outlives the workload: its state lies
// in the workload's directory, which is /run in that mount namespace; its mounts
// go with the namespace; its processes are in the workload's cgroup, by which
// they end, whoever of them hangs or was killed. Limits are set on that cgroup by
// us, so that they are in force or the start fails, whatever a runtime makes of
// them.
package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Runtime is a runtime and how it is used.
type Runtime struct {
	// Boundary is the name of the boundary that it makes, and of the directory of
	// its own in a workload's run-time directory.
	Boundary string
	// Name is what messages call it, Program its absolute path.
	Name, Program string
	// Sentry says that it is gVisor's: its containers have a kernel of their own,
	// which is a process here.
	Sentry bool
	// Timeout bounds each command; 0 stands for a minute.
	Timeout time.Duration
}

// commandTimeout is what no command takes but one that hangs.
const commandTimeout = time.Minute

// maxOutput bounds what is read of what a runtime says.
const maxOutput = 64 << 10 // of messages

func (r Runtime) timeout() time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return commandTimeout
}

// Check wants what CheckHost does, and the program.
func (r Runtime) Check(ctx context.Context) error {
	if err := r.CheckHost(); err != nil {
		return err
	}
	_, err := r.Version(ctx)
	return err
}

// CheckHost wants what containers want.
func (r Runtime) CheckHost() error { return runtimespec.CheckHost(r.Boundary) }

// Version asks the program what it is: the first line of --version, such as
// "runc version 1.1.5".
func (r Runtime) Version(ctx context.Context) (string, error) {
	if err := usable(r.Program); err != nil {
		return "", fmt.Errorf("%w: %w", workload.ErrUnsupported, err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	out := capped.Buffer{Max: maxOutput}
	cmd := exec.CommandContext(ctx, r.Program, "--version")
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%w: %s --version has not ended after %v", workload.ErrUnsupported, r.Program, r.timeout())
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	if err != nil {
		return "", fmt.Errorf("%w: %s --version: %w: %s", workload.ErrUnsupported, r.Program, err, short(line))
	}
	if line == "" {
		return "", fmt.Errorf("%w: %s does not say what it is: --version prints nothing", workload.ErrUnsupported, r.Program)
	}
	return short(line), nil
}

// usable looks at the program without running it.
func usable(program string) error {
	if !filepath.IsAbs(program) {
		return fmt.Errorf("runtime %q: want an absolute path", program)
	}
	fi, err := os.Stat(program)
	switch {
	case err != nil:
		return fmt.Errorf("runtime: %w", err)
	case !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0:
		return fmt.Errorf("runtime %s: not an executable file", program)
	}
	return nil
}

// places are where packages put programs. The caller's search path is not asked:
// whoever sets it would choose what runs as root, and supervisors have another.
var places = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// Find looks for a program beside this one, as make puts it there, and then where
// packages put programs.
func Find(name string) (string, error) {
	dirs := places
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(self)}, places...)
	}
	for _, dir := range dirs {
		if program := filepath.Join(dir, name); usable(program) == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("%s is in none of %s", name, strings.Join(dirs, ", "))
}

// Needs asks for layers, a range of IDs for a user namespace, and interfaces in
// a network namespace.
func Needs(s workload.Spec) boundary.Needs {
	return boundary.Needs{Root: boundary.Layers, IDRange: !s.Namespaces.HostUser, Network: boundary.Namespace}
}

// mayNot refuses what a workload asks for that a runtime cannot be made to keep.
func mayNot(what string, asked bool, why string) error {
	if !asked {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", workload.ErrUnsupported, what, why)
}

// check refuses what no runtime can do as it is driven here.
func (r Runtime) check(s workload.Spec, p boundary.Prepared) error {
	if p.Late {
		return errors.New("a runtime makes no workload that waits for its program")
	}
	for _, m := range s.Mounts {
		if err := mayNot("propagation of mounts", m.Propagation != "" && strings.TrimPrefix(m.Propagation, "r") != "private",
			"the runtime "+r.Name+" works in mounts of its own"); err != nil {
			return err
		}
	}
	return errors.Join(
		mayNot("--pid host", s.Namespaces.HostPID, "only the boundary container shares the host's processes"),
		mayNot("reports of denied system calls", s.Security.SeccompReport, "only the boundary container can tell of them"),
	)
}
