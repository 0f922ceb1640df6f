package main

import (
	"errors"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/timeline"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The forms of a trace.
const (
	traceTable = "table"
	traceJSON  = "json"
)

// addTrace adds --trace.
func addTrace(fs *pflag.FlagSet, form *string) {
	fs.StringVar(form, "trace", "", "at the end, show on standard error how long each phase of the start took, as a `form`: table or json")
	fs.Lookup("trace").NoOptDefVal = traceTable
}

// traced runs a command, and shows its phases if a form is given. They are shown
// whatever came of the command.
func (a *app) traced(cmd *cobra.Command, form string, f func() error) error {
	write := timeline.Table
	switch form {
	case "":
		return f()
	case traceTable:
	case traceJSON:
		write = timeline.JSON
	default:
		return advice.New(fmt.Sprintf("--trace=%s: no form of a trace", form), "write --trace for a table, or --trace=json")
	}
	r := trace.New("bulkhead")
	ctx, whole := trace.BeginAt(trace.With(cmd.Context(), r), commandName(cmd), trace.Born())
	trace.Past(ctx, "program loaded", "bulkhead", trace.Born(), trace.Loaded())
	trace.Past(ctx, "command line read", "bulkhead", trace.Loaded(), trace.Now())
	cmd.SetContext(ctx)
	err := f()
	whole.End()
	return errors.Join(err, write(a.err, r.Take()))
}
