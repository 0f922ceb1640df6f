// Package manifest reads the three JSON documents of an image: the index that
// lists one manifest for each platform, the manifest that lists layers, and
// the config that says how to run it (OCI image-spec v1.1; Docker's schema 2
// is the same apart from media types).
//
// The documents come from registries and archives, so they are hostile. Every
// reader is bounded in bytes, nesting and counts, names the field that is
// wrong, and checks all that the rest of the program relies on. The bytes
// themselves are kept: a digest covers bytes, not what they mean.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Bounds of what is read. Docker's registry client also stops at 4 MiB.
const (
	MaxManifestBytes = 4 << 20 // an index or a manifest
	MaxConfigBytes   = 8 << 20
	// MaxLayers keeps a chain, with one mended directory layer beside each
	// layer, below overlayfs' 500 lower directories.
	MaxLayers    = 200
	MaxManifests = 1000 // entries of an index
	maxDepth     = 64   // nesting of objects and arrays
	maxValues    = 200_000
)

// ErrInvalid is wrapped by every error about the content of a document.
var ErrInvalid = errors.New("malformed image")

// Media types, OCI's and Docker's for each.
const (
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIConfig      = "application/vnd.oci.image.config.v1+json"
	OCILayer       = "application/vnd.oci.image.layer.v1.tar"
	OCILayerGzip   = OCILayer + "+gzip"
	OCILayerZstd   = OCILayer + "+zstd"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGz  = DockerLayer + ".gzip"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1J = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Descriptor points at a blob (image-spec, descriptor.md).
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"` // bytes
	URLs        []string          `json:"urls,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *Platform         `json:"platform,omitempty"`
}

// Manifest is one image for one platform.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Index lists manifests.
type Index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Manifests     []Descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool { return mediaType == OCIIndex || mediaType == DockerIndex }

// IsManifest reports whether a media type is that of an image manifest.
func IsManifest(mediaType string) bool {
	return mediaType == OCIManifest || mediaType == DockerManifest
}

// Detect tells the media type of a document that is an index or a manifest,
// from what it contains. A document that could be read as both is refused
// (CVE-2021-41190).
func Detect(raw []byte) (string, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := decode("manifest", raw, MaxManifestBytes, &probe); err != nil {
		return "", err
	}
	isIndex := probe.Manifests != nil
	isManifest := probe.Config != nil || probe.Layers != nil
	switch {
	case isIndex && isManifest:
		return "", fmt.Errorf("%w: the manifest is also an index", ErrInvalid)
	case probe.SchemaVersion == 1 || probe.FSLayers != nil || probe.MediaType == dockerSchema1 || probe.MediaType == dockerSchema1J:
		return "", fmt.Errorf("%w: Docker's schema 1 manifests are not supported, push the image again with a current tool", ErrInvalid)
	case probe.MediaType == "" && isIndex:
		return OCIIndex, nil
	case probe.MediaType == "" && isManifest:
		return OCIManifest, nil
	case IsIndex(probe.MediaType) && !isManifest, IsManifest(probe.MediaType) && !isIndex:
		return probe.MediaType, nil
	case probe.MediaType == "":
		return "", fmt.Errorf("%w: neither a manifest nor an index", ErrInvalid)
	}
	return "", fmt.Errorf("%w: media type %s is not an image", ErrInvalid, clip(probe.MediaType))
}

// Parse reads and checks an image manifest.
func Parse(raw []byte) (*Manifest, error) {
	mediaType, err := Detect(raw)
	if err != nil {
		return nil, err
	}
	if !IsManifest(mediaType) {
		return nil, fmt.Errorf("%w: want a manifest, found an index", ErrInvalid)
	}
	var m Manifest
	if err := decode("manifest", raw, MaxManifestBytes, &m); err != nil {
		return nil, err
	}
	m.MediaType = mediaType
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: manifest schema version %d, want 2", ErrInvalid, m.SchemaVersion)
	}
	if t := m.Config.MediaType; t != OCIConfig && t != DockerConfig {
		return nil, fmt.Errorf("%w: not a container image: its config has media type %s", ErrInvalid, clip(t))
	}
	if err := m.Config.check("config", MaxConfigBytes); err != nil {
		return nil, err
	}
	if len(m.Layers) > MaxLayers {
		return nil, fmt.Errorf("%w: %d layers, at most %d are supported", ErrInvalid, len(m.Layers), MaxLayers)
	}
	for i, l := range m.Layers {
		if err := l.check(fmt.Sprintf("layer %d", i), 1<<62); err != nil {
			return nil, err
		}
		if err := checkLayerType(l); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return &m, nil
}

func checkLayerType(l Descriptor) error {
	switch l.MediaType {
	case OCILayer, OCILayerGzip, OCILayerZstd, DockerLayer, DockerLayerGz, DockerLayer + ".zstd":
	case "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return fmt.Errorf("%w: foreign layers (%s) are not supported", ErrInvalid, l.MediaType)
	default:
		if strings.HasSuffix(l.MediaType, "+encrypted") {
			return fmt.Errorf("%w: encrypted layers (%s) are not supported", ErrInvalid, clip(l.MediaType))
		}
		return fmt.Errorf("%w: media type %s is not a layer", ErrInvalid, clip(l.MediaType))
	}
	return nil
}

// ParseIndex reads and checks an index. Entries of unknown media type stay in
// it, to be passed over; entries that are images have valid descriptors.
func ParseIndex(raw []byte) (*Index, error) {
	mediaType, err := Detect(raw)
	if err != nil {
		return nil, err
	}
	if !IsIndex(mediaType) {
		return nil, fmt.Errorf("%w: want an index, found a manifest", ErrInvalid)
	}
	var x Index
	if err := decode("index", raw, MaxManifestBytes, &x); err != nil {
		return nil, err
	}
	x.MediaType = mediaType
	if x.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: index schema version %d, want 2", ErrInvalid, x.SchemaVersion)
	}
	if len(x.Manifests) > MaxManifests {
		return nil, fmt.Errorf("%w: an index of %d manifests, at most %d are supported", ErrInvalid, len(x.Manifests), MaxManifests)
	}
	for i, d := range x.Manifests {
		if !IsIndex(d.MediaType) && !IsManifest(d.MediaType) {
			continue
		}
		if err := d.check(fmt.Sprintf("manifest %d of the index", i), MaxManifestBytes); err != nil {
			return nil, err
		}
	}
	return &x, nil
}

func (d Descriptor) check(what string, maxSize int64) error {
	if err := CheckDigest(d.Digest); err != nil {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, what, err)
	}
	if d.Size < 0 || d.Size > maxSize {
		return fmt.Errorf("%w: %s: size of %d bytes, want 0 to %d", ErrInvalid, what, d.Size, maxSize)
	}
	return nil
}

// CheckDigest accepts SHA-256 digests in their one valid form. Everything that
// becomes part of a path goes through here.
func CheckDigest(d digest.Digest) error {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok {
		return fmt.Errorf("digest %q is not supported, want sha256", clip(string(d)))
	}
	if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return fmt.Errorf("digest %q: want 64 lower-case hexadecimal digits", clip(string(d)))
	}
	return nil
}

// ReadAll reads a document of at most limit bytes.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%w: a document longer than %d bytes", ErrInvalid, limit)
	}
	return raw, nil
}

// clip keeps words of the other side short and printable in messages.
func clip(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	if s == "" {
		return "(none)"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}
