package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// TestRecheck: the command that a report offers is the one that was given.
func TestRecheck(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--pid", "host"}, "bulkhead probe --pid host box"},
		{[]string{"--read-only", "--no-healthcheck=false"}, "bulkhead probe --no-healthcheck=false --read-only box"},
		{[]string{"-e", "A=b c", "-e", "B=$(id);\n", "--json", "-v", "/it's:/x"}, `bulkhead probe --env 'A=b c' --env $'B=$(id);\012' --volume '/it'\''s:/x' box`},
	} {
		_, fs := flagsOfRun()
		cmd := &cobra.Command{}
		cmd.Flags().AddFlagSet(fs)
		cmd.Flags().Bool("json", false, "")
		if err := cmd.ParseFlags(tt.args); err != nil {
			t.Fatal(err)
		}
		if got := recheck(cmd, "box"); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.args, got, tt.want)
		}
	}
}
