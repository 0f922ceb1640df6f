package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/runspec"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Manage networks",
		Long: `A network is a bridge of this machine with a subnet. Workloads that are run
with --network NAME are in it, behind every boundary, and reach each other by
name. They reach others through the machine's own address, unless the network is
internal; from outside nothing reaches them but what --publish opens. Workloads
of different networks do not reach each other.

The network bridge exists without being made.`,
		Example: `  bulkhead network create back
  bulkhead run -d --network back --name db postgres
  bulkhead run -d --network back -p 8080:80 app
  bulkhead network rm back`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.networkCreateCommand(), a.networkListCommand(), a.networkInspectCommand(), a.networkRemoveCommand(),
		a.networkPruneCommand(), a.networkRepairCommand(), a.networkConnectCommand(), a.networkDisconnectCommand())
	return cmd
}

// withNetworks runs f with the networks, after the engine has healed what dead
// supervisors left in them.
func (a *app) withNetworks(cmd *cobra.Command, f func(ctx context.Context, e *engine.Engine, s *bridge.Store) error) error {
	return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
		s, err := a.networks().open()
		if err != nil {
			return err
		}
		return f(ctx, e, s)
	})
}

// networkFlags are the flags of network create.
type networkFlags struct {
	driver                    string
	subnets, gateways, ranges []string
	internal, ipv4, ipv6      bool
	labels, options           []string
	mtu                       int
	attachable                bool
}

func (a *app) networkCreateCommand() *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "create [flags] NAME",
		Short: "Make a network",
		Long: `Create makes a network and prints its ID. Without --subnet it gets a free one
that overlaps with nothing on this machine. With --ipv6, or a subnet of IPv6, its
workloads have addresses of both families.`,
		Example: `  bulkhead network create back
  bulkhead network create --internal --ipv6 store
  bulkhead network create --subnet 10.20.0.0/24 --ip-range 10.20.0.128/25 front`,
		Args:              needs(1, 1, "a name"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := f.network(args[0])
			if err != nil {
				return err
			}
			return a.withNetworks(cmd, func(ctx context.Context, _ *engine.Engine, s *bridge.Store) error {
				made, err := s.Create(ctx, n)
				if err == nil {
					a.happened(events.Network, "create", made.ID, made.Name)
					fmt.Fprintln(a.out, made.ID)
				}
				return err
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.driver, "driver", "d", "bridge", "`kind` of network; bridge is the only one")
	fs.StringArrayVar(&f.subnets, "subnet", nil, "`subnet`, such as 10.20.0.0/24; once for each of IPv4 and IPv6")
	fs.StringArrayVar(&f.gateways, "gateway", nil, "the machine's own `address` in a subnet (default: its first)")
	fs.StringArrayVar(&f.ranges, "ip-range", nil, "give out addresses of this `range` of a subnet only")
	fs.BoolVar(&f.internal, "internal", false, "no way out, and no published ports")
	fs.BoolVar(&f.ipv4, "ipv4", true, "addresses of IPv4")
	fs.BoolVar(&f.ipv6, "ipv6", false, "addresses of IPv6, too")
	fs.StringArrayVar(&f.labels, "label", nil, "attach `KEY=VALUE` for your own use")
	fs.StringArrayVarP(&f.options, "opt", "o", nil, "Docker's `KEY=VALUE`; com.docker.network.driver.mtu is known")
	fs.IntVar(&f.mtu, "mtu", 0, "longest packet in `bytes`, 1280 to 65535 (default 1500)")
	fs.BoolVar(&f.attachable, "attachable", false, "every network is; for scripts that say so")
	return cmd
}

// network turns the flags into what is asked for.
func (f *networkFlags) network(name string) (n network.Network, err error) {
	n = network.Network{Name: name, Internal: f.internal, MTU: f.mtu}
	if err := runspec.CheckNetworkName(name); err != nil {
		return n, err
	}
	if slices.Contains([]string{workload.NetworkNone, workload.NetworkHost, workload.NetworkUser, "default"}, name) {
		return n, advice.New(fmt.Sprintf("a network cannot be called %q, which has a meaning of its own", name), "choose another name")
	}
	if f.driver != "bridge" {
		return n, advice.New(fmt.Sprintf("--driver %q: there is no such kind of network", f.driver), "leave it out; bridge is the only one")
	}
	if n.Labels, err = runspec.ParseLabels(f.labels); err != nil {
		return n, err
	}
	for _, o := range f.options {
		k, v, _ := strings.Cut(o, "=")
		if k != "com.docker.network.driver.mtu" {
			return n, advice.New(fmt.Sprintf("--opt %q: unknown option", o), "leave it out; com.docker.network.driver.mtu=1400 is known, as --mtu 1400 is")
		}
		if n.MTU, err = strconv.Atoi(v); err != nil {
			n.MTU = -1
		}
	}
	if n.MTU != 0 && (n.MTU < 1280 || n.MTU > 65535) {
		return n, advice.New("the length of packets is out of range", "give --mtu 1280 to 65535; IPv6 needs 1280")
	}
	n.Subnets, err = f.allSubnets()
	return n, err
}

// allSubnets puts subnets, gateways and ranges together.
func (f *networkFlags) allSubnets() (out []network.Subnet, err error) {
	for _, s := range f.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, advice.New(fmt.Sprintf("--subnet %q: not a subnet", s), "write ADDRESS/BITS, such as 10.20.0.0/24 or fd00:20::/64")
		}
		if p != p.Masked() {
			return nil, advice.New(fmt.Sprintf("--subnet %q: not the first address of a subnet", s), "write --subnet "+p.Masked().String())
		}
		out = append(out, network.Subnet{Prefix: p})
	}
	has := func(six bool) bool {
		return slices.ContainsFunc(out, func(s network.Subnet) bool { return s.Prefix.Addr().Is6() == six })
	}
	switch {
	case !f.ipv4 && has(false):
		return nil, advice.New("--ipv4=false, and a subnet of IPv4", "leave out one of the two")
	case !f.ipv4 && !f.ipv6 && !has(true):
		return nil, advice.New("a network needs addresses of IPv4 or IPv6", "give --ipv6, or leave out --ipv4=false")
	}
	if f.ipv4 && !has(false) && (len(out) == 0 || f.ipv6) {
		out = slices.Insert(out, 0, network.Subnet{Prefix: network.Any4})
	}
	if f.ipv6 && !has(true) {
		out = append(out, network.Subnet{Prefix: network.Any6})
	}
	for _, s := range f.gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, advice.New(fmt.Sprintf("--gateway %q: not an address", s), "write it as 10.20.0.1")
		}
		sub := subnetOf(out, a)
		if sub == nil || sub.Gateway.IsValid() {
			return nil, advice.New(fmt.Sprintf("--gateway %q: no --subnet for it", s), "give a --subnet that contains it, and one gateway for each")
		}
		sub.Gateway = a
	}
	for _, s := range f.ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, advice.New(fmt.Sprintf("--ip-range %q: not a range", s), "write ADDRESS/BITS, such as 10.20.0.128/25")
		}
		sub := subnetOf(out, p.Addr())
		if sub == nil || sub.Range.IsValid() || p.Bits() < sub.Prefix.Bits() {
			return nil, advice.New(fmt.Sprintf("--ip-range %q: no --subnet for it", s), "give a --subnet that contains it, and one range for each")
		}
		sub.Range = p.Masked()
	}
	return out, nil
}

