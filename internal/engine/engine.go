// Package engine makes, runs and removes workloads, whatever isolates them. It
// is what a command line or another program drives; it holds no process of its
// own:
//
//	caller ── Engine ──starts──> bulkhead-supervisor ── boundary ── workload
//	caller ── Engine ──socket──> bulkhead-supervisor
//
// One supervisor owns one run of one workload: its standard streams, its log
// and its exit status. It survives the caller. What is on disk is described in
// package state, what is said over the socket in package wire.
//
// A workload is created (recorded, and given its directories and its range of
// host IDs), started (a supervisor is started, which asks the boundary for the
// instance), ends, and can be started again until it is removed. Whoever finds
// a workload whose supervisor is gone cleans up after it; Open looks for such
// workloads, so that every command heals what an earlier one left.
package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Config says where an engine keeps its state and what it is wired to.
type Config struct {
	// Root holds what survives a reboot, RunRoot what does not. Both are made
	// with mode 0700 if missing. See DefaultRoots and RootsBelow.
	Root, RunRoot string
	// Supervisor is the path of the bulkhead-supervisor program.
	Supervisor string
	// SupervisorEnv is added to the supervisor's otherwise empty environment.
	SupervisorEnv []string
	// Boundaries are those that workloads may name. The supervisor program
	// must know the same ones.
	Boundaries []boundary.Boundary
	// Images gives the layers of images.
	Images ImageSource
	// Warn receives one-sentence messages about things that are not the
	// caller's fault and do not stop it, such as a workload whose remains could
	// not be removed. Nil drops them.
	Warn func(message string)
}

// ImageSource unpacks images. The image store implements it.
type ImageSource interface {
	// Layers returns the unpacked layers of img, lowest first, as absolute
	// host paths. They stay on disk until release is called; the engine calls
	// it once the workload is listed by Engine.List, whose Spec.Image.Digest
	// must keep the layers from then on.
	Layers(ctx context.Context, img workload.Image) (dirs []string, release func(), err error)
}

// DefaultRoots returns the state directories of the calling user:
// /var/lib/bulkhead and /run/bulkhead for root, "bulkhead" below XDG_DATA_HOME
// (default ~/.local/share) and XDG_RUNTIME_DIR for others.
func DefaultRoots() (root, runRoot string, err error) {
	if os.Geteuid() == 0 {
		return "/var/lib/bulkhead", "/run/bulkhead", nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", "", fmt.Errorf("find the state directory: %w", err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		return "", "", fmt.Errorf("find the run-time directory: XDG_RUNTIME_DIR is not set")
	}
	return filepath.Join(data, "bulkhead"), filepath.Join(run, "bulkhead"), nil
}

// RootsBelow returns the state directories for --root dir: both lie inside
// dir.
func RootsBelow(dir string) (root, runRoot string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	return dir, filepath.Join(dir, "run"), nil
}
