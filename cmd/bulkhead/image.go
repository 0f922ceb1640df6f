package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/registry"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// imageFixes say what to do about errors of the image packages.
var imageFixes = []struct {
	err error
	fix string
}{
	{image.ErrNotFound, "`bulkhead images` lists what is here; `bulkhead pull` brings an image from a registry"},
	{image.ErrAmbiguous, "give more digits of the ID, or a name"},
	{image.ErrInUse, "remove those workloads first with `bulkhead rm`"},
	{image.ErrDamaged, "remove the image with `bulkhead image rm` and pull it again"},
	{reference.ErrInvalid, "write [REGISTRY[:PORT]/]NAME[:TAG][@sha256:DIGEST], such as alpine:3.20"},
	{registry.ErrUnauthorized, "check the name; for a private image log in with a tool that writes ~/.docker/config.json"},
	{registry.ErrUnreachable, "check the name and the network; an image can also be brought with `bulkhead load` or `bulkhead import`"},
	{archive.ErrFormat, "give an OCI layout, an OCI archive or a `docker save` archive; for a root file system use `bulkhead import`"},
	{unpack.ErrTruncated, "fetch the file again: it ends too early"},
	{unpack.ErrDigest, "fetch the image again: what came is not what its digest names"},
	{unpack.ErrHostile, "do not use this image: one of its layers tries to write outside, or is damaged"},
	{unpack.ErrLimit, "use a smaller image: unpacking this one could fill the disk"},
	{manifest.ErrInvalid, "build or fetch the image again: its documents are not as the OCI image specification says"},
}

// imageCommand returns `image` with all commands for images.
func (a *app) imageCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:     "image COMMAND",
		Short:   "Manage images",
		Long:    "Image holds all commands for images; the most used ones also stand alone.",
		Example: "  bulkhead image ls\n  bulkhead image prune",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(named(a.imagesCommand(), "ls", "list"), a.pullCommand(), a.pushCommand(), a.importCommand(), a.loadCommand(), a.saveCommand(),
		a.imageInspectCommand(), a.tagCommand(), named(a.rmiCommand(), "rm", "remove"), a.pruneCommand(), a.historyCommand())
	return parent
}

// withImages opens the store and makes errors about images readable.
func (a *app) withImages(f func(s *image.Store) error) error {
	s, err := a.images()
	if err != nil {
		return err
	}
	return f(s)
}

// familiar shortens a reference as listings do; what is no reference is
// returned as it is.
func familiar(ref string) string {
	r, err := reference.Parse(ref)
	if err != nil || ref == "" {
		return ref
	}
	return r.Familiar()
}

// inUse lets the image store ask the engine which workloads were made from an
// image.
func inUse(e *engine.Engine) image.InUse {
	return func() (func(digest.Digest) []string, error) {
		users, err := e.ImageUsers()
		if err != nil {
			return nil, err
		}
		return func(d digest.Digest) []string { return users(d.String()) }, nil
	}
}

// platform reads --platform; "" is the host's.
func platform(s string) (manifest.Platform, error) {
	if s == "" {
		return manifest.Platform{}, nil
	}
	p, err := manifest.ParsePlatform(s)
	if err != nil {
		return p, advice.Wrap(err, fmt.Sprintf("--platform %q: not a platform", s), "write OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
	}
	return p, nil
}

// runConfig hands an image's config to the translation of flags.
func runConfig(c manifest.RunConfig) runspec.ImageConfig {
	out := runspec.ImageConfig{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
		StopSignal: c.StopSignal, Labels: c.Labels, Shell: c.Shell,
	}
	if h := c.Healthcheck; h != nil {
		out.Health = workload.Health{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for v := range c.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	for p := range c.ExposedPorts {
		out.ExposedPorts = append(out.ExposedPorts, p)
	}
	slices.Sort(out.Volumes)
	slices.Sort(out.ExposedPorts)
	return out
}

// openInput opens a file, or standard input for "-" and "".
func (a *app) openInput(name string) (*os.File, error) {
	if name == "" || name == "-" {
		return a.in, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, advice.Wrap(err, fmt.Sprintf("%s cannot be read: %s", name, fileReason(err)), "give the path of a file that exists, or - for standard input")
	}
	return f, nil
}

// fileReason is the last part of a file error in words.
func fileReason(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return strings.TrimSpace(err.Error())
}
