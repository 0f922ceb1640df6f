package comparing

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// doors has the prober look which doors to the host stand open.
func (c *comparison) doors(ctx context.Context) {
	c.inTurn(ctx, "doors", 1, patience, func(w *way) {
		r, err := c.look(ctx, w)
		if err != nil {
			h, e := probe.LocalHost()
			if e != nil {
				return
			}
			r = probe.Judge(probe.NewContext(h, nil), nil, "the prober could not look: "+reason(err))
		}
		w.doors = &r
	})
}

func (c *comparison) look(ctx context.Context, w *way) (report.Report, error) {
	if _, whole := w.driver.(*system); w.ours && !whole {
		return c.Probe(ctx, c.made.ours, slices.Concat(c.Flags, w.flags))
	}
	return observe(ctx, w)
}

// observe runs the prober with a way's own command line. Nobody who is not in the
// image's layer runs there, so what it says is taken; nobody declared anything.
func observe(ctx context.Context, w *way) (_ report.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h, err := probe.LocalHost()
	if err != nil {
		return report.Report{}, err
	}
	canaries, err := probing.PutUp()
	if err != nil {
		return report.Report{}, err
	}
	defer func() { err = errors.Join(err, canaries.TakeDown()) }()
	told := probe.NewContext(nil, nil)
	told.Targets = canaries.Targets
	line, err := told.Encode()
	if err != nil {
		return report.Report{}, err
	}
	cmd, err := w.command(ctx, []string{proberPath, "-observe"})
	if err != nil {
		return report.Report{}, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return report.Report{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return report.Report{}, err
	}
	stderr := &capped{left: 64 << 10}
	cmd.Stderr = stderr
	if err := w.launch(cmd); err != nil {
		return report.Report{}, err
	}
	_, werr := in.Write(line)
	said, rerr := bufio.NewReaderSize(io.LimitReader(out, probe.MaxObservations), probe.MaxObservations).ReadBytes('\n')
	in.Close()
	_, _ = io.Copy(io.Discard, out)
	if err := failure(ctx, cmd, errors.Join(cmd.Wait(), werr, rerr), stderr.String()); err != nil {
		return report.Report{}, err
	}
	seen, err := probe.Decode(said)
	if err != nil {
		return report.Report{}, fmt.Errorf("what the prober wrote: %w", err)
	}
	judged := probe.NewContext(h, nil)
	judged.Targets = canaries.Targets
	return probe.Judge(judged, seen, ""), nil
}
