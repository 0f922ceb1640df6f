package comparing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Everything that a comparison makes outside of its own memory has the number of
// its process in its name, so that the next one can tell what was left by one that
// was killed.

// newName is a name for a workload or a tenant that is not taken.
func newName(what string) string {
	return fmt.Sprintf("compare-%d-%s-%s", os.Getpid(), what, workload.NewID().Short())
}

// stale reports whether a name is one of newName, or begins like one, and its
// comparison is not there any more.
func stale(name string) bool {
	rest, ok := strings.CutPrefix(name, "compare-")
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ok && err == nil && pid > 0 && gone(pid)
}

// gone reports whether there is no process with this number, or another program's.
func gone(pid int) bool {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != filepath.Base(self)
}

// mine reports whether a name is one of this comparison's.
func mine(name string) bool { return strings.HasPrefix(name, fmt.Sprintf("compare-%d-", os.Getpid())) }

// namesOf are the words of a command's output that are names of a kind.
func namesOf(ctx context.Context, kind func(name string) bool, args ...string) ([]string, error) {
	out, err := output(ctx, args...)
	return slices.DeleteFunc(strings.Fields(out), func(n string) bool { return !kind(n) }), err
}

// sweep removes workloads with names of a kind: those of comparisons that were
// killed, or those that a command left here that was interrupted.
func (t *tool) sweep(ctx context.Context, kind func(name string) bool) error {
	names, err := namesOf(ctx, kind, t.args("ps", "-a", "--format", "{{.Names}}")...)
	if err != nil || len(names) == 0 {
		return err
	}
	return t.remove(ctx, names...)
}

// sweep removes what comparisons that were killed have left: of ours, and of
// runtimes that have no engine. What they left of other engines goes when those
// are set up. A workload may still be on its way.
func (c *comparison) sweep(ctx context.Context) (err error) {
	for range 5 {
		if err = c.sweepOnce(ctx); err == nil {
			return err
		}
		if wait(ctx, time.Second) != nil {
			break
		}
	}
	return err
}

func (c *comparison) sweepOnce(ctx context.Context) error {
	ours := &tool{program: c.Bulkhead}
	errs := []error{ours.sweep(ctx, stale)}
	tenants, err := namesOf(ctx, stale, ours.args("tenant", "ls", "--format", "{{.Name}}")...)
	errs = append(errs, err)
	for _, name := range tenants {
		_, err := output(ctx, ours.args("tenant", "rm", "-f", name)...)
		errs = append(errs, err)
	}
	tags, err := output(ctx, ours.args("images", "--format", "{{.Repository}}:{{.Tag}}")...)
	errs = append(errs, err)
	for _, image := range strings.Fields(tags) {
		if _, tag, ok := strings.Cut(image, imageName+":"); ok && stale(tag) {
			_, err := output(ctx, ours.args("image", "rm", image)...)
			errs = append(errs, err)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(filepath.Dir(c.Dir), DirPrefix+"*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), DirPrefix), ".")
		if pid, err := strconv.Atoi(number); err == nil && gone(pid) {
			errs = append(errs, sweepDir(ctx, dir))
		}
	}
	return errors.Join(errs...)
}

// DirPrefix is how the name of Options.Dir begins; the number of the process and a
// dot follow.
const DirPrefix = "bulkhead-compare."

// sweepDir removes a directory of a comparison, and the containers whose state is
// in it.
func sweepDir(ctx context.Context, dir string) error {
	if err := sweepStates(ctx, dir); err != nil {
		return err // the directory stays, as it is what finds the container
	}
	return os.RemoveAll(dir)
}

// sweepStates removes the containers of runtimes without an engine.
func sweepStates(ctx context.Context, dir string) error {
	states, err := filepath.Glob(filepath.Join(dir, "*", "state", "*"))
	if err != nil {
		return err
	}
	for _, state := range states {
		root := filepath.Dir(state)
		program := filepath.Base(filepath.Dir(root))
		if _, err := output(ctx, program, "--root", root, "delete", "--force", filepath.Base(state)); err != nil {
			return err
		}
	}
	return nil
}
