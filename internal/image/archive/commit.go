package archive

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// CommitOptions says what the image made from a workload is to be.
type CommitOptions struct {
	Name    string   // may be empty: the image then has only its ID
	Changes []string // Dockerfile instructions, see Change
	Message string   // of the history
	Author  string
	Command string    // of the history: what the workload ran
	Created time.Time // zero is now
}

// Commit makes an image of a base image and one layer more, which holds what a
// workload of the base has changed of it. read writes the workload's whole root
// file system as a tar archive; it may be called twice.
func Commit(ctx context.Context, s *image.Store, base image.Image, changes []workload.Change, read func(io.Writer) error, opts CommitOptions) (image.Image, error) {
	names, err := newNames(opts.Name)
	if err != nil {
		return image.Image{}, err
	}
	if opts.Created.IsZero() {
		opts.Created = time.Now()
	}
	op, err := s.Hold(base)
	if err != nil {
		return image.Image{}, err
	}
	defer op.Close()
	rawManifest, rawConfig, err := s.Manifest(base)
	if err != nil {
		return image.Image{}, err
	}
	m, err := manifest.Parse(rawManifest)
	if err != nil {
		return image.Image{}, err
	}
	c, err := manifest.ParseConfig(rawConfig)
	if err != nil {
		return image.Image{}, err
	}
	if len(changes) > 0 && len(m.Layers) >= manifest.MaxLayers {
		return image.Image{}, fmt.Errorf("the image has %d layers, and with what changed it would have more than the %d that an image may have: export the workload and import the archive, which makes one layer of all",
			len(m.Layers), manifest.MaxLayers)
	}
	layers := slices.Clone(m.Layers)
	for i := range layers {
		layers[i].MediaType = ociLayer(layers[i].MediaType)
	}
	if len(changes) > 0 {
		layer, err := addChanges(ctx, op, changes, read)
		if err != nil {
			return image.Image{}, err
		}
		layers = append(layers, layer.Blob)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, layer.DiffID)
	}
	config, err := committed(rawConfig, c, opts, len(changes) == 0)
	if err != nil {
		return image.Image{}, err
	}
	return commit(ctx, op, config, layers, names...)
}

// newNames are the name that somebody gives to a new image, or none.
func newNames(name string) ([]reference.Reference, error) {
	if name == "" {
		return nil, nil
	}
	r, err := reference.ParseName(name)
	if err != nil {
		return nil, err
	}
	return []reference.Reference{r}, nil
}

// ociLayer is the OCI's name for a layer's media type: a manifest has those of one
// kind.
func ociLayer(mediaType string) string {
	switch mediaType {
	case manifest.DockerLayer:
		return manifest.OCILayer
	case manifest.DockerLayerGz:
		return manifest.OCILayerGzip
	}
	return mediaType
}

// committed is the base's config, with what this program does not know of it, and
// the changes.
func committed(raw []byte, c *manifest.Config, opts CommitOptions, empty bool) ([]byte, error) {
	created := opts.Created.UTC()
	before := c.Config
	run := before
	run.Env = slices.Clone(run.Env)
	if err := Change(&run, opts.Changes...); err != nil {
		return nil, err
	}
	history := append(c.History, manifest.History{
		Created: &created, CreatedBy: opts.Command, Comment: opts.Message, Author: opts.Author, EmptyLayer: empty,
	})
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	set := func(key string, v any) (err error) {
		doc[key], err = json.Marshal(v)
		return err
	}
	err := errors.Join(set("created", &created), set("rootfs", c.RootFS), set("history", history))
	if opts.Author != "" {
		err = errors.Join(err, set("author", opts.Author))
	}
	if len(opts.Changes) > 0 {
		merged, merr := merge(doc["config"], run)
		doc["config"], err = merged, errors.Join(err, merr)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// merge puts run in the place of what raw says of the same fields, and leaves its
// other ones.
func merge(raw json.RawMessage, run manifest.RunConfig) (json.RawMessage, error) {
	doc, known := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &doc); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(run)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &known); err != nil {
		return nil, err
	}
	for _, name := range manifest.RunConfigFields() {
		delete(doc, name)
		if v, ok := known[name]; ok {
			doc[name] = v
		}
	}
	return json.Marshal(doc)
}

