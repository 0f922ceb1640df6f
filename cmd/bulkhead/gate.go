package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// gateFlags say which findings decide the exit code of probe and audit.
type gateFlags struct{ severity, waivers string }

func (g *gateFlags) add(cmd *cobra.Command, fs *pflag.FlagSet) {
	fs.StringVar(&g.severity, "severity", "low", "least `severity` of findings that decide the exit code: low, medium, high or critical")
	fs.StringVar(&g.waivers, "waivers", "", "`file` with findings that are accepted for a time: shown, without a say in the exit code")
	_ = cmd.RegisterFlagCompletionFunc("severity", cobra.FixedCompletions([]cobra.Completion{"low", "medium", "high", "critical"}, cobra.ShellCompDirectiveNoFileComp))
}

// gate is what gateFlags ask for.
type gate struct {
	threshold report.Severity
	waivers   report.Waivers
}

func (g *gateFlags) read() (gate, error) {
	var out gate
	level, err := report.ParseSeverity(g.severity)
	if err != nil {
		return out, advice.Wrap(err, "--severity: "+err.Error(), "give one of these")
	}
	if level != report.Low { // which is all
		out.threshold = level
	}
	if g.waivers == "" {
		return out, nil
	}
	f, err := os.Open(g.waivers)
	if err != nil {
		return out, advice.Wrap(err, fmt.Sprintf("--waivers %s: %v", g.waivers, errors.Unwrap(err)), "give a file of waivers; docs/audit.md shows one")
	}
	defer f.Close()
	const most = 2 << 20 // what is longer is refused
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err == nil {
		out.waivers, err = report.ParseWaivers(b)
	}
	if err != nil {
		return out, fmt.Errorf("--waivers %s: %w", g.waivers, err)
	}
	return out, nil
}

// apply has d say which of its findings count.
func (g gate) apply(d *report.Document) {
	d.Threshold = g.threshold
	d.Waive(g.waivers, time.Now())
}
