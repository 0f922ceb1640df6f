package main

import (
	"context"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) networkConnectCommand() *cobra.Command {
	var aliases []string
	var ip, ip6 string
	cmd := &cobra.Command{
		Use:   "connect [flags] NETWORK WORKLOAD",
		Short: "Put a workload into one more network",
		Long: `Connect puts a workload into a network beside those that it is in. One that runs
gets another interface at once, and what is asked for stays when it is started
again. Ports stay published by the network that publishes them, and the default
route stays where it is.

A machine of its own (--boundary vm) has its network devices from the start: stop
it first. A workload whose network is none, host or user is in no other.`,
		Example: `  bulkhead network connect back web
  bulkhead network connect --alias db --ip 10.20.0.5 back postgres`,
		Args:              needs(2, 2, "a network and a workload"),
		ValidArgsFunction: a.completeNetworkThenWorkload(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			want, err := runspec.ParseConnection(args[0], aliases, ip, ip6)
			if err != nil {
				return err
			}
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return e.Connect(ctx, args[1], want)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&aliases, "alias", nil, "another `name` of the workload in the network")
	fs.StringVar(&ip, "ip", "", "IPv4 `address` in the network, such as 10.20.0.5")
	fs.StringVar(&ip6, "ip6", "", "IPv6 `address` in the network")
	return cmd
}

func (a *app) networkDisconnectCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect [flags] NETWORK WORKLOAD",
		Short: "Take a workload out of a network",
		Long: `Disconnect takes a workload out of a network. One that runs loses the interface at
once. The default route, and ports that the network publishes, go on to the next
network of the workload that has a way out; without one, ports are in the way.
Taken out of its last network, a workload has loopback alone.

A machine of its own (--boundary vm) has its network devices from the start: stop
it first. A network that does not exist any more can be taken from a workload, too.`,
		Example:           "  bulkhead network disconnect back web",
		Args:              needs(2, 2, "a network and a workload"),
		ValidArgsFunction: a.completeNetworkThenWorkload(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				return e.Disconnect(ctx, args[1], args[0], force)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "say nothing about a workload that does not exist or is not in the network")
	return cmd
}

// completeNetworkThenWorkload offers networks, and then the workloads that are in
// the one that was given, or that can be put into it.
func (a *app) completeNetworkThenWorkload(in bool) completer {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.completeNetworks(cmd, args, toComplete)
		}
		var names []cobra.Completion
		if len(args) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		_ = a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
			records, err := e.List(ctx)
			for _, r := range records {
				is := slices.ContainsFunc(r.Spec.Networks, func(n workload.Attachment) bool { return n.Network == args[0] })
				if is == in && r.Spec.Network == workload.NetworkBridge && strings.HasPrefix(r.Spec.Name, toComplete) {
					names = append(names, r.Spec.Name)
				}
			}
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
