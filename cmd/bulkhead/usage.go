package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/spf13/cobra"
)

// usageRow is one kind of thing in system df; the names are Docker's.
type usageRow struct {
	Type        string
	TotalCount  int
	Active      int
	Size        string
	Reclaimable string
}

var usageListing = output.Listing{Columns: []output.Column{
	{Header: "TYPE", Field: "Type"}, {Header: "TOTAL", Field: "TotalCount"}, {Header: "ACTIVE", Field: "Active"},
	{Header: "SIZE", Field: "Size"}, {Header: "RECLAIMABLE", Field: "Reclaimable"},
}}

// newUsageRow adds up.
func newUsageRow(kind string, total, active int, size, reclaimable int64) usageRow {
	row := usageRow{Type: kind, TotalCount: total, Active: active, Size: output.Size(size), Reclaimable: output.Size(reclaimable)}
	if size > 0 {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
	}
	return row
}

// sized is one workload, tenant or volume with what it takes.
type sized struct {
	record *engine.Record
	volume engine.VolumeRecord
	bytes  int64
	active bool
}

// sumUp makes the row of some of them.
func sumUp(kind string, all []sized) usageRow {
	var size, free int64
	active := 0
	for _, s := range all {
		size += s.bytes
		if s.active {
			active++
		} else {
			free += s.bytes
		}
	}
	return newUsageRow(kind, len(all), active, size, free)
}

// diskUsage is all that takes room on the disk.
type diskUsage struct {
	images             image.Usage
	workloads, tenants []sized
	volumes            []sized
	kernels            int
	kernelBytes        int64
	templates          []sized
}

func (a *app) systemUsageCommand() *cobra.Command {
	var verbose bool
	var format string
	cmd := &cobra.Command{
		Use:   "df [flags]",
		Short: "Show what takes room on the disk",
		Long: `Df adds up the room on the disk that images, workloads, volumes, the machines of
tenants, kernels and templates take, and how much of it comes back when what is not in use is
removed. What images share counts once, and files with holes as far as they have
blocks. Images count as they came and unpacked, with their disks for virtual
machines.`,
		Example:           "  bulkhead system df\n  bulkhead system df -v\n  bulkhead system df --format '{{.Type}}: {{.Reclaimable}}'",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verbose && format != "" {
				return advice.New("-v and --format exclude each other", "`bulkhead images`, `ps -as` and `volume ls` have formats")
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				u, err := a.measure(ctx, e)
				if err != nil {
					return err
				}
				if verbose {
					return a.writeUsage(u)
				}
				return output.Write(a.out, usageListing, format, u.rows())
			})
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show each image, workload and volume")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

// rows are the kinds, in Docker's order.
func (u *diskUsage) rows() []usageRow {
	return []usageRow{
		newUsageRow("Images", len(u.images.Images), u.images.Active, u.images.Bytes, u.images.Reclaimable),
		sumUp("Workloads", u.workloads), sumUp("Volumes", u.volumes), sumUp("Tenants", u.tenants),
		newUsageRow("Kernels", u.kernels, u.kernels, u.kernelBytes, 0), sumUp("Templates", u.templates),
	}
}

// measure looks at everything.
func (a *app) measure(ctx context.Context, e *engine.Engine) (*diskUsage, error) {
	u := &diskUsage{}
	store, err := a.images()
	if err != nil {
		return nil, err
	}
	if u.images, err = store.Usage(inUse(e)); err != nil && !errors.Is(err, image.ErrDamaged) {
		return nil, err
	} else if err != nil {
		a.warn(err.Error())
	}
	records, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		bytes, err := e.DiskSize(ctx, r)
		if err != nil {
			return nil, err
		}
		s := sized{record: r, bytes: bytes, active: running(r.Status)}
		if r.Tenant() != "" {
			u.tenants = append(u.tenants, s)
		} else {
			u.workloads = append(u.workloads, s)
		}
	}
	volumes, err := a.listVolumes(ctx, e)
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		bytes, err := e.VolumeUsage(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		u.volumes = append(u.volumes, sized{volume: v, bytes: bytes, active: len(v.Users) > 0})
	}
	return u, errors.Join(a.measureKernels(ctx, u), a.measureTemplates(u))
}

func (a *app) measureTemplates(u *diskUsage) error {
	store, err := a.templates()
	if err != nil {
		return err
	}
	all, err := store.List()
	for _, t := range all {
		u.templates = append(u.templates, sized{bytes: t.Size, active: t.InUse})
	}
	return err
}

func (a *app) measureKernels(ctx context.Context, u *diskUsage) error {
	root, _, err := a.roots()
	if err != nil {
		return err
	}
	store, err := a.kernels()
	if err != nil {
		return err
	}
	list, err := store.List()
	if err != nil {
		return err
	}
	u.kernels = len(list)
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "kernels")) // one may share them
	if err == nil {
		u.kernelBytes, err = volume.Tree(ctx, dir)
	}
	return err
}

// usageImage, usageWorkload and usageVolume are the rows of df -v.
type usageImage struct {
	Repository, Tag, ID, Created, Size, SharedSize, UniqueSize string
	Containers                                                 int
}

type usageWorkload struct{ ID, Image, Command, Size, Created, Status, Names string }

type usageVolume struct {
	Name, Size string
	Links      int
}

// writeUsage writes a table for each kind.
func (a *app) writeUsage(u *diskUsage) error {
	var images []usageImage
	now := time.Now()
	for _, iu := range u.images.Images {
		for _, r := range imageRows(iu.Image, now, false) {
			images = append(images, usageImage{r.Repository, r.Tag, r.ID, r.CreatedSince, output.Size(iu.Shared + iu.Unique), output.Size(iu.Shared), output.Size(iu.Unique), len(iu.Users)})
		}
	}
	var workloads []usageWorkload
	for _, s := range append(u.workloads, u.tenants...) {
		r := newPsRow(s.record, now, false)
		workloads = append(workloads, usageWorkload{r.ID, r.Image, r.Command, output.Size(s.bytes), r.RunningFor, r.Status, r.Names})
	}
	var volumes []usageVolume
	for _, s := range u.volumes {
		volumes = append(volumes, usageVolume{s.volume.Name, output.Size(s.bytes), len(s.volume.Users)})
	}
	return errors.Join(
		usageTable(a, "Images", "REPOSITORY TAG IMAGE_ID CREATED SIZE SHARED_SIZE UNIQUE_SIZE WORKLOADS",
			"Repository Tag ID Created Size SharedSize UniqueSize Containers", images),
		usageTable(a, "\nWorkloads and machines of tenants", "ID IMAGE COMMAND SIZE CREATED STATUS NAMES", "ID Image Command Size Created Status Names", workloads),
		usageTable(a, "\nVolumes", "VOLUME_NAME LINKS SIZE", "Name Links Size", volumes),
	)
}

// usageTable writes one table: headers and fields are words.
func usageTable[T any](a *app, title, headers, fields string, rows []T) error {
	fmt.Fprintf(a.out, "%s space usage:\n\n", title)
	var l output.Listing
	names := strings.Fields(fields)
	for i, h := range strings.Fields(headers) {
		l.Columns = append(l.Columns, output.Column{Header: strings.ReplaceAll(h, "_", " "), Field: names[i]})
	}
	return output.Write(a.out, l, "", rows)
}
