// Package unpack writes the files of one image layer into a directory, in the
// form that overlayfs stacks: a removed file is a character device 0:0, a
// directory that hides what lies below carries an "opaque" attribute (OCI
// image-spec, layer.md; Linux, filesystems/overlayfs.rst).
//
// Layers are hostile. The package keeps its own tree of the directories that
// it made and reaches every file as one name in an open directory, so the
// kernel never walks a path that the layer wrote. Links in the middle of a
// path are resolved by the package, within the root. Nothing is ever opened
// that it has not just created.
package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
)

// OpaqueXattr marks a directory that hides the lower layers. Overlayfs mounted
// without the "userxattr" option looks for this name.
const OpaqueXattr = "trusted.overlay.opaque"

// Options of Layer.
type Options struct {
	Limits Limits
	Budget *Budget // of the image; nil for none
	// Progress is told how many bytes of the uncompressed archive were read,
	// now and then. May be nil.
	Progress func(bytes int64)
}

// Result says what a layer was.
type Result struct {
	DiffID  digest.Digest // SHA-256 of the uncompressed archive
	Bytes   int64         // sum of the sizes of its regular files
	Entries int
	MaxID   uint32 // the largest user or group ID that owns an entry
	// Implied lists directories that entries lie in but that have no entry of
	// their own, parents first. They were made with mode 0755 and owner 0:0;
	// in an image their attributes are those of the layer below.
	Implied []string
	// RootOpaque is set when the layer hides every lower layer. Overlayfs
	// does not look for the mark on the roots of layers.
	RootOpaque bool
}

// Layer unpacks the archive r, plain or compressed with gzip or zstd, into the
// empty directory root. r is read to its end: the digest covers all of it.
//
// On an error the directory holds a part of the layer and nothing outside was
// touched; the caller removes it. Nothing is synced to the disk.
//
// Preconditions: root is on a file system with extended attributes; nobody
// else writes below it; the caller may make devices and change owners.
func Layer(ctx context.Context, root *os.File, r io.Reader, opts Options) (Result, error) {
	limits := opts.Limits.withDefaults()
	stream := newPlainStream(ctx, r, limits)
	defer stream.Close()
	u := &unpacker{limits: limits, budget: opts.Budget, tree: newTree(root, limits, opts.Budget), buf: make([]byte, filetree.Block)}
	defer u.tree.close()
	defer runtime.KeepAlive(root)

	in := bufio.NewReaderSize(stream, 64<<10)
	counted := &progressReader{r: in, report: opts.Progress}
	if err := u.entries(ctx, tar.NewReader(counted)); err != nil {
		return Result{}, err
	}
	// What follows the end mark belongs to the digest as well.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return Result{}, streamError(err)
	}
	if err := u.tree.finish(); err != nil {
		return Result{}, err
	}
	sum := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(stream.sum.Sum(nil)))
	return Result{
		DiffID: sum, Bytes: u.bytes, Entries: u.count, MaxID: u.maxID,
		Implied: u.tree.implied(), RootOpaque: u.tree.root.opaque,
	}, nil
}

// DiffID reads the archive r, plain or compressed with gzip or zstd, to its end and
// returns the digest of its plain form. It must stay within the limits of bytes and
// of compression; what is in it is not looked at.
func DiffID(ctx context.Context, r io.Reader, opts Options) (digest.Digest, error) {
	stream := newPlainStream(ctx, r, opts.Limits.withDefaults())
	defer stream.Close()
	if _, err := io.Copy(io.Discard, &progressReader{r: stream, report: opts.Progress}); err != nil {
		return "", streamError(err)
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(stream.sum.Sum(nil))), nil
}

type progressReader struct {
	r      io.Reader
	report func(int64)
	n      int64
	last   int64
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.report != nil && (p.n-p.last >= 1<<20 || err != nil) {
		p.last = p.n
		p.report(p.n)
	}
	return n, err
}

type unpacker struct {
	limits Limits
	budget *Budget
	tree   *tree
	buf    []byte
	bytes  int64
	maxID  uint32
	count  int
}

func (u *unpacker) entries(ctx context.Context, tr *tar.Reader) error {
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
				return fmt.Errorf("%w: entry %d: not a tar header", ErrHostile, u.count)
			}
			return streamError(err)
		}
		u.count++
		if err := u.tree.countOne(); err != nil {
			return err
		}
		if u.count%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("entry %s: %w", quote(hdr.Name), streamError(err))
		}
	}
}

// quote makes a path of the archive fit for a message.
func quote(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return fmt.Sprintf("%q", s)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
