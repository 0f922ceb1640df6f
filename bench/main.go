// Command bench measures what isolation costs on this machine: Bulkhead and
// those of its peers that are installed (runc, crun, gVisor's runsc,
// bubblewrap, Docker, Podman), in one run, taking turns, on the same root file
// system. It prints a Markdown report; "make bench" runs it.
//
// How it measures, so that the figures can be trusted:
//
//   - Every contender of a case runs once in every round, and the order changes
//     from round to round, so that drift and neighbours hit all alike.
//   - The time is that of the whole command, from its start to its end.
//   - The report gives the minimum, the median and the 90th percentile, and the
//     machine's load before and after. Nothing is thrown away but the first
//     rounds, which warm the caches.
//   - Before anything is timed, each OCI runtime shows that all that the bundle
//     asks for is in force: see check.go.
//   - A contender that is absent or fails is named with the reason.
//   - All run in a network namespace of the benchmark's own, whose only way out is
//     another one: no packet is on the machine's network, and its firewall and
//     routes stay as they are.
//
// The absolute figures hold for one machine; the ratios travel better.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
)

type options struct {
	rounds int
	only   *regexp.Regexp
	out    string
	keep   bool
}

func main() {
	var (
		rounds = flag.Int("rounds", 30, "measured rounds of each case")
		only   = flag.String("only", "", "run the cases whose `name` matches this expression")
		out    = flag.String("o", "", "put the report between the markers of this Markdown `file` too")
		keep   = flag.Bool("keep", false, "keep the working directory")
		limit  = flag.Duration("timeout", 2*time.Hour, "stop after this time, with the report of the cases that were measured")
	)
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	re, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: -only:", err)
		os.Exit(2)
	}
	dir, err := enterNamespace(slices.ContainsFunc(machineNames(), re.MatchString))
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := run(ctx, dir, options{*rounds, re, *out, *keep}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, o options) (err error) {
	if !o.keep {
		defer func() {
			if e := os.RemoveAll(dir); e != nil && err == nil {
				err = e
			}
		}()
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := errors.Join(makeRootfs(rootfs), makeShared(dir)); err != nil {
		return err
	}

	f := newField(dir, rootfs)
	defer f.close()
	f.find(ctx, slices.ContainsFunc(machineNames(), o.only.MatchString))

	r := report{dir: dir, machine: describe(dir), contenders: f.versions(ctx), absent: f.absent}
	for _, c := range f.cases() {
		if !o.only.MatchString(c.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s\n", c.title)
		measured := c.measure(ctx, o.rounds)
		if ctx.Err() != nil {
			return stopped(ctx, &r, c.name)
		}
		r.cases = append(r.cases, measured)
	}
	if o.only.MatchString("memory") {
		fmt.Fprintln(os.Stderr, memoryTitle)
		measured := f.memory(ctx)
		if ctx.Err() != nil {
			return stopped(ctx, &r, "memory")
		}
		r.memory = measured
	}
	if len(f.guests) > 0 && o.only.MatchString("vm-memory") {
		fmt.Fprintln(os.Stderr, vmMemoryTitle)
		measured := f.vmMemory(ctx)
		if ctx.Err() != nil {
			return stopped(ctx, &r, "vm-memory")
		}
		r.vmMemory = measured
	}
	r.loadAfter = meter.Load()
	text := r.markdown()
	fmt.Print(text)
	if o.out != "" {
		return insert(o.out, text)
	}
	return nil
}

// stopped prints what was measured whole before a case that was not. It goes into
// no file: a report in the documents has every case.
func stopped(ctx context.Context, r *report, name string) error {
	r.loadAfter = meter.Load()
	fmt.Print(r.markdown())
	return fmt.Errorf("stopped during %q: %w", name, context.Cause(ctx))
}
