package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/spf13/cobra"
)

func (a *app) commitCommand() *cobra.Command {
	var o archive.CommitOptions
	cmd := &cobra.Command{
		Use:   "commit [flags] WORKLOAD [NAME]",
		Short: "Make an image from what a workload has changed of its own",
		Long: `Commit makes an image of the workload's image and one layer more, which holds what
diff lists, and prints its ID. Volumes and other mounts are not part of it. The
new image is run as the old one is, but for changes: Dockerfile instructions as
import takes them.

A workload that runs is not halted: what it writes meanwhile is in the image as it
was when it was read. pause or stop it first where that matters.`,
		Example: `  bulkhead commit web web:patched
  bulkhead commit --change 'CMD ["nginx", "-g", "daemon off;"]' --message 'add the page' web web:2`,
		Args:              needs(1, 2, "a workload, and maybe a name"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				o.Name = args[1]
			}
			return a.withFiles(cmd, args[0], func(ctx context.Context, f *engine.Files) error {
				return a.withImages(func(s *image.Store) error { return a.commit(ctx, s, f, o) })
			})
		},
	}
	cmd.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "apply a Dockerfile `instruction` to the config")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "`text` for the history")
	cmd.Flags().StringVarP(&o.Author, "author", "a", "", "`name` of the author, for the history and the config")
	return cmd
}

func (a *app) commit(ctx context.Context, s *image.Store, f *engine.Files, o archive.CommitOptions) error {
	spec := f.Record.Spec
	base, err := s.Inspect(spec.Image.Digest)
	if err != nil {
		return advice.Wrap(err, fmt.Sprintf("the image of %s is not there any more: %s", spec.Name, spec.Image.Reference),
			"bring it back with pull or load, or `export` the workload and `import` the archive")
	}
	changes, err := f.Changes(ctx)
	if err != nil {
		return err
	}
	o.Command = strings.Join(spec.Process.Args, " ")
	read := func(w io.Writer) error {
		return inside(f, f.ReadArchive(ctx, "/.", boundary.ReadOptions{OneFileSystem: true}, w))
	}
	im, err := archive.Commit(ctx, s, base, changes, read, o)
	if err == nil {
		a.happened(events.Image, "commit", string(im.ID), o.Name)
		fmt.Fprintln(a.out, im.ID)
	}
	return err
}
