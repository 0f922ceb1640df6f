package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// The exit codes that are not the workload's own, as Docker has them.
const (
	exitFailure       = 1   // a command failed
	exitOurs          = 125 // run, create, exec, start -a, attach: our failure, not the program's
	exitNotExecutable = 126
	exitNotFound      = 127
)

// exitStatus is an error that only carries an exit code: everything has been
// said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// interrupted is the exit code of a command that a signal ended, SIGINT where it is not
// known which.
func interrupted(cmd *cobra.Command) int {
	sig := syscall.SIGINT
	if cmd != nil && cmd.Context() != nil {
		sig = cmp.Or(terminal.Interruption(cmd.Context()), sig)
	}
	return 128 + int(sig)
}

// runsProgram marks commands whose exit code is the program's.
const runsProgram = "runs-program"

// looksAtBoundary marks commands whose exit codes are those of package report.
const looksAtBoundary = "looks-at-boundary"

// explain turns what a command returned into the exit code and the error to
// print, nil for none.
func explain(err error, cmd *cobra.Command) (code int, toPrint error) {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status), nil
	}
	code = exitFailure
	if cmd != nil && cmd.Annotations[runsProgram] != "" {
		code = exitOurs
		switch {
		case errors.Is(err, workload.ErrCommandNotFound):
			code = exitNotFound
		case errors.Is(err, workload.ErrNotExecutable):
			code = exitNotExecutable
		}
	}
	if cmd != nil && cmd.Annotations[looksAtBoundary] != "" {
		code = report.ExitError
	}
	if errors.Is(err, context.Canceled) {
		return interrupted(cmd), nil
	}
	if advice.Fix(err) == "" {
		if fix := fixFor(err); fix != "" {
			err = advice.Wrap(err, err.Error(), fix)
		}
	}
	return code, err
}

// fixes say what to do about errors that callers can tell apart.
var fixes = []struct {
	err error
	fix string
}{
	{engine.ErrOutput, "the workload is not told and goes on; its output is in `bulkhead logs` for as long as the workload exists"},
	{workload.ErrNotFound, "`bulkhead ps -a` lists all workloads, `bulkhead tenant ls` the tenants, which have commands of their own"},
	{engine.ErrNoTenant, "`bulkhead tenant ls` lists the tenants; make one with `bulkhead tenant create`"},
	{workload.ErrAmbiguous, "give more digits of the ID, or the name"},
	{workload.ErrNameTaken, "choose another --name, or remove the other with `bulkhead rm`"},
	{workload.ErrNotRunning, "start it with `bulkhead start`"},
	{workload.ErrRunning, "stop it first with `bulkhead stop`"},
	{workload.ErrCommandNotFound, "check the spelling, and whether the image holds the program and the PATH leads to it"},
	{workload.ErrNotExecutable, "check the program's permissions, and that it is no directory"},
	{workload.ErrSupervisorLost, "nobody saw how it ended; start it again with `bulkhead start`"},
	{workload.ErrUnsupported, "`bulkhead doctor` tells what this machine has and lacks"},
	{idrange.ErrExhausted, "remove workloads that are not needed, or give root more IDs in /etc/subuid and /etc/subgid"},
	{idrange.ErrTaken, "remove that workload, or make this one again with `bulkhead run`"},
	{syscall.ENOSPC, "free some space there; in the state directory `bulkhead system prune` does"},
	{syscall.EDQUOT, "free some space there; in the state directory `bulkhead system prune` does"},
	{syscall.EROFS, "choose a state directory that can be written to with --root"},
}

// fixFor finds the fix for err, "" for none.
func fixFor(err error) string {
	for _, f := range fixes {
		if errors.Is(err, f.err) {
			return f.fix
		}
	}
	for _, f := range slices.Concat(imageFixes, kernelFixes, runtimeFixes, templateFixes, volumeFixes, networkFixes) {
		if errors.Is(err, f.err) {
			return f.fix
		}
	}
	return ""
}

// each calls f for each word and goes on after an error. With one word the
// error is returned as it is; with more, those that fail are printed and the
// command exits with 1. A signal ends it at once.
func (a *app) each(words []string, f func(word string) error) error {
	var failed error
	for _, w := range words {
		err := f(w)
		if err == nil {
			continue
		}
		if len(words) == 1 || errors.Is(err, context.Canceled) {
			return err
		}
		if _, err := explain(err, nil); err != nil {
			advice.Print(a.err, "bulkhead", err, a.debug)
		}
		failed = exitStatus(exitFailure)
	}
	return failed
}

// exitNow ends the program from a signal handler.
func exitNow(code int) { os.Exit(code) }
