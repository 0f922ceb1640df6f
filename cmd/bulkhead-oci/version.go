package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// version and commit are set by the build (-ldflags -X).
var version, commit string

// buildVersion returns what the build set, or else what the Go tool recorded.
func buildVersion() (v, c string) {
	v, c = version, commit
	info, ok := debug.ReadBuildInfo()
	if ok && v == "" && info.Main.Version != "(devel)" {
		v = info.Main.Version
	}
	if ok && c == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				c = s.Value
			}
		}
	}
	if v == "" {
		v = "0.0.0-dev"
	}
	return v, c
}

// writeVersion prints the lines that engines look for: "NAME version …",
// "commit: …", "spec: …".
func writeVersion(w io.Writer, self string) {
	v, c := buildVersion()
	fmt.Fprintf(w, "%s version %s\n", self, v)
	if c == "" {
		c = "unknown"
	}
	fmt.Fprintf(w, "commit: %s\nspec: %s\ngo: %s\n", c, specs.Version, runtime.Version())
}
