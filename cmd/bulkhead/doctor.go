package main

import (
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/doctor"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/spf13/cobra"
)

func (a *app) doctorCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Say what this machine has and lacks for running workloads",
		Long: `Doctor looks at the machine and says for each thing that workloads need whether
it is there, is missing, or could not be found out, and how to mend it. Where it
can it tries the thing itself, on mounts and namespaces that nobody else sees.
It exits with 1 when something is missing without which no workload runs.`,
		Example:           "  bulkhead doctor\n  bulkhead doctor --format json",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			root, _, err := a.roots()
			if err != nil {
				return err
			}
			results := doctor.Examine(doctor.Local(root))
			if err := a.printDiagnosis(results, format); err != nil {
				return err
			}
			if !doctor.Healthy(results) {
				return exitStatus(exitFailure)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "json for a list with all fields")
	return cmd
}

func (a *app) printDiagnosis(results []doctor.Result, format string) error {
	switch format {
	case "json":
		return output.IndentedJSON(a.out, results)
	case "", "table":
	default:
		return advice.New(fmt.Sprintf("--format %q: unknown format", format), "give json, or leave it out")
	}
	for _, r := range results {
		mark := ""
		if r.Status == doctor.Missing && r.Required {
			mark = " (needed)"
		}
		fmt.Fprintf(a.out, "%-15s %s: %s%s\n", r.Status, r.Name, safetext.Line(r.Detail), mark)
		if r.Fix != "" {
			fmt.Fprintf(a.out, "%-15s   %s\n", "", safetext.Line(r.Fix))
		}
	}
	return nil
}
