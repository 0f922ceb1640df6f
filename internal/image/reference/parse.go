package reference

import (
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The grammar is that of github.com/distribution/reference, which Docker uses.
// It is walked by hand: that package compiles its regular expressions when a
// program starts, a millisecond and more that every command would pay, also
// those that name no image. A test holds the two to the same answers.

const (
	defaultRegistry = "docker.io"
	legacyRegistry  = "index.docker.io"
	officialPrefix  = "library/"
	maxPath         = 255 // distribution spec, "Pulling manifests"
	maxTag          = 128
)

// The reasons for which a reference is refused, for a person.
var (
	errEmpty     = errors.New("it is empty")
	errShape     = errors.New("want [registry[:port]/]name[:tag][@sha256:digest]")
	errUppercase = errors.New("the repository name must be lower case")
	errTooLong   = errors.New("the repository name is longer than 255 bytes")
	errDigest    = errors.New("the digest must be sha256: and 64 hexadecimal digits")
	errIsDigest  = errors.New("64 hexadecimal digits name a digest, write sha256: before them")
)

// parse splits s into the parts of a whole reference.
func parse(s string) (Reference, error) {
	if s == "" {
		return Reference{}, errEmpty
	}
	if isHex64(s) {
		return Reference{}, errIsDigest
	}
	var r Reference
	rest, dig, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		hex, ok := strings.CutPrefix(dig, "sha256:")
		if !ok || !isHex64(hex) {
			return Reference{}, errDigest
		}
		r.digest = digest.Digest(dig)
	}
	r.registry, rest = splitRegistry(rest)
	path, tag, hasTag := strings.Cut(rest, ":")
	switch {
	case strings.ToLower(path) != path:
		return Reference{}, errUppercase
	case !isRegistry(r.registry), !isPath(path), hasTag && !isTag(tag):
		return Reference{}, errShape
	case len(path) > maxPath:
		return Reference{}, errTooLong
	case !hasTag && !hasDigest:
		tag = "latest"
	}
	r.repository, r.tag = path, tag
	return r, nil
}

// splitRegistry cuts the registry off, or says which one is meant.
func splitRegistry(s string) (registry, rest string) {
	first, after, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return defaultRegistry, officialPrefix + s
	case first == legacyRegistry:
		registry, rest = defaultRegistry, after
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		registry, rest = first, after
	default:
		registry, rest = defaultRegistry, s
	}
	if registry == defaultRegistry && !strings.Contains(rest, "/") {
		rest = officialPrefix + rest
	}
	return registry, rest
}

// isHex64 reports whether s is 64 lower-case hexadecimal digits.
func isHex64(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

// isRegistry checks a host name, an IPv4 address or a bracketed IPv6 address,
// with an optional port.
func isRegistry(s string) bool {
	if after, ok := strings.CutPrefix(s, "["); ok {
		address, port, ok := strings.Cut(after, "]")
		return ok && address != "" && strings.Trim(address, "0123456789abcdefABCDEF:") == "" && (port == "" || isPort(port))
	}
	host := s
	if i := strings.IndexByte(s, ':'); i >= 0 {
		if !isPort(s[i:]) {
			return false
		}
		host = s[:i]
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && (c < 'A' || c > 'Z') && c != '-' {
				return false
			}
		}
	}
	return true
}

// isPort checks a colon and digits.
func isPort(s string) bool {
	return len(s) > 1 && s[0] == ':' && strings.Trim(s[1:], "0123456789") == ""
}

// isPath checks components between slashes: lower-case letters and digits,
// joined by one dot, one or two underscores, or any number of hyphens.
func isPath(s string) bool {
	for component := range strings.SplitSeq(s, "/") {
		if component == "" || !isAlnum(component[0]) || !isAlnum(component[len(component)-1]) {
			return false
		}
		for i := 0; i < len(component); {
			if isAlnum(component[i]) {
				i++
				continue
			}
			j := i
			for !isAlnum(component[j]) { // ends: the last one is
				j++
			}
			if sep := component[i:j]; sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
				return false
			}
			i = j
		}
	}
	return true
}

// isTag checks a tag: word characters, dots and hyphens, the first a word
// character.
func isTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// isAlnum reports whether c is a lower-case letter or a digit.
func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
