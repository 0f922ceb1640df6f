package main

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

// networkRow is what templates and JSON of network ls see; the names are
// Docker's.
type networkRow struct {
	ID, Name, Driver, Scope, CreatedAt, Labels string
	IPv4, IPv6, Internal                       bool
	Subnets                                    string

	labels map[string]string
}

// Label is called by {{.Label "key"}}.
func (r networkRow) Label(key string) string { return r.labels[key] }

var networkListing = output.Listing{
	Columns: []output.Column{
		{Header: "NETWORK ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "DRIVER", Field: "Driver"}, {Header: "SUBNETS", Field: "Subnets"},
	},
	More: []output.Column{
		{Header: "SCOPE", Field: "Scope"}, {Header: "CREATED AT", Field: "CreatedAt"}, {Header: "LABELS", Field: "Labels"},
		{Header: "IPV4", Field: "IPv4"}, {Header: "IPV6", Field: "IPv6"}, {Header: "INTERNAL", Field: "Internal"},
	},
}

func (a *app) networkListCommand() *cobra.Command {
	var quiet, noTrunc bool
	var format string
	var filter []string
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Long: `Ls lists the networks by name. Filters are name=EXPRESSION and
id=EXPRESSION, a part of it or a regular expression such as ^back$, driver=DRIVER,
scope=local, label=KEY[=VALUE], type=custom or builtin, and dangling=true for
those that no workload has.`,
		Example: `  bulkhead network ls
  bulkhead network ls --filter label=app --format '{{.Name}}: {{.Subnets}}'`,
		Args:              needs(0, 0, "flags"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := networkFilters.parse(filter)
			if err != nil {
				return err
			}
			return a.withNetworks(cmd, func(ctx context.Context, e *engine.Engine, s *bridge.Store) error {
				all, err := s.List(ctx)
				if err != nil {
					return err
				}
				users, err := e.NetworkUsers()
				if err != nil {
					return err
				}
				var rows []networkRow
				for _, n := range all {
					if keep.all(func(key, value string) bool { return networkMatches(n, len(users(n.Name)) > 0, key, value) }) {
						rows = append(rows, newNetworkRow(n, noTrunc))
					}
				}
				if quiet && isTable(format) {
					format = "{{.ID}}"
				}
				return output.Write(a.out, networkListing, format, rows)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only IDs")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "whole IDs")
	cmd.Flags().StringArrayVarP(&filter, "filter", "f", nil, "only those that match `KEY=VALUE`")
	cmd.Flags().StringVar(&format, "format", "", "`table`, json or a Go template")
	return cmd
}

func newNetworkRow(n network.Network, whole bool) networkRow {
	row := networkRow{
		ID: n.ID, Name: n.Name, Driver: n.Driver, Scope: "local", Internal: n.Internal, labels: n.Labels,
		CreatedAt: n.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), Labels: joinLabels(n.Labels),
	}
	if !whole && len(n.ID) > 12 {
		row.ID = n.ID[:12]
	}
	var subnets []string
	for _, s := range n.Subnets {
		subnets = append(subnets, s.Prefix.String())
		row.IPv4 = row.IPv4 || s.Prefix.Addr().Is4()
		row.IPv6 = row.IPv6 || s.Prefix.Addr().Is6()
	}
	row.Subnets = strings.Join(subnets, ",")
	return row
}

// networkFilters are the keys of network ls --filter, networkPruneFilters those of
// network prune.
var (
	networkFilters = filterSet{keys: map[string]filterCheck{
		"name": expression, "id": expression, "driver": anyText, "label": anyText, "dangling": truth,
		"scope": oneOf("local", "global", "swarm"), "type": oneOf("custom", "builtin"),
	}}
	networkPruneFilters = filterSet{keys: map[string]filterCheck{
		"label": anyText, "label!": anyText,
		"until": func(s string) string {
			if _, err := parseTime("--filter until", s, time.Now()); err != nil {
				return advice.Fix(err)
			}
			return ""
		},
	}}
)

// networkMatches reports whether one filter holds; used says that a workload has
// the network.
func networkMatches(n network.Network, used bool, key, value string) bool {
	builtin := n.Name == workload.DefaultNetwork
	switch key {
	case "name":
		return isMatch(value, n.Name)
	case "id":
		return isMatch(value, n.ID)
	case "driver":
		return n.Driver == value
	case "scope":
		return value == "local"
	case "type":
		return builtin == (value == "builtin")
	case "dangling":
		return isTrue(value) != (used || builtin)
	case "label":
		return hasLabel(n.Labels, value)
	case "label!":
		return !hasLabel(n.Labels, value)
	case "until":
		t, err := parseTime("--filter until", value, time.Now())
		return err == nil && n.Created.Before(t)
	}
	return false
}

// networkView is what network inspect shows; the names are Docker's.
type networkView struct {
	Name       string
	Id         string //nolint:revive // Docker's spelling
	Created    time.Time
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       networkIPAM
	Internal   bool
	MTU        int
	Bridge     string
	Containers map[workload.ID]networkMember
	Labels     map[string]string
}

type networkIPAM struct {
	Driver string
	Config []networkSubnet
}

type networkSubnet struct {
	Subnet, Gateway string
	IPRange         string `json:",omitempty"`
}

// networkMember is a workload in a network.
type networkMember struct {
	Name        string
	Names       []string // that the name server knows
	MacAddress  string
	IPv4Address string
	IPv6Address string
	Ports       []workload.Port `json:",omitempty"`
}

func (a *app) networkInspectCommand() *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "inspect [flags] NETWORK...",
		Short: "Show all that is known of networks",
		Long: `Inspect shows networks as JSON: their subnets, and the workloads that are in
them, with names and addresses.`,
		Example:           "  bulkhead network inspect back\n  bulkhead network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' back",
		Args:              needs(1, -1, "a network"),
		ValidArgsFunction: a.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNetworks(cmd, func(ctx context.Context, e *engine.Engine, s *bridge.Store) error {
				records, err := e.List(ctx)
				if err != nil {
					return err
				}
				names := map[workload.ID]string{}
				for _, r := range records {
					names[r.Spec.ID] = r.Spec.Name
				}
				return a.inspectAll(format, args, func(ref string) (any, error) {
					n, err := s.Get(ctx, ref)
					if err != nil {
						return nil, err
					}
					leases, err := s.Leases(n.Name)
					return newNetworkView(n, leases, names), err
				})
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json for one line, or a Go `template` over what is shown")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "for scripts that say so: everything is shown anyway")
	return cmd
}

func newNetworkView(n *network.Network, leases []network.Lease, names map[workload.ID]string) networkView {
	v := networkView{
		Name: n.Name, Id: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, Internal: n.Internal, MTU: cmp.Or(n.MTU, 1500), Bridge: n.Bridge,
		IPAM: networkIPAM{Driver: "default", Config: []networkSubnet{}}, Containers: map[workload.ID]networkMember{}, Labels: n.Labels,
	}
	for _, s := range n.Subnets {
		c := networkSubnet{Subnet: s.Prefix.String(), Gateway: s.Gateway.String()}
		if s.Range.IsValid() {
			c.IPRange = s.Range.String()
		}
		v.IPAM.Config = append(v.IPAM.Config, c)
		v.EnableIPv4 = v.EnableIPv4 || s.Prefix.Addr().Is4()
		v.EnableIPv6 = v.EnableIPv6 || s.Prefix.Addr().Is6()
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	for _, l := range leases {
		m := networkMember{Name: names[l.Workload], Names: l.Names, MacAddress: l.NIC.MAC, Ports: l.Ports}
		for _, p := range l.NIC.Addresses {
			if p.Addr().Is4() {
				m.IPv4Address = p.String()
			} else {
				m.IPv6Address = p.String()
			}
		}
		v.Containers[l.Workload] = m
	}
	return v
}

// isNoNetwork reports whether err says that there is no such network.
func isNoNetwork(err error) bool { return errors.Is(err, network.ErrNotFound) }

// completeNetworks offers the names of networks.
func (a *app) completeNetworks(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	s, err := a.networks().open() // without the engine: nothing is to be healed while a person types
	if err == nil {
		all, _ := s.List(cmd.Context())
		for _, n := range all {
			if strings.HasPrefix(n.Name, toComplete) {
				names = append(names, n.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeNetworkFlag offers what --network takes.
func (a *app) completeNetworkFlag(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names, directive := a.completeNetworks(cmd, args, toComplete)
	for _, mode := range []string{workload.NetworkNone, workload.NetworkHost, workload.NetworkUser} {
		if strings.HasPrefix(mode, toComplete) {
			names = append(names, mode)
		}
	}
	return names, directive
}
