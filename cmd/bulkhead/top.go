package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// topColumn is a column of top.
type topColumn struct {
	names  []string // as with ps(1) or Podman
	header string
	value  func(p workload.ProcessInfo, now time.Time) string
}

var topColumns = []topColumn{
	{[]string{"uid", "user", "euser", "uname"}, "UID", func(p workload.ProcessInfo, _ time.Time) string { return strconv.FormatUint(uint64(p.UID), 10) }},
	{[]string{"pid"}, "PID", func(p workload.ProcessInfo, _ time.Time) string { return strconv.Itoa(p.PID) }},
	{[]string{"ppid"}, "PPID", func(p workload.ProcessInfo, _ time.Time) string { return strconv.Itoa(p.PPID) }},
	{[]string{"c"}, "C", func(p workload.ProcessInfo, now time.Time) string { return fmt.Sprintf("%.0f", lifetimeShare(p, now)) }},
	{[]string{"pcpu", "%cpu"}, "%CPU", func(p workload.ProcessInfo, now time.Time) string {
		return fmt.Sprintf("%.1f", lifetimeShare(p, now))
	}},
	{[]string{"stime", "start", "start_time", "bsdstart"}, "STIME", func(p workload.ProcessInfo, now time.Time) string { return startTime(p.Started, now) }},
	{[]string{"etime"}, "ELAPSED", func(p workload.ProcessInfo, now time.Time) string { return clock(now.Sub(p.Started)) }},
	{[]string{"tty", "tt", "tname"}, "TTY", func(p workload.ProcessInfo, _ time.Time) string {
		if p.TTY == "" {
			return "?"
		}
		return p.TTY
	}},
	{[]string{"time", "cputime"}, "TIME", func(p workload.ProcessInfo, _ time.Time) string { return clock(p.CPU) }},
	{[]string{"state", "s", "stat"}, "S", func(p workload.ProcessInfo, _ time.Time) string { return p.State }},
	{[]string{"rss", "rssize"}, "RSS", func(p workload.ProcessInfo, _ time.Time) string { return strconv.FormatInt(p.RSS>>10, 10) }},
	{[]string{"comm", "ucmd"}, "COMMAND", func(p workload.ProcessInfo, _ time.Time) string {
		first, _, _ := strings.Cut(p.Command, " ")
		return path.Base(first)
	}},
	{[]string{"cmd", "args", "command"}, "CMD", func(p workload.ProcessInfo, _ time.Time) string { return p.Command }},
}

// topSets are what the options of ps(1) that people use stand for.
var topSets = map[string]string{
	"":    "uid,pid,ppid,c,stime,tty,time,cmd",
	"-ef": "", "-e": "", "-f": "", "ef": "", "-A": "",
	"aux":  "uid,pid,pcpu,rss,tty,stat,start,time,cmd",
	"-aux": "uid,pid,pcpu,rss,tty,stat,start,time,cmd",
	"u":    "uid,pid,pcpu,rss,tty,stat,start,time,cmd",
}

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top WORKLOAD [COLUMNS...]",
		Short: "Show the processes of a workload",
		Long: `Top shows the processes of a running workload as the workload sees them itself:
process and user IDs are those inside. Columns are those of "ps -ef"; others are
chosen with -o and names separated by commas, as with ps, or as words. They are
uid, pid, ppid, c, pcpu, stime, etime, tty, time, state, rss (in KiB), comm and
cmd. "-ef" and "aux" are understood.`,
		Example:           "  bulkhead top web\n  bulkhead top web -o pid,user,rss,cmd\n  bulkhead top web pid time args",
		Args:              needs(1, -1, "a workload"),
		ValidArgsFunction: a.completeFirst(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			columns, err := chooseColumns(args[1:])
			if err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error { return a.top(ctx, e, args[0], columns) })
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// chooseColumns reads the words after the workload.
func chooseColumns(words []string) ([]topColumn, error) {
	list, ok := topSets[strings.Join(words, " ")]
	switch {
	case ok && list == "":
		list = topSets[""]
	case ok:
	default:
		var names []string
		for _, w := range words {
			switch {
			case w == "-o" || w == "-eo" || w == "-e" || w == "-f" || w == "-ef" || w == "-A":
			case strings.HasPrefix(w, "-o"):
				names = append(names, strings.TrimPrefix(w, "-o"))
			case strings.HasPrefix(w, "-eo"):
				names = append(names, strings.TrimPrefix(w, "-eo"))
			default:
				names = append(names, w)
			}
		}
		list = strings.Join(names, ",")
	}
	var out []topColumn
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(topColumns, func(c topColumn) bool { return slices.Contains(c.names, strings.ToLower(name)) })
		if i < 0 {
			var all []string
			for _, c := range topColumns {
				all = append(all, c.names[0])
			}
			return nil, advice.New(fmt.Sprintf("top: no column %q", name), "columns are "+strings.Join(all, ", "))
		}
		out = append(out, topColumns[i])
	}
	return out, nil
}

func (a *app) top(ctx context.Context, e *engine.Engine, ref string, columns []topColumn) error {
	all, err := e.Describe(ctx, ref)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b workload.ProcessInfo) int { return a.PID - b.PID })
	now := time.Now()
	w := tabwriter.NewWriter(a.out, 5, 1, 3, ' ', 0)
	var line []string
	for _, c := range columns {
		line = append(line, c.header)
	}
	fmt.Fprintln(w, strings.Join(line, "\t"))
	for _, p := range all {
		line = line[:0]
		for _, c := range columns {
			line = append(line, safetext.Line(c.value(p, now)))
		}
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	return w.Flush()
}

// lifetimeShare is how much of a processor a process has used since it was
// started, in percent.
func lifetimeShare(p workload.ProcessInfo, now time.Time) float64 {
	age := now.Sub(p.Started)
	if age <= 0 {
		return 0
	}
	return min(100*float64(p.CPU)/float64(age), 9999)
}

// startTime is the time of day, or the day if it was another.
func startTime(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04")
	}
	return t.Format("Jan02")
}

// clock is a duration as [days-]hours:minutes:seconds.
func clock(d time.Duration) string {
	s := int64(max(0, d) / time.Second)
	days := ""
	if s >= 86400 {
		days = fmt.Sprintf("%d-", s/86400)
	}
	return fmt.Sprintf("%s%02d:%02d:%02d", days, s%86400/3600, s%3600/60, s%60)
}
