package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes commands in a shell",
		Long: `Completion prints a script for a shell. Once read, the shell completes commands,
flags, and the names of workloads, images and networks. In bash this takes the
package bash-completion.`,
		Example: `  bulkhead completion bash > /etc/bash_completion.d/bulkhead
  bulkhead completion zsh > "${fpath[1]}/_bulkhead"
  bulkhead completion fish > ~/.config/fish/completions/bulkhead.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      needs(1, 1, "the name of a shell: bash, zsh or fish"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.out)
			case "fish":
				return cmd.Root().GenFishCompletion(a.out, true)
			}
			return advice.New(fmt.Sprintf("completion: no script for %q", args[0]), "give bash, zsh or fish")
		},
	}
}

// completer is what cobra asks for the words after a command.
type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective)

// Which workloads a command can do something with.
func anyStatus(workload.Status) bool { return true }
func running(s workload.Status) bool {
	return s == workload.Running || s == workload.Paused || s == workload.Restarting
}
func paused(s workload.Status) bool     { return s == workload.Paused }
func notRunning(s workload.Status) bool { return !running(s) }

// completeWorkloads offers the names of workloads with a status that want
// accepts. Errors are silence: a completion must not print.
func (a *app) completeWorkloads(want func(workload.Status) bool) completer {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []cobra.Completion
		_ = a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
			records, err := e.List(ctx)
			names = workloadCompletions(records, want, toComplete)
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// workloadCompletions are the names of workloads that begin with what is typed.
// The machines of tenants are none: commands refuse them.
func workloadCompletions(records []*engine.Record, want func(workload.Status) bool, toComplete string) (names []cobra.Completion) {
	for _, r := range records {
		if r.Tenant() == "" && want(r.Status) && strings.HasPrefix(r.Spec.Name, toComplete) {
			names = append(names, cobra.CompletionWithDesc(r.Spec.Name, safetext.Line(familiar(r.Spec.Image.Reference))))
		}
	}
	return names
}

// completeTenants offers the names of tenants.
func (a *app) completeTenants(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	_ = a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		records, err := e.List(ctx)
		names = tenantCompletions(records, toComplete)
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// tenantCompletions are the names of tenants that begin with what is typed.
func tenantCompletions(records []*engine.Record, toComplete string) (names []cobra.Completion) {
	for _, r := range records {
		if name := r.Tenant(); name != "" && strings.HasPrefix(name, toComplete) {
			names = append(names, name)
		}
	}
	return names
}

// completeFirst is completeWorkloads for the first word only; the others are a
// command inside.
func (a *app) completeFirst(want func(workload.Status) bool) completer {
	complete := a.completeWorkloads(want)
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, toComplete)
	}
}

// completeImages offers the names of images.
func (a *app) completeImages(_ *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	if os.Geteuid() != 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := a.images()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := s.List() // what is damaged is left out
	for _, im := range list {
		for _, ref := range im.References {
			if name := familiar(ref); strings.HasPrefix(name, toComplete) {
				names = append(names, name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeImageThenNothing offers images for the first word; the others are a
// command inside.
func (a *app) completeImageThenNothing(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeImages(cmd, args, toComplete)
}

// completeRunFlags offers the words that flags of run and create take.
func (a *app) completeRunFlags(cmd *cobra.Command) {
	for flag, words := range map[string][]string{
		"accel":        {"kvm", "tcg"},
		"pull":         {"always", "missing", "never"},
		"image-volume": {"anonymous", "tmpfs", "ignore"},
		"log-driver":   {"local", "none"},
		"restart":      {"no", "on-failure", "on-failure:", "always", "unless-stopped"}, "boundary": {"container", "gvisor", "vm"},
		"userns": {"private", "host"}, "pid": {"private", "host"}, "ipc": {"private", "host"}, "uts": {"private", "host"},
		"security-opt": {"seccomp=", "apparmor=", "no-new-privileges", "no-new-privileges=false", "unmask="},
	} {
		// The only error is a flag that does not exist, which a test would show.
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err)
		}
	}
	if err := cmd.RegisterFlagCompletionFunc("volume", a.completeVolumeFlag); err != nil {
		panic(err)
	}
	if err := cmd.RegisterFlagCompletionFunc("volumes-from", a.completeWorkloads(anyStatus)); err != nil {
		panic(err)
	}
	if err := cmd.RegisterFlagCompletionFunc("runtime", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeRuntimes()
	}); err != nil {
		panic(err)
	}
	if err := cmd.RegisterFlagCompletionFunc("tenant", a.completeTenants); err != nil {
		panic(err)
	}
	if err := cmd.RegisterFlagCompletionFunc("network", a.completeNetworkFlag); err != nil {
		panic(err)
	}
}
