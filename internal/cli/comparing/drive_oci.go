package comparing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
)

// ociRuntime is an OCI runtime by itself, with the bundle that its own command "spec"
// makes: its idea of a container. There is no engine, and so no network.
type ociRuntime struct {
	ordinary
	program string
	made    *made
	root    string
	spec    map[string]any
	count   atomic.Int64
}

func (r *ociRuntime) setUp(ctx context.Context, m *made) (err error) {
	if _, err := exec.LookPath(r.program); err != nil {
		return errNone("not installed")
	}
	r.made = m
	if r.root, err = m.runtimeRoot(ctx); err != nil {
		return err
	}
	dir := r.dir("spec")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := output(ctx, r.program, "spec", "--bundle", dir); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &r.spec); err != nil {
		return fmt.Errorf("what %s spec writes: %w", r.program, err)
	}
	return greet(ctx, r)
}

func (r *ociRuntime) tearDown(context.Context) error { return nil }

func (r *ociRuntime) dir(name string) string { return filepath.Join(r.made.dir, r.program, name) }

func (r *ociRuntime) args(args ...string) []string {
	return append([]string{r.program, "--root", stateDir(r.made.dir, r.program)}, args...)
}

// runtimes are the programs that are driven so.
var runtimes = []string{"runc", "crun"}

// stateDir is where a runtime has the state of its containers, below the directory
// of a comparison.
func stateDir(dir, program string) string { return filepath.Join(dir, program, "state") }

// bundle makes a bundle for a program, with limits in place of those of the runtime's own
// specification if there are any.
func (r *ociRuntime) bundle(program []string, limits map[string]any) (string, error) {
	process, ok := r.spec["process"].(map[string]any)
	root, ok2 := r.spec["root"].(map[string]any)
	if !ok || !ok2 {
		return "", fmt.Errorf("what %s spec writes has no process or no root", r.program)
	}
	process["terminal"], process["args"], process["env"] = false, program, r.made.environment()
	root["path"], root["readonly"] = r.root, false
	spec := r.spec
	if limits != nil {
		linux, ok := r.spec["linux"].(map[string]any)
		if !ok {
			return "", fmt.Errorf("what %s spec writes has no linux", r.program)
		}
		resources, _ := linux["resources"].(map[string]any) // none is nothing to keep
		spec, linux, resources = maps.Clone(spec), maps.Clone(linux), maps.Clone(resources)
		if resources == nil {
			resources = map[string]any{}
		}
		maps.Copy(resources, limits)
		spec["linux"], linux["resources"] = linux, resources
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	dir := r.dir(fmt.Sprintf("bundle%d", r.count.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644)
}

func (r *ociRuntime) command(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	return r.running(ctx, name, program, nil)
}

// quotaPeriod is that of a quota of processor time, in microseconds.
const quotaPeriod = 100_000

// runtimeLimits are neighbourLimits in the words of a runtime's specification.
var runtimeLimits = map[string]any{
	"cpu":    map[string]any{"quota": int(neighbourCPUs * quotaPeriod), "period": quotaPeriod},
	"memory": map[string]any{"limit": neighbourMemory << 20},
	"pids":   map[string]any{"limit": neighbourPIDs},
}

func (r *ociRuntime) limited(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	return r.running(ctx, name, program, runtimeLimits)
}

func (r *ociRuntime) running(ctx context.Context, name string, program []string, limits map[string]any) (*exec.Cmd, error) {
	dir, err := r.bundle(program, limits)
	if err != nil {
		return nil, err
	}
	return prepared(ctx, r.args("run", "--bundle", dir, name)...), nil
}

// errNoNetwork is why nothing is published.
const errNoNetwork = errNone("an OCI runtime alone makes no network")

func (r *ociRuntime) detach(ctx context.Context, name string, program []string, ports bool) (string, error) {
	if ports {
		return "", errNoNetwork
	}
	dir, err := r.bundle(program, nil)
	if err != nil {
		return "", err
	}
	// The container keeps the standard streams, and with a pipe this would wait for
	// its end.
	cmd := prepared(ctx, r.args("run", "--detach", "--bundle", dir, name)...)
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return "", err
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(said.Name())
		return "", failure(ctx, cmd, err, string(text))
	}
	return name, nil
}

// ended: as with tool.ended.
func (r *ociRuntime) ended(ctx context.Context, name string, err error) error {
	if err == nil || errors.Is(err, errSilent) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(stateDir(r.made.dir, r.program), name)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return r.remove(ctx, name)
}

func (r *ociRuntime) remove(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		_, err := output(ctx, r.args("delete", "--force", name)...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *ociRuntime) address(context.Context, string) (string, error) { return "", errNoNetwork }

func (r *ociRuntime) size(context.Context) (int64, error) { return diskUsage(r.root) }
