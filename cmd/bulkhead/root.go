package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// rootVariable is the environment variable that stands for --root.
const rootVariable = "BULKHEAD_ROOT"

// The groups that help shows commands in.
const (
	groupRun    = "run"
	groupLook   = "look"
	groupImage  = "image"
	groupNet    = "network"
	groupSystem = "system"
)

// main runs one command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	code, err := explain(err, cmd)
	if err != nil {
		advice.Print(a.err, "bulkhead", err, a.debug)
	}
	return code
}

// command builds the tree of commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "bulkhead",
		Short: "Run OCI images behind the boundary they deserve",
		Long: `Bulkhead runs OCI images as hardened containers: each with a user namespace
and a range of host IDs of its own, few capabilities, a system call filter and
finite limits. Whatever is relaxed is a flag with a name, and is shown by
inspect.`,
		Example:                    "  bulkhead run --rm -it alpine sh",
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:                       unknownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&a.root, "root", os.Getenv(rootVariable), "keep all state below this `directory`; also "+rootVariable+" (default /var/lib/bulkhead and /run/bulkhead)")
	root.PersistentFlags().Lookup("root").DefValue = "" // help must not depend on the environment
	root.PersistentFlags().BoolVar(&a.debug, "debug", false, "show the nested causes of an error")
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Running workloads:"},
		&cobra.Group{ID: groupLook, Title: "Looking at workloads:"},
		&cobra.Group{ID: groupImage, Title: "Images:"},
		&cobra.Group{ID: groupNet, Title: "Networks and volumes:"},
		&cobra.Group{ID: groupSystem, Title: "This machine and this program:"},
	)
	addTo(root, groupRun, a.runCommand(), a.createCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(), a.killCommand(),
		a.pauseCommand(), a.unpauseCommand(), a.updateCommand(), a.renameCommand(), a.waitCommand(), a.rmCommand(), a.execCommand(),
		a.attachCommand(), a.cpCommand(), a.exportCommand(), a.commitCommand(), a.tenantCommand())
	addTo(root, groupLook, a.psCommand("ps"), a.logsCommand(), a.statsCommand(), a.topCommand(), a.inspectCommand(), a.diffCommand(),
		a.portCommand(), a.explainCommand(), a.probeCommand(), a.auditCommand(), a.compareCommand())
	addTo(root, groupRun, a.containerCommand())
	addTo(root, groupImage, a.imageCommands()...)
	addTo(root, groupNet, a.networkCommand(), a.volumeCommand())
	addTo(root, groupSystem, a.systemCommand(), a.infoCommand(), a.eventsCommand(), a.kernelCommand(), a.runtimeCommand(), a.templateCommand(), a.doctorCommand(), a.versionCommand(), a.completionCommand())
	root.SetHelpCommandGroupID(groupSystem)
	return root
}

// workloadCommands are the commands for workloads that Docker also has below
// `container`, but for its listing.
func (a *app) workloadCommands() []*cobra.Command {
	return []*cobra.Command{
		a.runCommand(), a.createCommand(), a.startCommand(), a.stopCommand(), a.killCommand(), a.pauseCommand(), a.unpauseCommand(),
		a.waitCommand(), a.rmCommand(), a.execCommand(), a.attachCommand(), a.logsCommand(), a.inspectCommand(), a.portCommand(),
		a.cpCommand(), a.exportCommand(), a.commitCommand(), a.diffCommand(), a.restartCommand(), a.updateCommand(), a.renameCommand(), a.statsCommand(),
		a.topCommand(),
	}
}

// addTo adds commands to a group.
func addTo(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// unknownCommand is the error for words that are no command.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	fix := fmt.Sprintf("`%s --help` lists the commands", cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		fix = fmt.Sprintf("did you mean %s? %s", strings.Join(near, " or "), fix)
	}
	return advice.New(fmt.Sprintf("unknown command %q", args[0]), fix)
}

// flagError turns an error of the flag parser into advice.
func flagError(cmd *cobra.Command, err error) error {
	fix := fmt.Sprintf("`%s --help` lists the flags", cmd.CommandPath())
	var missing *pflag.NotExistError
	if errors.As(err, &missing) {
		name := missing.GetSpecifiedName()
		if later := runspec.LaterFlag(name); later != "" && (cmd.Name() == "run" || cmd.Name() == "create") {
			fix = later
		}
	}
	return advice.Wrap(err, err.Error(), fix)
}

// needs checks the number of words that are not flags: at least low, at most
// high, -1 for any number. what names them in the error.
func needs(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return advice.New(fmt.Sprintf("%s needs %s", commandName(cmd), what), usage(cmd))
		case high >= 0 && len(args) > high:
			return advice.New(fmt.Sprintf("%s takes %s and nothing more, not %q", commandName(cmd), what, args[high]), usage(cmd))
		}
		return nil
	}
}

// commandName names a command without the program, which advice.Print puts in front:
// "image import".
func commandName(cmd *cobra.Command) string {
	_, words, _ := strings.Cut(cmd.CommandPath(), " ")
	return words
}

// usage is the fix of a wrong command line.
func usage(cmd *cobra.Command) string { return "usage: " + cmd.UseLine() }
