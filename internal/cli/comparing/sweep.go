package comparing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Everything that a comparison makes outside of its own memory can be told from what
// others make: its directory has a random name (package scratch), which its workloads
// have as a label, here and in other engines, its images in their tags, its tenant in
// its name. What is swept is what bears the name of a directory below our own state,
// and nothing is for a name that somebody else could have chosen.

// Label is that of a comparison's workloads; its value is the name of the
// comparison's directory.
const Label = "bulkhead.compare"

// newName is a name for a workload that is not taken.
func newName(what string) string { return "compare-" + what + "-" + workload.NewID().Short() }

// tenantName is the name of the tenant of a comparison.
func tenantName(id string) string { return "compare-" + id }

// tagged is the name of an image of a comparison; what tells apart those of one.
func tagged(id, what string) string { return imageName + ":" + id + "-" + what }

// labelled are the names of this comparison's workloads.
func (t *tool) labelled(ctx context.Context) ([]string, error) {
	out, err := output(ctx, t.args("ps", "-a", "--filter", "label="+Label+"="+t.id, "--format", "{{.Names}}")...)
	return strings.Fields(out), err
}

// sweep removes this comparison's workloads.
func (t *tool) sweep(ctx context.Context) error {
	names, err := t.labelled(ctx)
	if err != nil || len(names) == 0 {
		return err
	}
	return t.remove(ctx, names...)
}

// untag removes this comparison's images.
func (t *tool) untag(ctx context.Context) error {
	out, err := output(ctx, t.args("images", "--format", "{{.Repository}}:{{.Tag}}")...)
	errs := []error{err}
	for _, image := range strings.Fields(out) {
		if _, tag, ok := strings.Cut(image, imageName+":"); ok && strings.HasPrefix(tag, t.id+"-") {
			_, err := output(ctx, t.args("image", "rm", "-f", image)...)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ours drives this program.
func (c *comparison) ours(id string) *tool { return &tool{program: c.Bulkhead, id: id} }

// sweep removes what comparisons that were killed have left. What cannot be removed
// now is told, and stays written down for the next one.
func (c *comparison) sweep(ctx context.Context, stale []*scratch.Dir) {
	for _, d := range stale {
		err := c.clear(ctx, d)
		if err == nil {
			err = d.Remove()
		}
		if err != nil {
			d.Close()
			c.Warn("not all is removed of what a comparison left that was killed; the next one tries again: " + reason(err))
		}
	}
}

// clear removes what one comparison left, but for its directory.
func (c *comparison) clear(ctx context.Context, d *scratch.Dir) error {
	ours := c.ours(d.ID)
	var err error
	for range 5 { // a workload may still be on its way
		_, tenant := output(ctx, ours.args("tenant", "rm", "-f", tenantName(d.ID))...)
		if err = errors.Join(ours.sweep(ctx), tenant); err == nil || wait(ctx, time.Second) != nil {
			break
		}
	}
	errs := []error{
		err, ours.untag(ctx), probing.Clear(d.Path), sweepStates(ctx, d.Path), endRooted(ctx, filepath.Join(d.Path, hostRootDir), nil),
	}
	for _, p := range peers(d.ID) {
		if _, err := os.Stat(p.marker(d.Path)); err == nil {
			errs = append(errs, p.sweep(ctx), p.untag(ctx))
		}
	}
	// What is big goes in any case.
	for _, name := range []string{hostRootDir, runtimeRootDir, archiveFile} {
		errs = append(errs, os.RemoveAll(filepath.Join(d.Path, name)))
	}
	return errors.Join(errs...)
}

// sweepStates removes the containers of runtimes without an engine.
func sweepStates(ctx context.Context, dir string) error {
	var errs []error
	for _, program := range runtimes {
		root := stateDir(dir, program)
		states, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, state := range states {
			_, err := output(ctx, program, "--root", root, "delete", "--force", state.Name())
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// clearRun makes sure that a workload is gone whose command was ended.
func (t *tool) clearRun(ctx context.Context, name string) error {
	for range 5 { // its own removal may be under way
		names, err := t.labelled(ctx)
		if err != nil || !slices.Contains(names, name) {
			return err
		}
		if err = t.remove(ctx, name); err == nil {
			return nil
		}
		if wait(ctx, time.Second) != nil {
			break
		}
	}
	return fmt.Errorf("%s, whose command was ended, is still there", name)
}
