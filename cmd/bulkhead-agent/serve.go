package main

import (
	"context"
	"io"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/agent"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/pid1"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/system"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/mounts"
)

// runDir holds the run-time directories of the workloads.
const runDir = "/run/bulkhead/workloads"

// serve is the agent.
func serve() error {
	release, err := mounts.Release()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return err
	}
	machine := pid1.NewMachine()
	// A workload is killed for want of memory before we are: it would inherit
	// that we never are, and its memory limit could not be held.
	expendable := 0
	a := agent.New(agent.Config{
		Guest: machine, Boundary: container.Boundary{}, RunDir: runDir, Init: pid1.InitProgram,
		System: &system.Boundary{Machine: machine, Program: "/proc/self/exe", AgentCgroup: pid1.AgentCgroup},
		Kernel: release, Version: version, OOMScoreAdj: &expendable,
		Log: func(line string) { pid1.Log("%s", line) },
	})
	return pid1.Run(machine, func(ctx context.Context, conn io.ReadWriteCloser) error {
		return a.Serve(ctx, conn)
	})
}
