package manifest

import (
	"fmt"
	"runtime"
	"sort"
	"strings"
)

// Platform is an operating system and a processor, in Go's names.
type Platform struct {
	OS           string   `json:"os"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant,omitempty"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
}

// Host is the platform that this program runs on.
func Host() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH}.normal() }

// ParsePlatform reads "linux/arm64", "linux/arm/v7" or "arm64". The names that
// uname gives are understood as well: x86_64, aarch64.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	if len(parts) > 3 {
		return Platform{}, fmt.Errorf("invalid platform %q: want OS/ARCHITECTURE[/VARIANT], such as linux/arm64", clip(s))
	}
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			return Platform{}, fmt.Errorf("invalid platform %q: want OS/ARCHITECTURE[/VARIANT], such as linux/arm64", clip(s))
		}
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return clip(s)
}

// normal writes one platform one way.
func (p Platform) normal() Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	}
	if p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8") {
		p.Variant = ""
	}
	if p.Architecture == "arm" && p.Variant == "" {
		p.Variant = "v7"
	}
	return p
}

// Runs reports whether an image of platform q runs on p: the same system and
// processor, and no newer variant than p's where one was asked for.
func (p Platform) Runs(q Platform) bool {
	p, q = p.normal(), q.normal()
	if p.OS != q.OS || p.Architecture != q.Architecture {
		return false
	}
	switch {
	case p.Variant == q.Variant, q.Variant == "":
		return true
	case p.Architecture == "arm":
		return q.Variant < p.Variant // v5 < v6 < v7 < v8
	}
	return false
}

// Select picks the entry of an index that suits want best: the exact variant
// first, then the newest one that still runs. It may be an index itself, in
// which the caller selects again.
func (x *Index) Select(want Platform) (Descriptor, error) {
	var fits []Descriptor
	var have []string
	for _, d := range x.Manifests {
		if !IsManifest(d.MediaType) && !IsIndex(d.MediaType) || d.Platform == nil {
			continue
		}
		if d.Platform.OS != "unknown" { // attestations
			have = append(have, d.Platform.String())
		}
		if want.Runs(*d.Platform) {
			fits = append(fits, d)
		}
	}
	if len(fits) == 0 {
		// An index made by hand may name no platform: one entry is then no choice.
		if len(x.Manifests) == 1 && (IsManifest(x.Manifests[0].MediaType) || IsIndex(x.Manifests[0].MediaType)) && x.Manifests[0].Platform == nil {
			return x.Manifests[0], nil
		}
		return Descriptor{}, &NoPlatformError{Want: want, Have: have}
	}
	sort.SliceStable(fits, func(i, j int) bool {
		return fits[i].Platform.normal().Variant > fits[j].Platform.normal().Variant
	})
	for _, d := range fits {
		if d.Platform.normal().Variant == want.normal().Variant {
			return d, nil
		}
	}
	return fits[0], nil
}

// NoPlatformError says that an image exists, but not for the platform wanted.
type NoPlatformError struct {
	Want Platform
	Have []string
}

func (e *NoPlatformError) Error() string {
	have := e.Have
	if len(have) > 12 {
		have = append(have[:12:12], "…")
	}
	if len(have) == 0 {
		return fmt.Sprintf("no image for %s in the index", e.Want)
	}
	return fmt.Sprintf("no image for %s, only for %s", e.Want, strings.Join(have, ", "))
}
