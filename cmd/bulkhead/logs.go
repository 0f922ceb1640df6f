package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/spf13/cobra"
)

func (a *app) logsCommand() *cobra.Command {
	var o engine.LogOptions
	var tail, since, until string
	cmd := &cobra.Command{
		Use:   "logs [flags] WORKLOAD",
		Short: "Show what a workload wrote",
		Long: `Logs writes the output of a workload, byte for byte, to standard output and
standard error. Times are RFC 3339 (2026-01-02T15:04:05Z, or a beginning of it),
seconds since 1970, or how long ago (90s, 10m, 2h30m).`,
		Example:           "  bulkhead logs -f --tail 20 web\n  bulkhead logs -t --since 10m web",
		Args:              needs(1, 1, "one workload"),
		ValidArgsFunction: a.completeWorkloads(anyStatus),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			now := time.Now()
			if o.Tail, err = parseTail(tail); err != nil {
				return err
			}
			if o.Since, err = parseTime("--since", since, now); err != nil {
				return err
			}
			if o.Until, err = parseTime("--until", until, now); err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				err := e.Logs(ctx, args[0], o, a.out, a.err)
				if errors.Is(err, engine.ErrNoLog) {
					return advice.Wrap(err, err.Error(), "it was started with --log-driver none; `bulkhead attach` shows what it writes from now on")
				}
				if r, rerr := e.Inspect(ctx, args[0]); err == nil && rerr == nil && r.LogError != "" {
					a.warn(fmt.Sprintf("the log of %s is not complete: %s", r.Spec.Name, r.LogError))
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on until the workload ends")
	cmd.Flags().BoolVarP(&o.Timestamps, "timestamps", "t", false, "show when each line was written")
	cmd.Flags().StringVarP(&tail, "tail", "n", "all", "only the last `number` of lines")
	cmd.Flags().StringVar(&since, "since", "", "only from this `time` on")
	cmd.Flags().StringVar(&until, "until", "", "only up to this `time`")
	return cmd
}

// parseTail reads a number of lines, -1 for all, which any negative number is in
// Docker.
func parseTail(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, advice.New(fmt.Sprintf("--tail %q: not a number of lines", s), "give a number, or all")
	}
	return max(n, -1), nil
}

// timeLayouts are the beginnings of RFC 3339 that are read, in local time
// where no zone is given.
var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
}

// parseTime reads a point in time; "" is the zero time.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return now.Add(-d), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	secs, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(secs, 10, 64)
	nano, fracErr := strconv.ParseUint((frac + "000000000")[:9], 10, 32)
	if err != nil || fracErr != nil || n < 0 || n > math.MaxInt32*4 || len(frac) > 9 {
		return time.Time{}, advice.New(fmt.Sprintf("%s %q: not a time", flag, s), "write 2026-01-02T15:04:05Z, seconds since 1970, or how long ago, such as 10m")
	}
	return time.Unix(n, int64(nano)), nil
}
