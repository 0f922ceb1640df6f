package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrDepmod: the modules have no index, and there is no program to make it.
var ErrDepmod = errors.New("the kernel's modules have no index for modprobe, and depmod, which makes it, is not installed")

// Index makes sure that the modules of k can be found by modprobe(8), in a guest
// that is a whole system: a package of the distribution brings the modules, and
// leaves it to the machine that installs them to make the index. The agent does
// without it. A kernel without modules needs none.
func (s *Store) Index(ctx context.Context, k Kernel, d Progress) error {
	if k.ModulesDir == "" || indexed(k) {
		return nil
	}
	depmod, err := exec.LookPath("depmod")
	if err != nil {
		return fmt.Errorf("%w: kernel %s", ErrDepmod, k.Release)
	}
	unlock, err := s.lock(ctx, "make.lock", nil)
	if err != nil {
		return err
	}
	defer unlock()
	if indexed(k) {
		return nil // somebody else was at it
	}
	st, err := s.newStage(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	lib := st.path("lib/modules")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(k.ModulesDir, filepath.Join(lib, k.Release)); err != nil {
		return err
	}
	heard(d).Update("modules of "+k.Release, "indexing", 0, 0)
	out, err := exec.CommandContext(ctx, depmod, "-b", st.dir, k.Release).CombinedOutput()
	if err != nil {
		return fmt.Errorf("depmod for kernel %s: %w: %s", k.Release, err, strings.TrimSpace(string(out)))
	}
	if !indexed(k) {
		return fmt.Errorf("depmod for kernel %s made no index: %s", k.Release, strings.TrimSpace(string(out)))
	}
	heard(d).Done("modules of "+k.Release, "indexed")
	return nil
}

// indexed looks for what modprobe reads and what depmod writes last. Each is
// renamed into place, one after the other.
func indexed(k Kernel) bool {
	for _, name := range []string{"modules.dep.bin", "modules.alias.bin", "modules.devname"} {
		if _, err := os.Stat(filepath.Join(k.ModulesDir, name)); err != nil {
			return false
		}
	}
	return true
}
