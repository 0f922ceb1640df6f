package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/spf13/cobra"
)

// imageRow is what templates and JSON of images see; the names are Docker's.
type imageRow struct {
	Repository   string
	Tag          string
	ID           string
	Digest       string
	CreatedAt    string
	CreatedSince string
	Size         string
	DiskSize     string
	Platform     string
}

var imagesListing = output.Listing{
	Columns: []output.Column{
		{Header: "REPOSITORY", Field: "Repository"}, {Header: "TAG", Field: "Tag"}, {Header: "IMAGE ID", Field: "ID"},
		{Header: "CREATED", Field: "CreatedSince"}, {Header: "SIZE", Field: "DiskSize"},
	},
	More: []output.Column{
		{Header: "DIGEST", Field: "Digest"}, {Header: "CREATED AT", Field: "CreatedAt"},
		{Header: "STORED", Field: "Size"}, {Header: "PLATFORM", Field: "Platform"},
	},
}

func (a *app) imagesCommand(name string) *cobra.Command {
	var quiet, noTrunc, digests bool
	var format string
	cmd := &cobra.Command{
		Use:               name + " [flags] [NAME]",
		Short:             "List images",
		Long:              "Images lists the images of this machine, the newest first. With a name, only\nthose of that repository, or of that tag.",
		Example:           "  bulkhead images\n  bulkhead images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
		Args:              needs(0, 1, "a name at most"),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withImages(func(s *image.Store) error {
				list, err := s.List()
				if err != nil && list == nil {
					return err
				}
				if err != nil {
					a.warn(err.Error())
				}
				var rows []imageRow
				for _, im := range list {
					rows = append(rows, imageRows(im, time.Now(), noTrunc)...)
				}
				if len(args) > 0 {
					if rows, err = onlyNamed(rows, args[0]); err != nil {
						return err
					}
				}
				return a.writeImages(rows, format, quiet, digests)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "whole IDs")
	cmd.Flags().BoolVar(&digests, "digests", false, "show the digests of the manifests")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

func (a *app) writeImages(rows []imageRow, format string, quiet, digests bool) error {
	switch {
	case quiet:
		format = "{{.ID}}"
		rows = slices.CompactFunc(rows, func(x, y imageRow) bool { return x.ID == y.ID })
	case digests && (format == "" || format == "table"):
		format = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.DiskSize}}"
	}
	return output.Write(a.out, imagesListing, format, rows)
}

// imageRows describes an image, a row for each of its names.
func imageRows(im image.Image, now time.Time, whole bool) []imageRow {
	row := imageRow{
		Repository: "<none>", Tag: "<none>", ID: im.ShortID(), Digest: im.Digest.String(),
		CreatedAt: "N/A", CreatedSince: "N/A", Size: output.Size(im.Size), DiskSize: output.Size(im.DiskSize), Platform: im.Platform.String(),
	}
	if whole {
		row.ID = im.ID.String()
	}
	if !im.Created.IsZero() {
		row.CreatedAt = im.Created.Local().Format("2006-01-02 15:04:05 -0700 MST")
		row.CreatedSince = output.Ago(now.Sub(im.Created)) + " ago"
	}
	var rows []imageRow
	for _, ref := range im.References {
		name, tag := familiar(ref), ""
		if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
			name, tag = name[:i], name[i+1:]
		}
		row.Repository, row.Tag = name, tag
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		return rows
	}
	if len(im.Digests) > 0 {
		row.Repository, _, _ = strings.Cut(familiar(im.Digests[0]), "@")
	}
	return []imageRow{row}
}

// onlyNamed keeps the rows of one repository, or of one tag of it.
func onlyNamed(rows []imageRow, name string) ([]imageRow, error) {
	r, err := reference.Parse(name)
	if err != nil {
		return nil, err
	}
	whole := r.Familiar()
	repository, _, _ := strings.Cut(strings.TrimSuffix(whole, ":"+r.Tag()), "@")
	tagged := strings.HasSuffix(name, ":"+r.Tag())
	return slices.DeleteFunc(rows, func(row imageRow) bool {
		return row.Repository != repository || tagged && row.Tag != r.Tag()
	}), nil
}

func (a *app) imageInspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:               "inspect [flags] IMAGE...",
		Short:             "Show all that is known of images",
		Long:              "Inspect shows images as JSON: names, digests, config, layers and history.",
		Example:           "  bulkhead image inspect --format '{{join .config.Cmd \" \"}}' alpine",
		Args:              needs(1, -1, "an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withImages(func(s *image.Store) error {
				return a.inspectAll(format, args, func(ref string) (any, error) { return s.Inspect(ref) })
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	return cmd
}

