package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/spf13/cobra"
)

// version is set by the build with -ldflags; it is the module's version when
// installed with go install.
var version = ""

// versionInfo is what version shows.
type versionInfo struct {
	Version   string
	Commit    string
	Modified  bool
	GoVersion string
	Os        string //nolint:revive // Docker's spelling
	Arch      string
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:               "version [flags]",
		Short:             "Show the version of this program",
		Long:              "Version shows what this program was built from.",
		Example:           "  bulkhead version\n  bulkhead version --format '{{.Version}}'",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if format != "" {
				return output.Write(a.out, output.Listing{}, format, []versionInfo{newVersionInfo()})
			}
			a.printVersion()
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json or a Go `template`")
	return cmd
}

// printVersion shows the version in one line.
func (a *app) printVersion() {
	v := newVersionInfo()
	commit := v.Commit
	if v.Modified {
		commit += ", with changes"
	}
	if commit != "" {
		commit = " (" + commit + ")"
	}
	fmt.Fprintf(a.out, "bulkhead %s%s %s %s/%s\n", v.Version, commit, v.GoVersion, v.Os, v.Arch)
}

// newVersionInfo reads what the linker left.
func newVersionInfo() versionInfo {
	v := versionInfo{Version: version, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		if v.Version == "" {
			v.Version = "unknown"
		}
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
