package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"golang.org/x/sync/errgroup"
)

// Pull brings an image into the store: documents first, then the layers, some
// at a time, each unpacked as soon as it is there. What the store has is not
// fetched again. The image appears when all of it is there.
//
// Errors wrap image.ErrNotFound, ErrUnauthorized, ErrUnreachable,
// unpack.ErrDigest, unpack.ErrTruncated, unpack.ErrHostile, unpack.ErrLimit,
// manifest.ErrInvalid, reference.ErrInvalid or are *manifest.NoPlatformError.
func Pull(ctx context.Context, store *image.Store, ref reference.Reference, opts Options) (image.Image, error) {
	if ref.LooksLikeDigest() {
		return image.Image{}, fmt.Errorf("%w %q: this is a digest, and a registry wants a name before it", reference.ErrInvalid, ref.Familiar())
	}
	s, err := connect(ctx, ref, opts)
	if err != nil {
		return image.Image{}, err
	}
	im, err := s.pull(ctx, store, opts)
	if err != nil {
		return image.Image{}, fmt.Errorf("pull %s: %w", ref.Familiar(), s.explain(err))
	}
	return im, nil
}

// refused reports whether an image is to blame for an error: another try would bring
// the same one.
func refused(err error) bool {
	var platform *manifest.NoPlatformError
	return errors.Is(err, unpack.ErrDigest) || errors.Is(err, unpack.ErrHostile) || errors.Is(err, unpack.ErrLimit) ||
		errors.Is(err, manifest.ErrInvalid) || errors.As(err, &platform)
}

func (s *session) pull(ctx context.Context, store *image.Store, opts Options) (_ image.Image, err error) {
	op, err := store.Begin()
	if err != nil {
		return image.Image{}, err
	}
	defer func() {
		// What a connection or the user broke off goes on from what is here.
		if err != nil && !refused(err) {
			op.Keep()
		}
		op.Close()
	}()
	want := opts.Platform
	if want.OS == "" {
		want = manifest.Host()
	}
	top, d, raw, err := s.resolve(ctx, want)
	if err != nil {
		return image.Image{}, err
	}
	s.report(Event{Step: Resolved, Digest: d})
	m, err := manifest.Parse(raw)
	if err == nil {
		err = store.CheckSizes(m)
	}
	if err != nil {
		return image.Image{}, err
	}
	if _, err := op.AddBlob(raw); err != nil {
		return image.Image{}, err
	}
	c, err := s.config(ctx, op, store, m)
	if err != nil {
		return image.Image{}, err
	}
	// Without an index nothing was chosen yet. The host's platform is no wish:
	// who runs the image will see.
	if opts.Platform.OS != "" && d == top && !want.Runs(c.Platform) {
		return image.Image{}, &manifest.NoPlatformError{Want: want, Have: []string{c.Platform.String()}}
	}
	for _, l := range m.Layers {
		s.report(Event{Step: Waiting, Digest: l.Digest, Total: l.Size})
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel(opts))
	seen := make(map[digest.Digest]bool)
	for i, l := range m.Layers {
		if seen[l.Digest] {
			continue
		}
		seen[l.Digest] = true
		g.Go(func() error { return s.layer(gctx, op, l, c.RootFS.DiffIDs[i]) })
	}
	if err := g.Wait(); err != nil {
		return image.Image{}, err
	}
	names := []reference.Reference{s.ref}
	if s.ref.Digest() == "" {
		names = append(names, s.ref.WithDigest(top))
	}
	return op.Commit(ctx, d, names...)
}

func parallel(opts Options) int {
	if opts.Parallel > 0 {
		return opts.Parallel
	}
	return 4
}

// accept lists what may come back for a manifest.
var accept = strings.Join([]string{manifest.OCIIndex, manifest.OCIManifest, manifest.DockerIndex, manifest.DockerManifest}, ", ")

// resolve fetches the document that the reference names and walks through
// indexes to the manifest for the platform.
func (s *session) resolve(ctx context.Context, want manifest.Platform) (top, d digest.Digest, raw []byte, err error) {
	what := s.ref.Tag()
	if s.ref.Digest() != "" {
		what = s.ref.Digest().String()
	}
	raw, err = s.manifest(ctx, what)
	if err != nil {
		return "", "", nil, err
	}
	top = digest.FromBytes(raw)
	d = top
	for depth := 0; ; depth++ {
		mediaType, err := manifest.Detect(raw)
		if err != nil {
			return "", "", nil, err
		}
		if !manifest.IsIndex(mediaType) {
			return top, d, raw, nil
		}
		if depth == 3 {
			return "", "", nil, fmt.Errorf("%w: indexes nested deeper than 3", manifest.ErrInvalid)
		}
		index, err := manifest.ParseIndex(raw)
		if err != nil {
			return "", "", nil, err
		}
		chosen, err := index.Select(want)
		if err != nil {
			return "", "", nil, err
		}
		d = chosen.Digest
		if raw, err = s.manifest(ctx, d.String()); err != nil {
			return "", "", nil, err
		}
		// What an index says of a document decides how others read it (CVE-2021-41190).
		if mediaType, err = manifest.Detect(raw); err == nil && manifest.IsIndex(mediaType) != manifest.IsIndex(chosen.MediaType) {
			err = fmt.Errorf("%w: the index says that %s is %s, and it is %s", manifest.ErrInvalid, d, chosen.MediaType, mediaType)
		}
		if err != nil {
			return "", "", nil, err
		}
	}
}

