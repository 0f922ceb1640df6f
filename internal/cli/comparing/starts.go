package comparing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// startBudget is how long the starts of one way may take.
const startBudget = time.Minute

// coldRounds is how often an empty page cache is measured: each time it slows down
// everything on the machine.
const coldRounds = 3

func (c *comparison) starts(ctx context.Context) {
	program := c.Command
	if len(program) == 0 {
		program = []string{meterPath, "hello"}
	}
	c.inTurn(ctx, "starts", c.Rounds, startBudget, func(w *way) { w.timeStart(ctx, "start.output", "start.exit", program) })
	if !c.Cold {
		return
	}
	if err := dropCaches(); err != nil {
		for _, w := range c.ways {
			w.sample("start.cold-output", 0, err)
			w.sample("start.cold-exit", 0, err)
		}
		return
	}
	c.inTurn(ctx, "cold starts", coldRounds, startBudget, func(w *way) {
		if err := dropCaches(); err != nil {
			w.sample("start.cold-output", 0, err)
			return
		}
		w.timeStart(ctx, "start.cold-output", "start.cold-exit", program)
	})
}

// timeStart measures one start.
func (w *way) timeStart(ctx context.Context, output, end string, program []string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	first, all, err := w.start(ctx, program)
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // the command was interrupted
	}
	w.sample(output, first.Seconds(), err)
	if errors.Is(err, errSilent) {
		err = nil
	}
	w.sample(end, all.Seconds(), err)
}

func (w *way) start(ctx context.Context, program []string) (first, end time.Duration, err error) {
	if s, ok := w.driver.(starter); ok {
		return s.start(ctx, program)
	}
	err = run(ctx, w.driver, program, func(cmd *exec.Cmd) (err error) {
		first, end, err = timed(ctx, cmd, w)
		return err
	})
	return first, end, err
}

// dropCaches empties the page cache, as proc_sys_vm(5) says.
func dropCaches() error {
	syscall.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("the page cache cannot be emptied: %w", err)
	}
	return nil
}
