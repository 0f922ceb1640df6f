package main

import (
	"context"
	"fmt"
	"io"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) exportCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "export [flags] WORKLOAD",
		Short: "Write a workload's root file system to a tar archive",
		Long: `Export writes the image's files with all that the workload has changed of them.
Volumes and other mounts are left out: an empty directory stands in the place
of each. import makes an image of the archive.`,
		Example:           "  bulkhead export -o web.tar web\n  bulkhead export web | bulkhead import - web:copy",
		Args:              needs(1, 1, "one workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && terminal.IsTerminal(a.out) {
				return advice.New("export writes an archive, and standard output is a terminal", "name a file with -o, or pipe it into a program")
			}
			return a.withFiles(cmd, args[0], func(ctx context.Context, f *engine.Files) error {
				write := func(w io.Writer) error {
					return inside(f, f.ReadArchive(ctx, "/.", boundary.ReadOptions{OneFileSystem: true}, w))
				}
				if file == "" {
					return write(interruptibleWriter(ctx, a.out))
				}
				return writeFile(ctx, file, write)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "write to this `file` instead of standard output")
	return cmd
}

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff WORKLOAD",
		Short: "List the files that a workload has changed of its image",
		Long: `Diff prints one line for each file that was added (A), changed (C) or deleted
(D). A directory is changed if its owner or permissions are, or if something
in it is. Volumes are not part of it.`,
		Example:           "  bulkhead diff web",
		Args:              needs(1, 1, "one workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd, args[0], func(ctx context.Context, f *engine.Files) error {
				changes, err := f.Changes(ctx)
				if err != nil {
					return err
				}
				for _, c := range changes {
					if _, err := fmt.Fprintf(a.out, "%s %s\n", c.Kind, safetext.Line(c.Path)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