// manifest fetches one document by tag or digest and verifies a digest.
func (s *session) manifest(ctx context.Context, what string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("manifests", what), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	raw, err := manifest.ReadAll(resp.Body, manifest.MaxManifestBytes)
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: the manifest ends in the middle", unpack.ErrTruncated)
		}
		return nil, err
	}
	got := digest.FromBytes(raw)
	promised := resp.Header.Get("Docker-Content-Digest")
	if strings.HasPrefix(what, "sha256:") {
		promised = what
	}
	if promised != "" && promised != got.String() {
		return nil, fmt.Errorf("%w: the manifest has the digest %s, not %s", unpack.ErrDigest, got, clip(promised))
	}
	return raw, nil
}

func (s *session) config(ctx context.Context, op *image.Op, store *image.Store, m *manifest.Manifest) (*manifest.Config, error) {
	err := op.WriteBlob(ctx, m.Config.Digest, m.Config.Size, func() (io.ReadCloser, error) {
		return s.blob(ctx, m.Config, nil), nil
	})
	if err != nil {
		return nil, err
	}
	f, err := store.OpenBlob(m.Config.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := manifest.ReadAll(f, manifest.MaxConfigBytes)
	if err != nil {
		return nil, err
	}
	c, err := manifest.ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	return c, manifest.CheckLayers(m, c)
}

func (s *session) layer(ctx context.Context, op *image.Op, l manifest.Descriptor, diffID digest.Digest) error {
	have, err := op.HasBlob(l.Digest)
	if err != nil {
		return err
	}
	if have {
		s.report(Event{Step: Exists, Digest: l.Digest, Total: l.Size})
	}
	err = op.WriteBlob(ctx, l.Digest, l.Size, func() (io.ReadCloser, error) {
		return s.blob(ctx, l, func(n int64) {
			s.report(Event{Step: Download, Digest: l.Digest, Bytes: n, Total: l.Size})
		}), nil
	})
	if err != nil {
		return err
	}
	err = op.Unpack(ctx, l.Digest, diffID, func(n int64) {
		s.report(Event{Step: Unpack, Digest: l.Digest, Bytes: n})
	})
	if err != nil {
		return err
	}
	s.report(Event{Step: Done, Digest: l.Digest, Bytes: l.Size, Total: l.Size})
	return nil
}

// blobReader reads a blob and, when the connection breaks, goes on where it
// was. The content is verified by whoever stores it.
type blobReader struct {
	s        *session
	ctx      context.Context
	d        manifest.Descriptor
	progress func(int64)

	body     io.ReadCloser
	off      int64
	reported int64
	failedAt int64
	tries    int
}

const (
	// maxTries is how often a blob is asked for with fewer than enoughBytes in
	// between.
	maxTries    = 4
	enoughBytes = 1 << 20
)

func (s *session) blob(ctx context.Context, d manifest.Descriptor, progress func(int64)) *blobReader {
	return &blobReader{s: s, ctx: ctx, d: d, progress: progress}
}

// Read implements io.Reader. It may return more than the promised size, for
// the caller to notice.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		n, err := b.read(p)
		b.off += int64(n)
		unfinished := b.off < b.d.Size
		if err != nil && unfinished {
			b.Close() // the next read opens again, where this one ended
		}
		switch {
		case n > 0 && unfinished:
			b.tell(false)
			return n, nil
		case n > 0 || err != nil && !unfinished:
			b.tell(true)
			return n, err
		case err != nil:
			if err := b.again(err); err != nil {
				return 0, err
			}
		}
	}
}

func (b *blobReader) tell(force bool) {
	if b.progress != nil && b.off != b.reported && (force || b.off-b.reported >= 256<<10 || b.off == b.d.Size) {
		b.reported = b.off
		b.progress(b.off)
	}
}

// again waits before another try, or says that there is none.
func (b *blobReader) again(err error) error {
	var answer *transport.Error
	final := errors.As(err, &answer) && !answer.Temporary()
	if b.off-b.failedAt >= enoughBytes {
		b.tries = 0
	}
	b.failedAt = b.off
	if b.tries++; final || b.tries >= maxTries || b.ctx.Err() != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	b.s.report(Event{Step: Retry, Digest: b.d.Digest, Bytes: b.off, Total: b.d.Size, Err: b.s.explain(err)})
	wait := time.NewTimer(200 * time.Millisecond << b.tries)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

func (b *blobReader) read(p []byte) (int, error) {
	if b.d.Size == 0 {
		return 0, io.EOF
	}
	if b.body == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	return b.body.Read(p)
}

func (b *blobReader) open() error {
	ctx := context.WithValue(b.ctx, blobRequest{}, true)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.s.url("blobs", b.d.Digest.String()), nil)
	if err != nil {
		return err
	}
	// The digest is of the blob as it is stored. Asked for nothing, Go would ask for gzip, and
	// undo what the answer calls gzip, be it the layer's own.
	req.Header.Set("Accept-Encoding", "identity")
	want := []int{http.StatusOK}
	if b.off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
		want = append(want, http.StatusPartialContent)
	}
	resp, err := b.s.client.Do(req)
	if err != nil {
		return err
	}
	if err := transport.CheckError(resp, want...); err != nil || !slices.Contains(want, resp.StatusCode) {
		resp.Body.Close()
		return err
	}
	if b.off > 0 && resp.StatusCode == http.StatusOK { // it starts over
		if _, err := io.CopyN(io.Discard, resp.Body, b.off); err != nil {
			resp.Body.Close()
			return err
		}
	}
	b.body = resp.Body
	return nil
}

// Close ends the connection. Reading again would open another.
func (b *blobReader) Close() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}
