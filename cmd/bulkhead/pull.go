package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/progress"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/registry"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) pullCommand() *cobra.Command {
	var quiet, insecure bool
	var platformFlag string
	cmd := &cobra.Command{
		Use:   "pull [flags] IMAGE...",
		Short: "Bring images from a registry",
		Long: `Pull brings images from their registries and unpacks them. Every digest is
checked; nothing of an interrupted pull is left visible. Credentials are those of
the files and helpers that Docker and Podman use.`,
		Example:           "  bulkhead pull alpine:3.20\n  bulkhead pull --platform linux/arm64 ghcr.io/org/app@sha256:…",
		Args:              needs(1, -1, "an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := platform(platformFlag)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.withImages(func(s *image.Store) error {
				return a.each(args, func(name string) error {
					im, err := a.pull(ctx, s, name, registry.Options{Platform: p, Insecure: insecure}, quiet)
					if err != nil {
						return err
					}
					if quiet {
						fmt.Fprintln(a.out, im.ID)
					} else {
						fmt.Fprintf(a.out, "%s\n", familiar(name))
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress, print the ID only")
	cmd.Flags().StringVar(&platformFlag, "platform", "", "choose an image of this `OS/ARCH[/VARIANT]`")
	addInsecure(cmd, &insecure)
	return cmd
}

// addInsecure binds --insecure.
func addInsecure(cmd *cobra.Command, insecure *bool) {
	cmd.Flags().BoolVar(insecure, "insecure", false, "speak to the registry without TLS, or without checking its certificate")
}

// pull brings one image and shows how far it is.
func (a *app) pull(ctx context.Context, s *image.Store, name string, o registry.Options, quiet bool) (image.Image, error) {
	ref, err := reference.Parse(name)
	if err != nil {
		return image.Image{}, err
	}
	d := a.progress(quiet)
	defer d.Close()
	o.Progress = func(e registry.Event) { show(d, e) }
	im, err := registry.Pull(ctx, s, ref, o)
	if err == nil {
		a.happened(events.Image, "pull", string(im.ID), ref.String())
	}
	return im, err
}

// progress returns the display that suits the error stream: transfers are not
// what a command was asked to print.
func (a *app) progress(quiet bool) *progress.Display {
	mode := progress.Lines
	switch {
	case quiet:
		mode = progress.Silent
	case terminal.IsTerminal(a.err):
		mode = progress.Bars
	}
	return progress.New(a.err, mode, func() (uint16, uint16) { return terminal.Size(a.err) })
}

// show passes an event of the registry to the display.
func show(d *progress.Display, e registry.Event) {
	name := short(e.Digest)
	switch e.Step {
	case registry.Waiting:
		d.Update(name, "waiting", 0, e.Total)
	case registry.Download:
		d.Update(name, "downloading", e.Bytes, e.Total)
	case registry.Unpack:
		d.Update(name, "unpacking", e.Bytes, 0)
	case registry.Upload:
		d.Update("layers", "uploading", e.Bytes, e.Total)
	case registry.Retry:
		d.Update(name, "trying again", e.Bytes, e.Total)
	case registry.Exists:
		d.Update(name, "here already", e.Total, e.Total)
	case registry.Done:
		d.Done(name, "done")
	}
}

// short is the beginning of a digest as listings show it.
func short(d digest.Digest) string {
	if d.Validate() != nil {
		return string(d)
	}
	return d.Encoded()[:12]
}

// imageFor finds the image that a workload is to be made from, and pulls it
// where the policy says so.
func (a *app) imageFor(ctx context.Context, name, policy, platformFlag string, quiet bool) (workload.Image, runspec.ImageConfig, error) {
	p, err := platform(platformFlag)
	if err != nil {
		return workload.Image{}, runspec.ImageConfig{}, err
	}
	s, err := a.images()
	if err != nil {
		return workload.Image{}, runspec.ImageConfig{}, err
	}
	im, err := a.findOrPull(ctx, s, name, policy, p, quiet)
	if err != nil {
		return workload.Image{}, runspec.ImageConfig{}, err
	}
	if !manifest.Host().Runs(im.Platform) {
		return workload.Image{}, runspec.ImageConfig{}, advice.New(
			fmt.Sprintf("image %s is for %s, and this machine is %s", name, im.Platform, manifest.Host()),
			"choose an image for this machine, such as with --platform "+manifest.Host().String())
	}
	ref := im.Digest.String()
	if r, err := reference.Parse(name); err == nil && slices.Contains(im.References, r.String()) {
		ref = r.String()
	} else if len(im.References) > 0 {
		ref = im.References[0]
	}
	return workload.Image{Reference: ref, Digest: im.Digest.String()}, runConfig(im.Config), nil
}

// findOrPull looks for the image here and, as the policy allows, elsewhere. An
// image that is here for another platform than the one asked for does not count.
func (a *app) findOrPull(ctx context.Context, s *image.Store, name, policy string, p manifest.Platform, quiet bool) (image.Image, error) {
	if policy != "always" {
		im, err := s.Resolve(name)
		if err == nil && (p.OS == "" || p.Runs(im.Platform)) {
			return im, nil
		}
		if err != nil && (!errors.Is(err, image.ErrNotFound) || policy == "never") {
			return image.Image{}, err
		}
		if policy == "never" {
			return image.Image{}, advice.New(fmt.Sprintf("image %s is here for %s only", name, im.Platform), "leave out --pull never, or choose that platform")
		}
	}
	return a.pull(ctx, s, name, registry.Options{Platform: p}, quiet)
}