// subnetOf returns the subnet that was asked for by its prefix and contains a.
func subnetOf(all []network.Subnet, a netip.Addr) *network.Subnet {
	for i, s := range all {
		if s.Prefix != network.Any4 && s.Prefix != network.Any6 && s.Prefix.Contains(a) {
			return &all[i]
		}
	}
	return nil
}

func (a *app) networkRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [flags] NETWORK...",
		Aliases: []string{"remove"},
		Short:   "Remove networks",
		Long: `Rm removes networks. One that a running workload is in is refused. A workload
that is not running, and whose network is gone, cannot be started any more.`,
		Example:           "  bulkhead network rm back",
		Args:              needs(1, -1, "a network"),
		ValidArgsFunction: a.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNetworks(cmd, func(ctx context.Context, _ *engine.Engine, s *bridge.Store) error {
				return a.each(args, func(ref string) error {
					n, err := s.Remove(ctx, ref)
					switch {
					case force && isNoNetwork(err):
						return nil
					case err == nil:
						a.happened(events.Network, "destroy", n.ID, n.Name)
						fmt.Fprintln(a.out, ref)
					}
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "say nothing about what does not exist")
	return cmd
}

func (a *app) networkPruneCommand() *cobra.Command {
	var force bool
	var filter []string
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove all networks that no workload uses",
		Long: `Prune removes the networks that no workload has, be it running or not. Filters
are label=KEY[=VALUE], label!=KEY[=VALUE] and until=TIME.`,
		Example:           "  bulkhead network prune -f",
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := networkPruneFilters.parse(filter)
			if err != nil {
				return err
			}
			if !force {
				if yes, err := a.confirm("This removes all networks that no workload has. Go on?"); err != nil || !yes {
					return err
				}
			}
			return a.withNetworks(cmd, func(ctx context.Context, e *engine.Engine, s *bridge.Store) error {
				removed, err := a.pruneNetworks(ctx, e, s, wanted)
				for _, name := range removed {
					fmt.Fprintln(a.out, name)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().StringArrayVar(&filter, "filter", nil, "only those that match `KEY=VALUE`")
	return cmd
}

// pruneNetworks removes the networks that no workload has and filters select.
func (a *app) pruneNetworks(ctx context.Context, e *engine.Engine, s *bridge.Store, wanted filters) ([]string, error) {
	// Looked at when nobody else changes networks: until then others may start.
	users := sync.OnceValues(e.NetworkUsers)
	ids := map[string]string{}
	removed, err := s.Prune(ctx, func(n network.Network) bool {
		ids[n.Name] = n.ID
		of, err := users()
		return err != nil || len(of(n.Name)) > 0 || !wanted.all(func(key, value string) bool { return networkMatches(n, false, key, value) })
	})
	for _, name := range removed {
		a.happened(events.Network, "destroy", ids[name], name)
	}
	if err == nil {
		_, err = users()
	}
	return removed, err
}

func (a *app) networkRepairCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "repair",
		Short: "Make bridges, firewall rules and name servers of networks anew",
		Long: `Repair makes anew what networks have on this machine: bridges, firewall rules,
published ports, kernel settings and name servers, from what is recorded. It is
for after the firewall was flushed or reloaded, and does no harm otherwise.
Workloads go on running.`,
		Example:           "  bulkhead network repair",
		Args:              needs(0, 0, "nothing"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNetworks(cmd, func(ctx context.Context, _ *engine.Engine, s *bridge.Store) error {
				if err := s.Repair(ctx); err != nil {
					return err
				}
				obstacles, err := s.Obstacles(ctx)
				for _, o := range obstacles {
					if !o.Bypassed {
						a.warn(fmt.Sprintf("%s: %s; %s", o.Where, o.What, o.Fix))
					}
				}
				return err
			})
		},
	}
}
