package comparing

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// insideBudget is how long the runs in one way may take: what an emulated machine
// needs for all rounds, so that it can be told from the others.
const insideBudget = 3 * time.Minute

// inside measures with a program in the workload. What it finds out about kernel,
// system and isolation is always asked for, the rest if it is wanted.
func (c *comparison) inside(ctx context.Context) {
	c.inTurn(ctx, "what it is", 1, insideBudget, func(w *way) { c.identify(ctx, w) })
	if !c.wants(Inside) {
		return
	}
	c.inTurn(ctx, "kernel features", 1, insideBudget, func(w *way) {
		r, err := w.meter(ctx, "features")
		w.features(r, err)
	})
	c.inTurn(ctx, "system calls, files, work", insideRounds, insideBudget, func(w *way) {
		r, err := w.meter(ctx, "-time", "100ms", "-dir", scratchPath, "calls", "files", "work")
		w.figures(r, err)
	})
}

// meter runs the meter's measure in a workload.
func (w *way) meter(ctx context.Context, args ...string) (*meter.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out string
	err := run(ctx, w.driver, measuring(args...), func(cmd *exec.Cmd) (err error) {
		out, err = outputOf(ctx, cmd, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return measured(out)
}

// measuring is the command line of the meter's measure.
func measuring(args ...string) []string { return append([]string{meterPath, "measure"}, args...) }

// measured is what that wrote.
func measured(out string) (*meter.Result, error) {
	r, err := meter.Decode([]byte(out))
	if err != nil {
		return nil, fmt.Errorf("what the program inside wrote is not the meter's: %w", err)
	}
	return r, nil
}

// figures takes the median of each figure of one run as one sample: what is
// measured in one run is not independent of itself.
func (w *way) figures(r *meter.Result, err error) {
	for _, k := range kinds {
		if k.group != Inside || k.id == "compat.features" {
			continue
		}
		if err != nil {
			w.sample(k.id, 0, err)
			continue
		}
		i := slices.IndexFunc(r.Figures, func(f meter.Figure) bool { return f.ID == k.id })
		switch {
		case i < 0:
			w.sample(k.id, 0, errNone("the meter does not measure it"))
		case r.Figures[i].Error != "":
			w.sample(k.id, 0, errNone(r.Figures[i].Error))
		default:
			m := report.Measure{Samples: r.Figures[i].Samples}
			w.sample(k.id, m.Median(), nil)
		}
	}
	w.doNotRank()
}

// unsynced is what is to be known of "write and sync" where nothing is synced.
const unsynced = "no figure of the disk: what it writes is gone with the workload, and is not written back"

// doNotRank takes a figure out of what is the best where it is one of something else.
func (w *way) doNotRank() {
	if _, whole := w.driver.(*system); !w.ours || whole { // which is no workload with --rm
		return
	}
	m := w.measure("files.write")
	if m.Better = ""; m.Measured() && m.Note == "" {
		m.Note = unsynced
	}
}

// features are what of the kernel can be used.
func (w *way) features(r *meter.Result, err error) {
	if err != nil {
		w.sample("compat.features", 0, err)
		return
	}
	works := 0
	var parts []report.Fact
	for _, f := range r.Features {
		answer := "works"
		if f.Errno != "" {
			answer = f.Errno
		} else {
			works++
		}
		parts = append(parts, report.Fact{Name: f.Name, Value: answer})
	}
	w.sample("compat.features", float64(works), nil)
	m := w.measure("compat.features")
	m.Parts, m.Note = parts, fmt.Sprintf("of %d", len(parts))
}

// identify finds out what a way is, from inside and by comparing with the host.
func (c *comparison) identify(ctx context.Context, w *way) {
	r, err := w.meter(ctx, "facts")
	if err != nil {
		w.failed = true
		for _, id := range []string{"kernel.name", "kernel.shared", "system.name", "system.init", "isolation.mechanism"} {
			w.text(id, "", reason(err))
		}
		return
	}
	f := &r.Facts
	w.facts = f
	w.subject.Kernel, w.subject.HostKernel = f.Release, c.host.facts.Release
	w.text("kernel.name", strings.TrimSpace(f.Sysname+" "+f.Release), "it does not say")
	hosts := "yes"
	if c.host.other(f) {
		hosts = "no"
	}
	w.text("kernel.shared", hosts, "")
	w.text("system.name", f.OS, "the image does not say")
	w.text("system.init", f.Init, "/proc does not show it")
	if w.ours && w.subject.Boundary == "vm" {
		if w.machine, err = c.machineOf(ctx, w); err != nil {
			err = fmt.Errorf("its machine could not be looked at: %w", err)
		}
	}
	unseen := err // what is not known is not called anything else
	if unseen == nil {
		text, parts := c.host.mechanism(f, w.isolatedBy())
		w.text("isolation.mechanism", text, "").Parts = parts
	} else {
		w.text("isolation.mechanism", "", reason(unseen))
	}
	n, err := w.size(ctx)
	w.sample("image.size", float64(max(n-c.made.added, 0)), err)
	note := "less the layer that measures"
	if d, ok := w.driver.(interface{ holds() string }); ok {
		note = d.holds() + note
	}
	w.measure("image.size").Note = note
	if unseen != nil {
		w.sample("image.kernel", 0, unseen)
		return
	}
	if w.machine == nil {
		w.sample("image.kernel", 0, errNone("it brings no kernel"))
		return
	}
	var sum int64
	for _, file := range []string{w.machine.Kernel, w.machine.Initramfs} {
		info, err := os.Stat(file)
		if err != nil {
			w.sample("image.kernel", 0, err)
			return
		}
		sum += info.Size()
		m := w.measure("image.kernel")
		m.Parts = append(m.Parts, report.Fact{Name: filepath.Base(file), Value: report.Bytes.Format(float64(info.Size()))})
	}
	w.sample("image.kernel", float64(sum), nil)
}
