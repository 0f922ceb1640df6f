// Package reference names images the way Docker does. A user writes "redis";
// everything below the command line works with the whole name,
// "docker.io/library/redis:latest".
//
//	[registry[:port]/]repository[:tag][@sha256:digest]
//
// The first component is a registry when it holds a dot or a colon, or is
// "localhost", or has an upper-case letter; otherwise the registry is
// docker.io, and a repository of one component lies under "library/".
package reference

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxLength bounds a reference in bytes. Repository names end at 255 bytes and
// tags at 128 (distribution spec, "Pulling manifests"); the rest is the
// registry and a digest.
const MaxLength = 1024

// ErrInvalid is wrapped by every error of Parse.
var ErrInvalid = errors.New("invalid image reference")

// Reference is a whole, valid name of an image. The zero value names nothing.
type Reference struct {
	registry   string
	repository string
	tag        string
	digest     digest.Digest
}

// Parse reads a reference as a user writes it and completes it: registry,
// "library/", and the tag "latest" where there is neither tag nor digest.
// Only SHA-256 digests are accepted.
func Parse(s string) (Reference, error) {
	if len(s) > MaxLength {
		return Reference{}, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxLength)
	}
	r, err := parse(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %w", ErrInvalid, s, err)
	}
	return r, nil
}

// ParseName reads a name that somebody gives to an image here. It has no
// digest: what a digest stands for is nobody's choice. Nor is it "sha256",
// which with a tag could not be told from a digest; Docker refuses it as well.
func ParseName(s string) (Reference, error) {
	r, err := Parse(s)
	switch {
	case err != nil:
		return Reference{}, err
	case r.digest != "":
		return Reference{}, fmt.Errorf("%w %q: a name to give cannot have a digest", ErrInvalid, s)
	case r.LooksLikeDigest():
		return Reference{}, fmt.Errorf("%w %q: it could not be told from a digest", ErrInvalid, s)
	}
	return r, nil
}

// LooksLikeDigest reports whether the short form of r begins as a digest does.
func (r Reference) LooksLikeDigest() bool {
	return r.registry == defaultRegistry && r.repository == officialPrefix+string(digest.SHA256)
}

// Registry is the host, with a port where one was given: "docker.io",
// "localhost:5000".
func (r Reference) Registry() string { return r.registry }

// Repository is the path within the registry: "library/redis".
func (r Reference) Repository() string { return r.repository }

// Name is registry and repository: "docker.io/library/redis".
func (r Reference) Name() string { return r.registry + "/" + r.repository }

// Tag is empty when only a digest was given.
func (r Reference) Tag() string { return r.tag }

// Digest is empty when only a tag was given. With both, the digest decides.
func (r Reference) Digest() digest.Digest { return r.digest }

// IsZero reports whether r names nothing.
func (r Reference) IsZero() bool { return r == Reference{} }

// String is the whole name; Parse(r.String()) gives r again.
func (r Reference) String() string {
	if r.IsZero() {
		return ""
	}
	s := r.Name()
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest.String()
	}
	return s
}

// Familiar is the short form that listings show: docker.io/ and library/ are
// left out, as Docker does.
func (r Reference) Familiar() string {
	s := r.String()
	if rest, ok := strings.CutPrefix(s, "docker.io/"); ok {
		s = rest
		if rest, ok := strings.CutPrefix(s, "library/"); ok {
			s = rest
		}
	}
	// The short form must lead back to the same image.
	if back, err := Parse(s); err != nil || back != r {
		return r.String()
	}
	return s
}

// WithDigest is the same repository at a digest, without a tag.
func (r Reference) WithDigest(d digest.Digest) Reference {
	r.tag, r.digest = "", d
	return r
}