func (a *app) tagCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "tag IMAGE NAME[:TAG]",
		Short:             "Give an image another name",
		Long:              "Tag gives an image another name. An image that had the name before loses it.",
		Example:           "  bulkhead tag app registry.example/team/app:1.0",
		Args:              needs(2, 2, "an image and a name"),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withImages(func(s *image.Store) error { return s.Tag(args[0], args[1]) })
		},
	}
}

// historyRow is one step of how an image was made.
type historyRow struct {
	CreatedAt    string
	CreatedSince string
	CreatedBy    string
	Size         string
	Comment      string
}

var historyListing = output.Listing{
	Columns: []output.Column{
		{Header: "CREATED", Field: "CreatedSince"}, {Header: "CREATED BY", Field: "CreatedBy"},
		{Header: "SIZE", Field: "Size"}, {Header: "COMMENT", Field: "Comment"},
	},
	More: []output.Column{{Header: "CREATED AT", Field: "CreatedAt"}},
}

func (a *app) historyCommand() *cobra.Command {
	var noTrunc bool
	var format string
	cmd := &cobra.Command{
		Use:               "history [flags] IMAGE",
		Short:             "Show how an image was made",
		Long:              "History shows the steps that an image says it was made by, the last one first.",
		Example:           "  bulkhead history --no-trunc alpine",
		Args:              needs(1, 1, "one image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withImages(func(s *image.Store) error {
				im, err := s.Inspect(args[0])
				if err != nil {
					return err
				}
				return output.Write(a.out, historyListing, format, historyRows(im, time.Now(), noTrunc))
			})
		},
	}
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "whole commands")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// historyRows joins the history with the layers: each step that is not marked
// empty made the next layer.
func historyRows(im image.Image, now time.Time, whole bool) []historyRow {
	var rows []historyRow
	layer := 0
	for _, h := range im.History {
		row := historyRow{CreatedAt: "N/A", CreatedSince: "N/A", CreatedBy: clip(h.CreatedBy, 45, whole), Size: "0B", Comment: h.Comment}
		if h.Created != nil {
			row.CreatedAt, row.CreatedSince = h.Created.Format(time.RFC3339), output.Ago(now.Sub(*h.Created))+" ago"
		}
		if !h.EmptyLayer && layer < len(im.Layers) {
			row.Size = output.Size(im.Layers[layer].Unpacked)
			layer++
		}
		rows = append(rows, row)
	}
	slices.Reverse(rows)
	return rows
}

func (a *app) rmiCommand(name string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   name + " [flags] IMAGE...",
		Short: "Remove images",
		Long: `Rm takes a name away from an image, and removes the image when that was its
last. An image that a workload was made from stays.`,
		Example:           "  bulkhead rmi alpine:3.19\n  bulkhead rmi -f 4f4fb700ef54",
		Args:              needs(1, -1, "an image"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.removing(cmd, func(s *image.Store, users image.InUse) error {
				return a.each(args, func(ref string) error {
					rep, err := s.Remove(ref, force, users)
					a.printRemoved(rep)
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove an image named by its ID that has several names")
	return cmd
}

func (a *app) pruneCommand() *cobra.Command {
	var all, force bool
	cmd := &cobra.Command{
		Use:     "prune [flags]",
		Short:   "Remove images that nothing needs",
		Long:    "Prune removes images that have no name and that no workload was made from; with\n-a also those with a name.",
		Example: "  bulkhead image prune -a -f",
		Args:    needs(0, 0, "flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && !force {
				ok, err := a.confirm("Remove every image that no workload was made from?")
				if err != nil {
					return err
				}
				if !ok {
					return exitStatus(exitFailure)
				}
			}
			return a.removing(cmd, func(s *image.Store, users image.InUse) error {
				rep, err := s.Prune(all, users)
				a.printRemoved(rep)
				if err == nil {
					fmt.Fprintf(a.out, "Total reclaimed space: %s\n", output.Size(rep.Bytes))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

// removing opens what removing images needs.
func (a *app) removing(cmd *cobra.Command, f func(s *image.Store, users image.InUse) error) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	e, err := a.engine(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	users, err := a.inUse(cmd, e)
	if err != nil {
		return err
	}
	return a.withImages(func(s *image.Store) error { return f(s, users) })
}

// printRemoved lists what is gone.
func (a *app) printRemoved(rep image.Report) {
	for _, r := range rep.Untagged {
		fmt.Fprintf(a.out, "Untagged: %s\n", familiar(r))
	}
	for _, d := range rep.Deleted {
		fmt.Fprintf(a.out, "Deleted: %s\n", d)
	}
}

// confirm asks a person; where none sits it refuses.
func (a *app) confirm(question string) (bool, error) {
	yes, err := ask(a.in, a.err, question)
	if err != nil {
		return false, advice.Wrap(err, "nobody is there to confirm this", "give -f to go on without being asked")
	}
	return yes, nil
}
