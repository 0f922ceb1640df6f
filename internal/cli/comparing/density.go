package comparing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

// densityBudget is how long one way may take to raise its number.
const densityBudget = time.Minute

// reserve is the part of the machine's memory that is left free: a tenth.
const reserve = 10

// density raises the number of idle workloads of each way until a limit, time, or
// the machine's memory stops it.
func (c *comparison) density(ctx context.Context) {
	for _, w := range c.ways {
		if w.missing != "" || ctx.Err() != nil {
			continue
		}
		c.Say("density", fmt.Sprintf("up to %d, %s", c.Density, w.subject.Label))
		c.turn(ctx, w, func(w *way) {
			if err := c.crowd(ctx, w); err != nil {
				for _, id := range []string{"density.idle", "density.each", "density.room"} {
					w.sample(id, 0, err)
				}
			}
		})
	}
	c.Said("density", "measured")
}

func (c *comparison) crowd(ctx context.Context, w *way) (err error) {
	before, err := w.before(ctx)
	if err != nil {
		return err
	}
	var names, ids []string
	defer func() {
		c.Say("density", fmt.Sprintf("removing %d, %s", len(names), w.subject.Label))
		err = errors.Join(err, w.remove(context.WithoutCancel(ctx), names...))
	}()
	stopped, full := fmt.Sprintf("the limit of --density %d was reached", c.Density), false
	for begin := time.Now(); len(names) < c.Density; {
		if free, total, err := available(); err != nil {
			return err
		} else if free < total/reserve {
			stopped = "a tenth of the machine's memory is left"
			break
		}
		if time.Since(begin) > densityBudget {
			stopped = fmt.Sprintf("%v had passed", densityBudget)
			break
		}
		name := newName("idle")
		id, err := w.detach(ctx, name, idle, false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if len(names) == 0 {
				return err
			}
			stopped, full = "the next did not start: "+reason(err), true
			break
		}
		names, ids = append(names, name), append(ids, id)
	}
	if err := wait(ctx, settle); err != nil {
		return err
	}
	now, err := pss.Snapshot()
	if err != nil {
		return err
	}
	alive := 0
	for _, id := range ids {
		if len(now.Owned(id)) > 0 {
			alive++
		}
	}
	if alive == 0 {
		return fmt.Errorf("all %d had ended when they were counted", len(ids))
	}
	if alive < len(ids) {
		stopped += fmt.Sprintf("; %d of %d had ended by then", len(ids)-alive, len(ids))
	}
	sum, err := w.count(before, ids...)
	if err != nil {
		return err
	}
	w.sample("density.idle", float64(alive), nil)
	w.measure("density.idle").Note = stopped
	each := float64(sum.beside) / float64(alive)
	w.sample("density.each", each, nil)
	if full {
		w.sample("density.room", float64(alive), nil)
		w.measure("density.room").Note = stopped
		return nil
	}
	free, total, err := available()
	if err != nil {
		return err
	}
	more := max(float64(free-total/reserve)/each, 0)
	w.sample("density.room", float64(alive)+float64(int(more)), nil)
	m := w.measure("density.room")
	m.Estimated, m.Note = true, "by the memory of each, until a tenth of the machine's is left; other limits may come first"
	return nil
}

// available is how many bytes of the machine's memory can be had, and all of it.
func available() (free, total int64, err error) {
	f := meter.Look()
	if f.Memory == 0 {
		return 0, 0, errors.New("/proc/meminfo does not say how much memory there is")
	}
	return f.Available, f.Memory, nil
}
