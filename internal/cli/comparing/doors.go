package comparing

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/capped"
)

// doors has the prober look which doors to the host stand open.
func (c *comparison) doors(ctx context.Context) {
	o, takeDown, err := c.lookout()
	c.inTurn(ctx, "doors", 1, patience, func(w *way) {
		var r report.Report
		failed := err
		if failed == nil {
			r, failed = c.look(ctx, w, o)
		}
		if failed != nil {
			w.failed = true
			r = probe.Judge(probe.NewContext(o.Host, nil), nil, "the prober could not look: "+reason(failed))
		}
		w.doors = &r
	})
	c.left = takeDown()
}

// lookout is what every look has in common: what the host says of itself, and what
// workloads must not find.
func (c *comparison) lookout() (o probing.Options, takeDown func() error, err error) {
	o = probing.Options{Program: c.Prober, Timeout: patience, Labels: map[string]string{Label: c.id}}
	takeDown = func() error { return nil }
	if o.Host, err = probe.LocalHost(); err != nil {
		return o, takeDown, err
	}
	canaries, err := probing.PutUp(c.dir)
	if err != nil {
		return o, takeDown, fmt.Errorf("put up what workloads must not find: %w", err)
	}
	o.Targets = canaries.Targets
	return o, canaries.TakeDown, nil
}

func (c *comparison) look(ctx context.Context, w *way, o probing.Options) (report.Report, error) {
	if _, whole := w.driver.(*system); w.ours && !whole {
		return c.Probe(ctx, c.made.ours, slices.Concat(c.Flags, w.flags), o)
	}
	return observe(ctx, w, o)
}

// observe runs the prober with a way's own command line. Nothing of the image runs
// there, so what it says of itself is taken; nobody declared anything.
func observe(ctx context.Context, w *way, o probing.Options) (r report.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	line, err := probing.Tell(o.Targets)
	if err != nil {
		return r, err
	}
	var said []byte
	err = run(ctx, w.driver, []string{proberPath, "-observe"}, func(cmd *exec.Cmd) (err error) {
		said, err = converse(ctx, w, cmd, line)
		return err
	})
	if err != nil {
		return r, err
	}
	seen, err := probing.Heard(said, o.Targets)
	if err != nil {
		return r, err
	}
	c := probe.NewContext(o.Host, nil)
	c.Targets = o.Targets
	return probe.Judge(c, seen, ""), nil
}

// converse starts the prober, gives it a line, and takes the line that it answers.
func converse(ctx context.Context, l launcher, cmd *exec.Cmd, line []byte) (said []byte, err error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr := &capped.Buffer{Max: maxErrors}
	cmd.Stderr = stderr
	if err := l.launch(cmd); err != nil {
		return nil, err
	}
	_, werr := in.Write(line)
	said, rerr := bufio.NewReader(io.LimitReader(out, probe.MaxObservations)).ReadBytes('\n')
	in.Close()
	_, _ = io.Copy(io.Discard, out) // so that it can end
	return said, failure(ctx, cmd, errors.Join(cmd.Wait(), werr, rerr), stderr.String())
}
