// Package vmtest makes ready what tests need to boot a guest: a kernel, an
// initramfs with the agent, the helper programs, disks. The kernel is kept
// below .cache in the project's directory, as fetching it takes a while.
package vmtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/tsc"
)

// KernelVariable names another kernel of the cache than its default.
const KernelVariable = "BULKHEAD_TEST_KERNEL"

// made is done once in a test process.
var made struct {
	once sync.Once
	m    boundary.Machine
	err  error
}

// Machine returns a machine with everything but disks. The test is skipped
// where there is no QEMU or no kernel.
func Machine(t testing.TB) boundary.Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, _, err := qemu.Installed(); err != nil {
		t.Skipf("needs QEMU: %v", err)
	}
	made.once.Do(func() { made.m, made.err = prepare() })
	if errors.Is(made.err, kernel.ErrFetch) {
		t.Skipf("needs a guest kernel: %v", made.err)
	}
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.m
}

// Fetch brings the kernel into the cache, for a test binary that is about to
// leave the machine's network. An error comes again from Machine.
func Fetch() {
	if _, _, err := qemu.Installed(); os.Geteuid() == 0 && err == nil {
		made.once.Do(func() { made.m, made.err = prepare() })
	}
}

// Root is the project's directory.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Cache is the state root that holds the kernels of tests.
func Cache() (string, error) {
	root, err := Root()
	return filepath.Join(root, ".cache", "machines"), err
}

func prepare() (m boundary.Machine, err error) {
	ctx := context.Background()
	root, err := Root()
	if err != nil {
		return m, err
	}
	cache, err := Cache()
	if err != nil {
		return m, err
	}
	bin := filepath.Join(cache, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return m, err
	}
	// Several test processes may do this at once; the go command renames.
	cmd := exec.Command("go", "build", "-o", bin+"/", "./cmd/bulkhead-agent", "./cmd/bulkhead-fileserver", "./cmd/bulkhead-init")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return m, err
	}
	store, err := kernel.Open(cache)
	if err != nil {
		return m, err
	}
	k, err := store.Resolve(ctx, os.Getenv(KernelVariable), kernel.Wanted{
		Agent: filepath.Join(bin, "bulkhead-agent"), Init: filepath.Join(bin, "bulkhead-init"),
	}, nil)
	if err != nil {
		return m, err
	}
	accel, err := qemu.Choose(ctx, "")
	if err != nil {
		return m, err
	}
	rate := 0
	if accel == qemu.TCG {
		if rate, err = tsc.Rate(filepath.Join(cache, "tsc")); err != nil {
			return m, err
		}
	}
	return boundary.Machine{
		Kernel: k.Image, Initramfs: k.Initramfs, MMIO: k.MMIO,
		Accel: string(accel), TSC: rate, FileServer: filepath.Join(bin, "bulkhead-fileserver"),
	}, nil
}
