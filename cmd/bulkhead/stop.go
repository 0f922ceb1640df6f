package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) stopCommand() *cobra.Command {
	var f stopFlags
	cmd := &cobra.Command{
		Use:   "stop [flags] WORKLOAD...",
		Short: "Ask workloads to end, and kill them when they do not",
		Long: `Stop sends the stop signal (SIGTERM, or what the image or --stop-signal says)
to a workload's first process, and SIGKILL to all of it when it has not ended in
time. A workload that is not running is no error.`,
		Example:           "  bulkhead stop web\n  bulkhead stop --time 1 web db\n  bulkhead stop --signal INT web",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			timeout, sig, err := f.check(cmd)
			if err != nil {
				return err
			}
			return a.forAll(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error {
				return e.StopBy(ctx, ref, timeout, sig)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	var f stopFlags
	cmd := &cobra.Command{
		Use:   "restart [flags] WORKLOAD...",
		Short: "Stop workloads and start them again",
		Long: `Restart stops workloads as stop does and starts them again, with what update
has changed. One that does not run is started.`,
		Example:           "  bulkhead restart web\n  bulkhead restart --time 1 web db",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) error {
			timeout, sig, err := f.check(cmd)
			if err != nil {
				return err
			}
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error {
				return e.Restart(ctx, ref, timeout, sig)
			})
		},
	}
	f.add(cmd)
	return cmd
}

// stopFlags are those of stop and restart.
type stopFlags struct {
	seconds int
	signal  string
}

func (f *stopFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&f.seconds, "time", "t", 10, "`seconds` until SIGKILL; -1 waits without end (default: the workload's)")
	cmd.Flags().Lookup("time").DefValue = "0" // shows none
	cmd.Flags().StringVarP(&f.signal, "signal", "s", "", "`signal` by name or number (default: the workload's)")
}

// check returns the timeout, nil for the workload's own, and the signal, 0 for
// its own.
func (f *stopFlags) check(cmd *cobra.Command) (timeout *time.Duration, sig syscall.Signal, err error) {
	if cmd.Flags().Changed("time") {
		d, err := runspec.StopTimeout("--time", f.seconds)
		if err != nil {
			return nil, 0, err
		}
		timeout = &d
	}
	if f.signal != "" {
		sig, err = parseSignal(f.signal)
	}
	return timeout, sig, err
}

// parseSignal reads --signal.
func parseSignal(name string) (syscall.Signal, error) {
	sig, err := workload.ParseSignal(name)
	if err != nil {
		err = advice.Wrap(err, fmt.Sprintf("--signal %q: unknown signal", name), "give a name or number as in signal(7), such as SIGHUP or 1")
	}
	return sig, err
}

func (a *app) killCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:               "kill [flags] WORKLOAD...",
		Short:             "Send a signal to the first process of workloads",
		Long:              "Kill sends a signal, SIGKILL unless another is named, to the first process of\neach workload. It does not wait for the end.",
		Example:           "  bulkhead kill web\n  bulkhead kill --signal HUP web",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeWorkloads(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := parseSignal(name)
			if err != nil {
				return err
			}
			return a.forEach(cmd, args, func(ctx context.Context, e *engine.Engine, ref string) error {
				return e.Kill(ctx, ref, sig)
			})
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "`signal` by name or number")
	return cmd
}

// forEach does something to each workload named, and prints the word that named
// it when that was done.
func (a *app) forEach(cmd *cobra.Command, refs []string, f func(ctx context.Context, e *engine.Engine, ref string) error) error {
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		return a.each(refs, func(ref string) error {
			if err := f(ctx, e, ref); err != nil {
				return err
			}
			fmt.Fprintln(a.out, ref)
			return nil
		})
	})
}

// together is how many workloads forAll ends at a time: each takes the host some
// work, and then a while in which its supervisor and kernel clean up.
const together = 8

// forAll is forEach for what needs no order: it works on several at a time, and
// prints in the order of refs.
func (a *app) forAll(cmd *cobra.Command, refs []string, f func(ctx context.Context, e *engine.Engine, ref string) error) error {
	if len(refs) == 1 || len(refs) != len(distinct(refs)) {
		return a.forEach(cmd, refs, f)
	}
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		results := map[string]chan error{}
		for _, ref := range refs {
			results[ref] = make(chan error, 1)
		}
		free := make(chan struct{}, together)
		go func() {
			for _, ref := range refs {
				free <- struct{}{}
				go func() {
					results[ref] <- f(ctx, e, ref)
					<-free
				}()
			}
		}()
		return a.each(refs, func(ref string) error {
			if err := <-results[ref]; err != nil {
				return err
			}
			fmt.Fprintln(a.out, ref)
			return nil
		})
	})
}

// distinct are the words, sorted, each once.
func distinct(words []string) []string { return slices.Compact(slices.Sorted(slices.Values(words))) }
