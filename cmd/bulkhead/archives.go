package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/spf13/cobra"
)

func (a *app) importCommand() *cobra.Command {
	var o archive.ImportOptions
	var platformFlag string
	cmd := &cobra.Command{
		Use:   "import [flags] FILE|- [NAME]",
		Short: "Make an image from the tar of a root file system",
		Long: `Import makes an image of one layer from a tar archive, plain or compressed with
gzip or zstd, and prints its ID. Changes are Dockerfile instructions: CMD,
ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME and
WORKDIR.`,
		Example: `  mmdebstrap --variant=minbase bookworm - | bulkhead import - debian:12
  bulkhead import --change 'CMD ["/bin/sh"]' rootfs.tar.gz base`,
		Args: needs(1, 2, "a file, and maybe a name"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Platform, err = platform(platformFlag); err != nil {
				return err
			}
			if len(args) > 1 {
				o.Name = args[1]
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.withImages(func(s *image.Store) error {
				if args[0] == "-" && terminal.IsTerminal(a.in) {
					return advice.New("import reads standard input, and that is a terminal", "give a file, or pipe an archive into it")
				}
				in, err := a.openInput(args[0])
				if err != nil {
					return err
				}
				defer in.Close()
				im, err := archive.Import(ctx, s, in, o)
				switch {
				case err == nil:
					a.happened(events.Image, "import", string(im.ID), o.Name)
					fmt.Fprintln(a.out, im.ID)
				case errors.Is(err, unpack.ErrHostile):
					return advice.Wrap(err, err.Error(), "give the tar of a root file system, plain or compressed with gzip or zstd, none of whose names leads outside")
				}
				return err
			})
		},
	}
	cmd.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "apply a Dockerfile `instruction` to the config")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "`text` for the history")
	cmd.Flags().StringVar(&platformFlag, "platform", "", "the `OS/ARCH[/VARIANT]` that the programs are for (default: this machine's)")
	return cmd
}

func (a *app) loadCommand() *cobra.Command {
	var input, name, platformFlag string
	var quiet bool
	cmd := &cobra.Command{
		Use:     "load [flags]",
		Short:   "Bring images from an archive or a layout directory",
		Long:    "Load brings all images of an OCI archive, an OCI layout directory or a `docker\nsave` archive, plain or compressed, and prints their names.",
		Example: "  docker save app | bulkhead load\n  bulkhead load -i ./layout",
		Args:    needs(0, 0, "flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := platform(platformFlag)
			if err != nil {
				return err
			}
			if input == "" && terminal.IsTerminal(a.in) {
				return advice.New("load reads standard input, and that is a terminal", "give a file or directory with -i, or pipe an archive into it")
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return a.withImages(func(s *image.Store) error {
				o := archive.LoadOptions{Platform: p, Name: name}
				var loaded []image.Image
				if input == "" || input == "-" {
					loaded, err = archive.LoadReader(ctx, s, a.in, o)
				} else if _, statErr := os.Stat(input); statErr != nil {
					return advice.Wrap(statErr, fmt.Sprintf("%s cannot be read: %s", input, fileReason(statErr)), "give an archive or a layout directory that exists")
				} else {
					loaded, err = archive.Load(ctx, s, input, o)
				}
				a.printLoaded(loaded, quiet) // those before the one that failed, too
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "read this `file` or directory instead of standard input")
	cmd.Flags().StringVar(&name, "name", "", "`name` for an image that the archive gives none, or a tag only")
	cmd.Flags().StringVar(&platformFlag, "platform", "", "choose images of this `OS/ARCH[/VARIANT]`")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print IDs only")
	return cmd
}

// printLoaded names the images that were loaded.
func (a *app) printLoaded(loaded []image.Image, quiet bool) {
	for _, im := range loaded {
		switch {
		case quiet:
			fmt.Fprintln(a.out, im.ID)
		case len(im.References) == 0:
			fmt.Fprintf(a.out, "Loaded image ID: %s\n", im.ID)
		}
		for _, r := range im.References {
			if !quiet {
				fmt.Fprintf(a.out, "Loaded image: %s\n", familiar(r))
			}
		}
	}
}

func (a *app) saveCommand() *cobra.Command {
	var outputFlag, formatFlag string
	cmd := &cobra.Command{
		Use:   "save [flags] IMAGE...",
		Short: "Write images to an archive or a layout directory",
		Long: `Save writes images to one archive that load, Docker and Podman can read. The
same images give the same bytes. The format oci-dir writes a layout directory.`,
		Example:           "  bulkhead save -o app.tar app:1.0\n  bulkhead save --format docker-archive app | docker load",
		Args:              needs(1, -1, "an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.save(cmd, outputFlag, formatFlag, args)
		},
	}
	cmd.Flags().StringVarP(&outputFlag, "output", "o", "", "write to this `file` or directory instead of standard output")
	cmd.Flags().StringVar(&formatFlag, "format", string(archive.OCIArchive), "`oci-archive`, docker-archive or oci-dir")
	return cmd
}

func (a *app) save(cmd *cobra.Command, target, formatFlag string, refs []string) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	if formatFlag == "oci-dir" {
		if target == "" {
			return advice.New("a layout directory cannot be written to standard output", "name a directory with -o")
		}
		return a.withImages(func(s *image.Store) error { return archive.SaveDir(ctx, s, target, refs...) })
	}
	format, err := archive.ParseFormat(formatFlag)
	if err != nil {
		return advice.Wrap(err, fmt.Sprintf("--format %q: unknown format", formatFlag), "give oci-archive, docker-archive or oci-dir")
	}
	if target == "" && terminal.IsTerminal(a.out) {
		return advice.New("save writes an archive, and standard output is a terminal", "name a file with -o, or pipe it into a program")
	}
	return a.withImages(func(s *image.Store) error {
		write := func(w io.Writer) error { return archive.Save(ctx, s, w, format, refs...) }
		if target == "" {
			return write(interruptibleWriter(ctx, a.out))
		}
		return writeFile(ctx, target, write)
	})
}

// writeFile makes a file that is complete or not there, for its owner alone: it
// holds all that an image or a workload has. What is not a plain file, such as
// /dev/null or a pipe, and standard output by any name, is written to as it is, as long
// as ctx lasts.
func writeFile(ctx context.Context, name string, write func(io.Writer) error) error {
	info, err := os.Stat(name)
	if err == nil {
		if out, err := os.Stdout.Stat(); err == nil && os.SameFile(info, out) {
			return write(interruptibleWriter(ctx, os.Stdout))
		}
	}
	if err == nil && !info.Mode().IsRegular() {
		// A pipe opens when somebody opens its other end.
		f, err := orDone(ctx, func() (*os.File, error) { return os.OpenFile(name, os.O_WRONLY, 0) })
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && info.Mode().IsRegular() {
			err = fmt.Errorf("%s became another file meanwhile", name)
		}
		if err == nil {
			err = write(interruptibleWriter(ctx, f))
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	}
	// Beside the file, so that it can be renamed. A new name that nobody can guess:
	// the directory may be anybody's.
	f, err := os.CreateTemp(filepath.Dir(name), ".bulkhead-") // short, however long the name
	if err != nil {
		return advice.Wrap(err, fmt.Sprintf("%s cannot be written: %s", name, fileReason(err)), "choose a place that can be written to")
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
