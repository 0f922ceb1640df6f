// Package copy is the user's side of a copy between a workload and this machine:
// which argument means what, where a copy goes and what it is called there, by
// Docker's rules, and the files of this machine.
//
//	SRC         DST exists as a directory   as a file          does not exist
//	a file      DST/SRC's name              is replaced        becomes DST; DST/ is an error
//	a directory DST/SRC's name/…            is an error        becomes DST
//	DIR/.       DST/…                       is an error        becomes DST
package copy

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Place is an argument: a path of a workload, or with Workload "" of this machine.
type Place struct{ Workload, Path string }

// Stream is the argument that stands for a tar stream on standard input or
// output.
const Stream = "-"

// Parse reads WORKLOAD:PATH or PATH. What begins with a slash or a dot is a
// path, whatever colons it has.
func Parse(arg string) Place {
	name, p, ok := strings.Cut(arg, ":")
	if !ok || filepath.IsAbs(arg) || strings.HasPrefix(name, ".") || strings.ContainsRune(name, '/') {
		return Place{Path: arg}
	}
	return Place{Workload: name, Path: p}
}

// Source is what is to be copied.
type Source struct {
	// Base is what its archive's names begin with, "." for the content of a
	// directory.
	Base  string
	IsDir bool
}

// Target is where it is to go.
type Target struct {
	Path          string
	Exists, IsDir bool
}

// Errors of Plan.
var (
	ErrDirOverFile = errors.New("cannot copy a directory over a file")
	ErrNoDirectory = errors.New("no such directory")
)

// Plan tells in which directory the archive of src is to be unpacked, and what
// takes the place of src.Base in it, "" to leave it.
func Plan(src Source, dst Target) (dir, as string, err error) {
	if dst.Exists && dst.IsDir {
		return dst.Path, "", nil
	}
	dir, as = path.Split(withoutEnd(dst.Path))
	if dir == "" {
		dir = "."
	}
	switch {
	case dst.Exists && src.IsDir:
		return "", "", fmt.Errorf("%s: %w", dst.Path, ErrDirOverFile)
	case !dst.Exists && !src.IsDir && assertsDirectory(dst.Path):
		return "", "", fmt.Errorf("%s: %w", dst.Path, ErrNoDirectory)
	case as == "" || as == "." || as == "..":
		return "", "", fmt.Errorf("%s: %w", dst.Path, ErrNoDirectory)
	}
	return dir, as, nil
}

// assertsDirectory tells whether a path says of itself that it is a directory.
func assertsDirectory(p string) bool {
	return strings.HasSuffix(p, "/") || path.Base(p) == "." || strings.HasSuffix(p, "/..")
}

// Absolute makes a path of this machine absolute, and keeps what a slash or a
// dot at its end means.
func Absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	return withEnd(abs, p), nil
}

// Inside makes a path of a workload begin at its root, as Docker does, and keeps
// what a slash or a dot at its end means.
func Inside(p string) string { return withEnd(path.Clean("/"+p), p) }

// withEnd gives a path that was cleaned the slash or the dot that it ended in.
func withEnd(clean, p string) string {
	switch {
	case p == "." || strings.HasSuffix(p, "/."):
		return strings.TrimSuffix(clean, "/") + "/."
	case strings.HasSuffix(p, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

// withoutEnd takes slashes and dots from the end of a path that say that it is a
// directory.
func withoutEnd(p string) string {
	for {
		short := strings.TrimSuffix(strings.TrimRight(p, "/"), "/.")
		if short == p {
			return p
		}
		p = short
	}
}

// Join returns where a link leads to that was found at a path. It is for whoever
// resolves paths: there may be other links on the way, and ".." behind one leads up
// from where that leads.
func Join(at, target string) string {
	if path.IsAbs(target) {
		return target
	}
	dir, _ := path.Split(withoutEnd(at))
	return dir + target
}
