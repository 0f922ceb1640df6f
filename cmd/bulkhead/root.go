package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// rootVariable is the environment variable that stands for --root.
const rootVariable = "BULKHEAD_ROOT"

// group is a part of the list of commands that help shows.
type group struct {
	id, title string
	// commands holds what builds each command, by its name. Only the command that is
	// run is built: the flags of all of them take an eighth of a short command's time.
	commands map[string]func() *cobra.Command
}

// groups returns the commands of the first level.
func (a *app) groups() []group {
	return []group{
		{"run", "Running workloads:", map[string]func() *cobra.Command{
			"run": a.runCommand, "create": a.createCommand, "start": a.startCommand, "stop": a.stopCommand, "restart": a.restartCommand,
			"kill": a.killCommand, "pause": a.pauseCommand, "unpause": a.unpauseCommand, "update": a.updateCommand, "rename": a.renameCommand,
			"wait": a.waitCommand, "rm": a.rmCommand, "exec": a.execCommand, "attach": a.attachCommand, "cp": a.cpCommand,
			"export": a.exportCommand, "commit": a.commitCommand, "container": a.containerCommand, "tenant": a.tenantCommand,
		}},
		{"look", "Looking at workloads:", map[string]func() *cobra.Command{
			"ps": a.psCommand, "logs": a.logsCommand, "stats": a.statsCommand, "top": a.topCommand, "inspect": a.inspectCommand,
			"diff": a.diffCommand, "port": a.portCommand, "explain": a.explainCommand, "probe": a.probeCommand, "audit": a.auditCommand,
			"compare": a.compareCommand,
		}},
		{"image", "Images:", map[string]func() *cobra.Command{
			"image": a.imageCommand, "pull": a.pullCommand, "push": a.pushCommand, "images": a.imagesCommand, "rmi": a.rmiCommand,
			"load": a.loadCommand, "save": a.saveCommand, "import": a.importCommand, "tag": a.tagCommand, "history": a.historyCommand,
		}},
		{"network", "Networks and volumes:", map[string]func() *cobra.Command{
			"network": a.networkCommand, "volume": a.volumeCommand,
		}},
		{groupSystem, "This machine and this program:", map[string]func() *cobra.Command{
			"system": a.systemCommand, "info": a.infoCommand, "events": a.eventsCommand, "kernel": a.kernelCommand, "runtime": a.runtimeCommand,
			"template": a.templateCommand, "doctor": a.doctorCommand, "version": a.versionCommand, "completion": a.completionCommand,
		}},
	}
}

// groupSystem is the group that cobra's own command, help, is in, too.
const groupSystem = "system"

// main runs one command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.command(args...)
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

// command builds the tree of commands, or what a command line needs of it.
func (a *app) command(args ...string) *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "bulkhead",
		Short: "Run OCI images behind the boundary they deserve",
		Long: `Bulkhead runs OCI images as hardened containers: each with a user namespace
and a range of host IDs of its own, few capabilities, a system call filter and
finite limits. Whatever is relaxed is a flag with a name, and is shown by
inspect. The same commands run images in virtual machines with a kernel of their
own (--boundary vm) and on gVisor's kernel (--boundary gvisor).

Doctor says what this machine has and lacks for each of them.`,
		Example: `  bulkhead doctor
  bulkhead run --rm -it alpine sh
  bulkhead run -d --name web -p 8080:80 nginx
  bulkhead run --rm --boundary vm alpine uname -r`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:                       unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				a.printVersion()
				return nil
			}
			return cmd.Help()
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&a.root, "root", os.Getenv(rootVariable), "keep all state below this `directory`; also "+rootVariable+" (default /var/lib/bulkhead and /run/bulkhead)")
	root.PersistentFlags().Lookup("root").DefValue = "" // help must not depend on the environment
	root.Flags().BoolVarP(&version, "version", "v", false, "show the version, as the command version does")
	root.PersistentFlags().BoolVar(&a.debug, "debug", false, "show the nested causes of an error")
	all, word := a.groups(), firstWord(args)
	only := slices.ContainsFunc(all, func(g group) bool { return g.commands[word] != nil })
	for _, g := range all {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for name, build := range g.commands {
			if only && name != word {
				continue
			}
			c := build()
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID(groupSystem)
	return root
}

// firstWord returns the first of a command line's words that is no global flag, ""
// if there is none or it cannot be told.
func firstWord(args []string) string {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--root":
			i++ // its value
		case strings.HasPrefix(arg, "--root="), arg == "--debug", strings.HasPrefix(arg, "--debug="):
		case strings.HasPrefix(arg, "-"):
			return ""
		default:
			return arg
		}
	}
	return ""
}

// named gives a command a second name: the first word of its usage.
func named(c *cobra.Command, name string, aliases ...string) *cobra.Command {
	_, rest, _ := strings.Cut(c.Use, " ")
	c.Use, c.Aliases = name+" "+rest, aliases
	return c
}

// unknownCommand is the error for words that are no command.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	fix := fmt.Sprintf("`%s --help` lists the commands", cmd.CommandPath())
	if why := absentVerbs[strings.TrimSpace(commandName(cmd)+" "+args[0])]; why != "" {
		fix = why
	} else if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		fix = fmt.Sprintf("did you mean %s? %s", strings.Join(near, " or "), fix)
	}
	return advice.New(fmt.Sprintf("unknown command %q", args[0]), fix)
}

// flagError turns an error of the flag parser into advice.
func flagError(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return unknownCommand(cmd, words) // whose flag it would be
	}
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
