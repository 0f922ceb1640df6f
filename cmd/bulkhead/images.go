package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
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
	Containers   int // workloads that were made from it
	SharedSize   string
	UniqueSize   string
	VirtualSize  string

	labels map[string]string
}

// Label is called by {{.Label "key"}}.
func (r imageRow) Label(key string) string { return r.labels[key] }

var imagesListing = output.Listing{
	Columns: []output.Column{
		{Header: "REPOSITORY", Field: "Repository"}, {Header: "TAG", Field: "Tag"}, {Header: "IMAGE ID", Field: "ID"},
		{Header: "CREATED", Field: "CreatedSince"}, {Header: "SIZE", Field: "DiskSize"},
	},
	More: []output.Column{
		{Header: "DIGEST", Field: "Digest"}, {Header: "CREATED AT", Field: "CreatedAt"},
		{Header: "STORED", Field: "Size"}, {Header: "PLATFORM", Field: "Platform"}, {Header: "WORKLOADS", Field: "Containers"},
		{Header: "SHARED SIZE", Field: "SharedSize"}, {Header: "UNIQUE SIZE", Field: "UniqueSize"}, {Header: "VIRTUAL SIZE", Field: "VirtualSize"},
	},
}

// imagesFlags are the flags of images.
type imagesFlags struct {
	quiet, noTrunc, digests, all bool
	format                       string
	words                        []string
}

func (a *app) imagesCommand() *cobra.Command {
	var f imagesFlags
	cmd := &cobra.Command{
		Use:   "images [flags] [NAME]",
		Short: "List images",
		Long: `Images lists the images of this machine, the newest first. With a name, only
those of that repository, or of that tag; with a pattern, those that match.
Filters are dangling=true for those that have no tag any more, reference=PATTERN,
label=KEY[=VALUE], before=IMAGE, since=IMAGE and until=TIME.`,
		Example:           "  bulkhead images\n  bulkhead images --format '{{.Repository}}:{{.Tag}} {{.Size}}'\n  bulkhead images --filter 'reference=team/*:1.*'",
		Args:              needs(0, 1, "a name at most"),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			keep, err := imageFilters.parse(f.words)
			if err != nil {
				return err
			}
			return a.withImages(func(s *image.Store) error { return a.listImages(cmd, s, f, keep, args) })
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "only IDs")
	fs.BoolVar(&f.noTrunc, "no-trunc", false, "whole IDs")
	fs.BoolVar(&f.digests, "digests", false, "show the digests of the manifests")
	fs.BoolVarP(&f.all, "all", "a", false, "all images, which it always lists")
	fs.StringArrayVarP(&f.words, "filter", "f", nil, "only those that match `KEY=VALUE`")
	fs.StringVar(&f.format, "format", "", "`table`, json or a Go template")
	return cmd
}

func (a *app) listImages(cmd *cobra.Command, s *image.Store, f imagesFlags, keep filters, args []string) error {
	if err := resolveImageFilters(s, keep); err != nil {
		return err
	}
	list, err := s.List()
	if err != nil && list == nil {
		return err
	}
	if err != nil {
		a.warn(err.Error())
	}
	detail, err := a.imageDetails(cmd, s, f.format)
	if err != nil {
		return err
	}
	now := time.Now()
	var rows []imageRow
	for _, im := range list {
		for _, row := range imageRows(im, now, f.noTrunc) {
			if keep.all(func(key, value string) bool { return matchImage(im, row, key, value, now) }) {
				rows = append(rows, detail(im, row))
			}
		}
	}
	if len(args) > 0 {
		if rows, err = onlyNamed(rows, args[0]); err != nil {
			return err
		}
	}
	return a.writeImages(rows, f.format, f.quiet, f.digests)
}

// imageDetails returns what fills in the fields that need a look at all images and
// workloads, where a format wants them.
func (a *app) imageDetails(cmd *cobra.Command, s *image.Store, format string) (func(image.Image, imageRow) imageRow, error) {
	if !slices.ContainsFunc([]string{"json", ".Containers", ".SharedSize", ".UniqueSize"}, func(field string) bool { return strings.Contains(format, field) }) {
		return func(_ image.Image, row imageRow) imageRow { return row }, nil
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	e, err := a.engine(ctx)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	usage, err := s.Usage(inUse(e))
	if err != nil && !errors.Is(err, image.ErrDamaged) {
		return nil, err
	}
	return func(im image.Image, row imageRow) imageRow {
		for _, u := range usage.Images {
			if u.Digest == im.Digest {
				row.Containers, row.SharedSize, row.UniqueSize = len(u.Users), output.Size(u.Shared), output.Size(u.Unique)
			}
		}
		return row
	}, nil
}

func (a *app) writeImages(rows []imageRow, format string, quiet, digests bool) error {
	switch {
	case quiet && isTable(format):
		format = "{{.ID}}"
		rows = slices.CompactFunc(rows, func(x, y imageRow) bool { return x.ID == y.ID })
	case digests && isTable(format):
		format = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.DiskSize}}"
	}
	return output.Write(a.out, imagesListing, format, rows)
}

