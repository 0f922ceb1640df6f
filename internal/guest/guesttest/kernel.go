// Package guesttest boots guests for tests: Debian's kernel, an initramfs with
// a program of the test's as /init, and QEMU with software emulation.
package guesttest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// modules are what a guest of ours needs, beside what they depend on.
var modules = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "ext4", "erofs", "overlay", "fuse",
}

// kernel is what the script tests/guest/image prepared.
type kernel struct {
	vmlinux string
	dir     string // of everything
	version string
	modules []string // files, in the order in which they are loaded
}

var (
	once     sync.Once
	prepared kernel
	failure  string
)

// prepare finds the kernel, once. Its modules are taken from the test guest's
// root file system.
func prepare(t testing.TB) kernel {
	t.Helper()
	once.Do(func() {
		script := filepath.Join(moduleRoot(t), "tests/guest/image")
		out, err := output(exec.Command(script))
		if err != nil {
			failure = err.Error()
			return
		}
		k := kernel{dir: out, vmlinux: filepath.Join(out, "vmlinux")}
		b, err := os.ReadFile(filepath.Join(k.dir, "version"))
		if err != nil {
			failure = err.Error()
			return
		}
		k.version = strings.TrimSpace(string(b))
		if k.modules, err = k.extract(); err != nil {
			failure = err.Error()
			return
		}
		prepared = k
	})
	if failure != "" {
		t.Fatal("prepare the guest's kernel: ", failure)
	}
	return prepared
}

// smallKernel names a kernel image that finds the devices of a microvm on its
// command line, with all that a guest needs built in. Debian's does not.
const smallKernel = "BULKHEAD_SMALL_KERNEL"

func kernelFor(t testing.TB, machine string) kernel {
	t.Helper()
	if machine != "microvm" {
		return prepare(t)
	}
	name := os.Getenv(smallKernel)
	if name == "" {
		t.Skip("Debian's kernel cannot find a microvm's devices; set " + smallKernel + " to the image that make guest-kernel makes")
	}
	return kernel{vmlinux: name}
}

// extract copies the modules out of the root file system, which is an ext4
// image, and orders them.
func (k kernel) extract() ([]string, error) {
	// Beside the image, so that the next run finds them; the directory's name
	// is a digest of what is in it.
	tree := filepath.Join(k.dir, "modules")
	dir := filepath.Join(tree, "lib/modules", k.version)
	if _, err := os.Stat(dir); err != nil {
		tmp, err := os.MkdirTemp(k.dir, "modules.new")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		if err := os.MkdirAll(filepath.Join(tmp, "lib/modules"), 0o755); err != nil {
			return nil, err
		}
		for _, from := range []string{"/usr/lib/modules/", "/lib/modules/"} { // merged /usr or not
			cmd := exec.Command("debugfs", "-R", "rdump "+from+k.version+" "+filepath.Join(tmp, "lib/modules"), filepath.Join(k.dir, "root.ext4"))
			if _, err := output(cmd); err != nil {
				return nil, err
			}
		}
		if err := os.Rename(tmp, tree); err != nil {
			return nil, err
		}
	}
	var order []string
	for _, m := range modules {
		out, err := output(exec.Command("modprobe", "-d", tree, "-S", k.version, "--show-depends", m))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if file, found := strings.CutPrefix(strings.TrimSpace(line), "insmod "); found && !slices.Contains(order, file) {
				order = append(order, file)
			}
		}
	}
	return order, nil
}

// output runs a command and returns what it printed, without the last newline.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", &commandError{cmd.Args, err, stderr.String()}
	}
	return strings.TrimSpace(string(out)), nil
}

type commandError struct {
	args   []string
	err    error
	stderr string
}

func (e *commandError) Error() string {
	return strings.Join(e.args, " ") + ": " + e.err.Error() + "\n" + e.stderr
}

// moduleRoot is the directory of go.mod.
func moduleRoot(t testing.TB) string {
	t.Helper()
	out, err := output(exec.Command("go", "env", "GOMOD"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(out)
}

// Build builds a static program of this module, to be booted. It skips as Start
// does.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	need(t)
	name := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", name, "./"+pkg)
	cmd.Dir = moduleRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
	return name
}