// addChanges stores the layer. A file with several names is in it under all that
// the layer needs: those that its links are made to may not have changed themselves.
func addChanges(ctx context.Context, op *image.Op, changes []workload.Change, read func(io.Writer) error) (image.NewLayer, error) {
	l, err := newLayer(changes)
	if err != nil {
		return image.NewLayer{}, err
	}
	// The first time tells what is missing. A workload that runs may change meanwhile, and
	// a guest say anything.
	const most = 8
	for n := 0; ; n++ {
		added, err := l.add(ctx, op, read)
		var more *linksError
		if !errors.As(err, &more) || n == most || !l.want(more.targets) {
			return added, err
		}
	}
}

// layer is which files of a root file system belong into a layer.
type layer struct {
	wanted  map[string]bool // by absolute path
	deleted []string
}

const whiteout = ".wh." // image-spec, layer.md

func newLayer(changes []workload.Change) (*layer, error) {
	l := &layer{wanted: map[string]bool{}}
	for _, c := range changes {
		name := path.Clean("/" + c.Path)
		if strings.HasPrefix(path.Base(name), whiteout) {
			return nil, fmt.Errorf("%q cannot be in an image: such a name stands for a file that was deleted", name)
		}
		if c.Kind == "D" {
			l.deleted = append(l.deleted, name)
		} else {
			l.wanted[name] = true
		}
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			l.wanted[dir] = true
		}
	}
	return l, nil
}

// want adds files, and reports whether any is new.
func (l *layer) want(names []string) (more bool) {
	for _, name := range names {
		for ; name != "/" && !l.wanted[name]; name = path.Dir(name) {
			l.wanted[name], more = true, true
		}
	}
	return more
}

// linksError names the targets of hard links that are not in a layer.
type linksError struct{ targets []string }

func (e *linksError) Error() string { return "a hard link leads out of the layer" }

func (l *layer) add(ctx context.Context, op *image.Op, read func(io.Writer) error) (image.NewLayer, error) {
	whole, all := io.Pipe()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		all.CloseWithError(read(all))
	}()
	out, in := io.Pipe()
	filtered := make(chan error, 1)
	go func() {
		z := gzip.NewWriter(in)
		err := l.write(z, whole)
		if err == nil {
			err = z.Close()
		}
		whole.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // read may go on writing
		in.CloseWithError(err)
		filtered <- err
	}()
	added, err := op.AddLayer(ctx, out, nil)
	out.CloseWithError(io.ErrClosedPipe)
	<-reading
	if ferr := <-filtered; ferr != nil && !errors.Is(ferr, io.ErrClosedPipe) {
		return image.NewLayer{}, ferr // it is the cause
	}
	return added, err
}

// write copies what belongs into the layer from the archive of a whole root file
// system.
func (l *layer) write(w io.Writer, whole io.Reader) error {
	r, t := tar.NewReader(whole), tar.NewWriter(w)
	var missing []string
	size := 0
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name)
		if !l.wanted[name] {
			continue
		}
		h.Name = strings.TrimPrefix(name, "/")
		switch h.Typeflag {
		case tar.TypeDir:
			h.Name = cmp.Or(h.Name, ".") + "/"
		case tar.TypeLink:
			target := path.Clean("/" + h.Linkname)
			if !l.wanted[target] {
				missing = append(missing, target)
				if size += len(target); size > workload.MaxChangeBytes || len(missing) > workload.MaxChanges {
					return errors.New("too many hard links to files that have not changed")
				}
			}
			h.Linkname = strings.TrimPrefix(target, "/")
		}
		if len(missing) > 0 {
			continue // nobody will have this layer: what else is missing?
		}
		h.Format = tar.FormatPAX
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(t, r); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, whole); err != nil { // what follows the end
		return err
	}
	if len(missing) > 0 {
		return &linksError{missing}
	}
	for _, name := range l.deleted {
		dir, base := path.Split(strings.TrimPrefix(name, "/"))
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteout + base, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	return t.Close()
}
