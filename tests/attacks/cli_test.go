package attacks

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cli drives our programs themselves, as a person or an engine would, with a
// state directory of the test's own.
type cli struct {
	bin, dir string
	env      []string // added to that of every command
}

var programs = []string{"bulkhead", "bulkhead-supervisor", "bulkhead-oci", "bulkhead-network", "bulkhead-dns"}

// newCLI builds the programs, or takes those on the search path where there is
// no Go, and imports the base layer as the image "attacker".
func newCLI(t *testing.T) *cli {
	t.Helper()
	needRoot(t)
	guardLeaks(t)
	c := &cli{bin: filepath.Join(work, "bin")}
	var err error
	if c.dir, err = os.MkdirTemp(work, "cli"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(c.dir) })
	c.removeCgroups(t)
	c.install(t)
	tarball := filepath.Join(work, "base.tar")
	if _, err := os.Lstat(tarball); err != nil {
		if out, err := exec.Command("tar", "-C", filepath.Join(work, "base"), "-cf", tarball, ".").CombinedOutput(); err != nil {
			t.Fatalf("tar: %v: %s", err, out)
		}
	}
	c.run(t, "import", tarball, "attacker")
	return c
}

// removeCgroups removes the cgroups above those of workloads, which the engine
// leaves, unless they were there before.
func (c *cli) removeCgroups(t *testing.T) {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		parents, _ := filepath.Glob(pattern)
		for _, p := range parents {
			for _, name := range []string{"bulkhead", "bulkhead/supervisors"} { // cleanups run last first
				dir := filepath.Join(p, name)
				if _, err := os.Lstat(dir); err != nil {
					t.Cleanup(func() { os.Remove(dir) }) // fails where somebody uses it
				}
			}
		}
	}
}

func (c *cli) install(t *testing.T) {
	t.Helper()
	if _, err := os.Lstat(c.program("bulkhead-oci")); err == nil {
		return
	}
	if err := os.MkdirAll(c.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("go"); err == nil {
		cmd := exec.Command("go", "build", "-o", c.bin+"/", "../../cmd/...")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v: %s", err, out)
		}
		return
	}
	for _, name := range programs {
		from, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("neither go nor %s is on the search path", name)
		}
		if err := copyFile(from, c.program(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cli) program(name string) string { return filepath.Join(c.bin, name) }

// run runs bulkhead and returns its standard output.
func (c *cli) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(t, args...)
	if err != nil {
		t.Fatalf("bulkhead %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// try runs bulkhead and returns its output, with the error's text in err.
func (c *cli) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(c.program("bulkhead"), append([]string{"--root", filepath.Join(c.dir, "state")}, args...)...)
	cmd.Env = append(os.Environ(), c.env...)
	out, err := output1(t, cmd)
	return strings.TrimSpace(out), err
}

// oci runs bulkhead-oci. The container's output goes to out, or nowhere.
func (c *cli) oci(t *testing.T, out *os.File, args ...string) {
	t.Helper()
	if err := c.tryOCI(t, out, args...); err != nil {
		t.Fatal(err)
	}
}

func (c *cli) tryOCI(t *testing.T, out *os.File, args ...string) error {
	t.Helper()
	cmd := exec.Command(c.program("bulkhead-oci"), append([]string{"--root", filepath.Join(c.dir, "oci")}, args...)...)
	cmd.Env = append(os.Environ(), c.env...)
	errs, err := os.CreateTemp(c.dir, "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	cmd.Stderr = errs
	if out != nil {
		cmd.Stdout = out
	}
	if err := runLimited(cmd); err != nil {
		b, _ := os.ReadFile(errs.Name())
		return fmt.Errorf("bulkhead-oci %s: %w: %s", strings.Join(args, " "), err, b)
	}
	return nil
}

// ociID names a container and makes sure that it is gone in the end.
func (c *cli) ociID(t *testing.T) string {
	id := "attacks-" + filepath.Base(c.dir)
	t.Cleanup(func() { c.oci(t, nil, "delete", "--force", id) })
	return id
}

// bundle makes a bundle without a user namespace, as Docker and Kubernetes do,
// whose process has one more capability, if any.
func (c *cli) bundle(t *testing.T, capability string, args ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp(c.dir, "bundle")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(work, "base"), filepath.Join(dir, "rootfs")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.oci(t, nil, "spec", "--bundle", dir)
	c.change(t, dir, func(s *specs.Spec) {
		s.Process.Terminal, s.Process.Args = false, args
		s.Process.Env = []string{"PATH=/bin"}
		s.Root.Readonly = false
		s.Linux.CgroupsPath = testCgroup + "/" + filepath.Base(c.dir)
		for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
			if capability != "" {
				*set = append(*set, capability)
			}
		}
	})
	return dir
}

// change edits a bundle's configuration.
func (c *cli) change(t *testing.T, bundle string, f func(*specs.Spec)) {
	t.Helper()
	name := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	f(&s)
	if b, err = json.Marshal(&s); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// output1 runs a command for at most limit.
func output1(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := runLimited(cmd)
	if err != nil {
		t.Logf("%s", &errs)
	}
	return out.String(), err
}

func runLimited(cmd *exec.Cmd) error {
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer timer.Stop()
	return cmd.Wait()
}

func digest(t *testing.T, name string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// waitFor polls for something that another process does.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("timeout: %s", what)
}
