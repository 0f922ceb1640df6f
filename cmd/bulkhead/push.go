package main

import (
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/registry"
	"github.com/spf13/cobra"
)

func (a *app) pushCommand() *cobra.Command {
	var quiet, insecure bool
	cmd := &cobra.Command{
		Use:               "push [flags] IMAGE[:TAG]",
		Short:             "Bring an image to a registry",
		Long:              "Push writes an image to the registry that its name begins with, byte for byte as\nit is stored, and prints its digest.",
		Example:           "  bulkhead tag app registry.example/team/app:1.0\n  bulkhead push registry.example/team/app:1.0",
		Args:              needs(1, 1, "one image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := reference.Parse(args[0])
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.withImages(func(s *image.Store) error {
				im, err := s.Resolve(args[0])
				if err != nil {
					return err
				}
				d := a.progress(quiet)
				digest, err := registry.Push(ctx, s, im, ref, registry.Options{Insecure: insecure, Progress: func(e registry.Event) { show(d, e) }})
				d.Close()
				if err == nil {
					fmt.Fprintln(a.out, digest)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	addInsecure(cmd, &insecure)
	return cmd
}
