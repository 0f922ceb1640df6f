package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/spf13/cobra"
)

// supervisorName is the program that owns one workload.
const supervisorName = "bulkhead-supervisor"

// roots returns the state directories that the flags choose.
func (a *app) roots() (root, runRoot string, err error) {
	if a.root != "" {
		return engine.RootsBelow(a.root)
	}
	return engine.DefaultRoots()
}

// mustBeRoot refuses other users: what they could do comes later.
func mustBeRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return advice.New("this version needs root", "run it as root, such as with sudo; running without root is planned")
}

// engine opens the engine on the chosen state.
func (a *app) engine(ctx context.Context) (*engine.Engine, error) {
	if err := mustBeRoot(); err != nil {
		return nil, err
	}
	root, runRoot, err := a.roots()
	if err != nil {
		return nil, err
	}
	supervisor, err := findProgram(supervisorName)
	if err != nil {
		return nil, err
	}
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	return engine.Open(ctx, engine.Config{
		Root: root, RunRoot: runRoot, Supervisor: supervisor,
		Boundaries: a.boundaries, Images: image.Source{Store: images}, Warn: a.warn,
		Machines: &machines{a: a, root: root, images: images}, Networks: a.networks(),
	})
}

// warn writes a one-sentence message about something that stops nothing.
func (a *app) warn(message string) {
	fmt.Fprintf(a.err, "bulkhead: warning: %s\n", safetext.Line(message))
}

// findProgram finds another program of ours: beside this one, then where
// packages put helpers. The search path is not asked: whoever sets it would
// choose what runs as root.
func findProgram(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's own file: %w", err)
	}
	dir := filepath.Dir(self)
	places := []string{dir, filepath.Join(dir, "..", "libexec", "bulkhead"), "/usr/libexec/bulkhead", "/usr/lib/bulkhead"}
	for _, place := range places {
		path := filepath.Join(place, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", advice.New(fmt.Sprintf("the program %s is missing", name),
		fmt.Sprintf("install it beside %s, as `make build` does", self))
}

// interruptible is a context that Ctrl-C and SIGTERM cancel, so that a command
// stops at a clean point. It becomes the command's own, which tells explain by what,
// until stop is called without that one came: there may be more to do.
func interruptible(cmd *cobra.Command) (_ context.Context, stop context.CancelFunc) {
	before := cmd.Context()
	ctx, end := terminal.Interruptible(before)
	cmd.SetContext(ctx)
	return ctx, func() {
		end()
		if terminal.Interruption(ctx) == 0 {
			cmd.SetContext(before)
		}
	}
}

// withEngine runs f with an open engine.
func (a *app) withEngine(cmd *cobra.Command, f func(ctx context.Context, e *engine.Engine) error) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	opening := trace.Step(ctx, "state opened")
	e, err := a.engine(ctx)
	opening.End()
	if err != nil {
		return err
	}
	defer e.Close()
	return f(ctx, e)
}