// imageRows describes an image, a row for each of its names.
func imageRows(im image.Image, now time.Time, whole bool) []imageRow {
	row := imageRow{
		Repository: "<none>", Tag: "<none>", ID: im.ShortID(), Digest: im.Digest.String(),
		CreatedAt: "N/A", CreatedSince: "N/A", Size: output.Size(im.Size), DiskSize: output.Size(im.DiskSize), Platform: im.Platform.String(),
		SharedSize: "N/A", UniqueSize: "N/A", VirtualSize: output.Size(im.DiskSize), labels: im.Config.Labels,
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

// onlyNamed keeps the rows of one repository, or of one tag of it, or those that
// a pattern matches.
func onlyNamed(rows []imageRow, name string) ([]imageRow, error) {
	if strings.ContainsAny(name, "*?[") {
		if fix := pattern(name); fix != "" {
			return nil, advice.New(fmt.Sprintf("%q: not a pattern of names", name), fix)
		}
		return slices.DeleteFunc(rows, func(row imageRow) bool { return !matchesReference(row, name) }), nil
	}
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
			return a.withImages(func(s *image.Store) error {
				err := s.Tag(args[0], args[1])
				if err == nil {
					a.happened(events.Image, "tag", args[0], args[1])
				}
				return err
			})
		},
	}
}

// historyRow is one step of how an image was made.
type historyRow struct {
	ID           string // of the image in its last step, "<missing>" in the others
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
	More: []output.Column{{Header: "IMAGE", Field: "ID"}, {Header: "CREATED AT", Field: "CreatedAt"}},
}

func (a *app) historyCommand() *cobra.Command {
	var noTrunc, quiet, human bool
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
				if quiet && isTable(format) {
					format = "{{.ID}}"
				}
				return output.Write(a.out, historyListing, format, historyRows(im, time.Now(), noTrunc, human))
			})
		},
	}
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "whole commands and IDs")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only IDs: the image's, and <missing> for each step before its last")
	cmd.Flags().BoolVarP(&human, "human", "H", true, "sizes and dates for people; false for bytes and times")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// historyRows joins the history with the layers: each step that is not marked
// empty made the next layer.
func historyRows(im image.Image, now time.Time, whole, human bool) []historyRow {
	size := output.Size
	if !human {
		size = func(n int64) string { return strconv.FormatInt(n, 10) }
	}
	var rows []historyRow
	layer := 0
	for _, h := range im.History {
		row := historyRow{
			ID: "<missing>", CreatedAt: "N/A", CreatedSince: "N/A", CreatedBy: clip(h.CreatedBy, 45, whole), Size: size(0), Comment: h.Comment,
		}
		if h.Created != nil {
			row.CreatedAt, row.CreatedSince = h.Created.Format(time.RFC3339), output.Ago(now.Sub(*h.Created))+" ago"
			if !human {
				row.CreatedSince = row.CreatedAt
			}
		}
		if !h.EmptyLayer && layer < len(im.Layers) {
			row.Size = size(im.Layers[layer].Unpacked)
			layer++
		}
		rows = append(rows, row)
	}
	slices.Reverse(rows)
	if len(rows) > 0 {
		rows[0].ID = im.ShortID()
		if whole {
			rows[0].ID = im.ID.String()
		}
	}
	return rows
}

func (a *app) rmiCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rmi [flags] IMAGE...",
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
	var all bool
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove images that nothing needs",
		Long: `Prune removes images that have no tag and that no workload was made from; with -a
also those with a tag, and those that were pulled by their digest. Filters are
label=KEY[=VALUE], label!=KEY[=VALUE] and until=TIME, for those that were built
before.`,
		Example:           "  bulkhead image prune -a -f\n  bulkhead image prune -a --filter until=240h",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := pruneFilters.parse(f.words)
			if err != nil {
				return err
			}
			question := "Remove every image that has no tag?"
			if all {
				question = "Remove every image that no workload was made from?"
			}
			if err := a.sure(f.force, question); err != nil {
				return err
			}
			return a.removing(cmd, func(s *image.Store, users image.InUse) error {
				bytes, err := a.pruneImages(s, users, all, keep)
				if err == nil {
					a.reclaimed(bytes)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name")
	f.add(cmd)
	return cmd
}

// pruneImages removes images and lists them.
func (a *app) pruneImages(s *image.Store, users image.InUse, all bool, keep filters) (int64, error) {
	var want func(image.Image) bool
	if now := time.Now(); len(keep) > 0 {
		want = func(im image.Image) bool { return keep.chosen(im.Created, im.Config.Labels, now) }
	}
	rep, err := s.PruneSome(all, want, users)
	a.printRemoved(rep)
	return rep.Bytes, err
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
	return a.withImages(func(s *image.Store) error { return f(s, inUse(e)) })
}

// printRemoved lists what is gone.
func (a *app) printRemoved(rep image.Report) {
	for _, r := range rep.Untagged {
		a.happened(events.Image, "untag", r, r)
		fmt.Fprintf(a.out, "Untagged: %s\n", familiar(r))
	}
	for _, d := range rep.Deleted {
		a.happened(events.Image, "delete", string(d), "")
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
