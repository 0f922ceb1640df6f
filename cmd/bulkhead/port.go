package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"github.com/spf13/cobra"
)

func (a *app) portCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "port WORKLOAD [PORT[/PROTOCOL]]",
		Short: "List the published ports of a workload",
		Long: `Port lists the ports of a workload that runs and the addresses of this machine
that lead to them, or only the addresses of one port.`,
		Example:           "  bulkhead port web\n  bulkhead port web 80/tcp",
		Args:              needs(1, 2, "a workload, and maybe a port"),
		ValidArgsFunction: a.completeFirst(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withEngine(cmd, func(ctx context.Context, e *engine.Engine) error {
				r, err := e.Inspect(ctx, args[0])
				if err != nil {
					return err
				}
				if len(args) == 1 {
					for _, l := range portLines(r.Ports, r.NICs) {
						fmt.Fprintf(a.out, "%s -> %s\n", l.port, l.host)
					}
					return nil
				}
				return a.printPort(r, args[1])
			})
		},
	}
}

// printPort prints the addresses that lead to one port.
func (a *app) printPort(r *engine.Record, want string) error {
	if !strings.Contains(want, "/") {
		want += "/tcp"
	}
	found := false
	for _, l := range portLines(r.Ports, r.NICs) {
		if l.port == want {
			found = true
			fmt.Fprintln(a.out, l.host)
		}
	}
	if !found {
		return advice.New(fmt.Sprintf("port %s of workload %s is not published", want, r.Spec.Name), "`bulkhead port "+r.Spec.Name+"` lists those that are; publish it with -p when the workload is made")
	}
	return nil
}

// portLine is a port inside and an address that leads to it.
type portLine struct{ port, host string }

// hostsOf are the addresses on which a port of a workload with these interfaces is
// published: 0.0.0.0 and [::] where it is all, but for the family that the network
// which publishes it has not.
func hostsOf(p workload.Port, nics []workload.NIC) (hosts []string) {
	if p.HostIP.IsValid() {
		return []string{p.HostIP.String()}
	}
	v4, v6 := true, true
	// The first network with a way out publishes, and has the default routes.
	if i := slices.IndexFunc(nics, func(n workload.NIC) bool { return len(n.Gateways) > 0 }); i >= 0 {
		has := func(four bool) bool {
			return slices.ContainsFunc(nics[i].Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == four })
		}
		v4, v6 = has(true), has(false)
	}
	if v4 {
		hosts = append(hosts, "0.0.0.0")
	}
	if v6 {
		hosts = append(hosts, "::")
	}
	return hosts
}

// portLines lists ports in their order inside.
func portLines(ports []workload.Port, nics []workload.NIC) []portLine {
	var out []portLine
	for _, p := range sortPorts(ports) {
		for _, h := range hostsOf(p, nics) {
			out = append(out, portLine{fmt.Sprintf("%d/%s", p.Port, p.Protocol), net.JoinHostPort(h, strconv.Itoa(int(p.HostPort)))})
		}
	}
	return out
}

func sortPorts(ports []workload.Port) []workload.Port {
	return slices.SortedStableFunc(slices.Values(ports), func(p, q workload.Port) int {
		return cmp.Or(cmp.Compare(p.Port, q.Port), cmp.Compare(p.Protocol, q.Protocol), p.HostIP.Compare(q.HostIP), cmp.Compare(p.HostPort, q.HostPort))
	})
}

// portRun is consecutive ports that lead to consecutive ports.
type portRun struct {
	host              string // "" for a port that is only exposed
	first, last, from int    // inside, and the first of the host
	protocol          string
}

func (r portRun) String() string {
	span := func(first, n int) string {
		if n == 0 {
			return strconv.Itoa(first)
		}
		return fmt.Sprintf("%d-%d", first, first+n)
	}
	n := r.last - r.first
	inside := span(r.first, n) + "/" + r.protocol
	if r.host == "" {
		return inside
	}
	return net.JoinHostPort(r.host, span(r.from, n)) + "->" + inside
}

// describePorts is the PORTS column of ps, as Docker prints it: published ports
// with the host's addresses, then those that are only exposed; ranges together.
func describePorts(ports []workload.Port, nics []workload.NIC, exposed []string) string {
	var runs []portRun
	published := map[string]bool{}
	for _, p := range sortPorts(ports) {
		published[fmt.Sprintf("%d/%s", p.Port, p.Protocol)] = true
		for _, h := range hostsOf(p, nics) {
			runs = addRun(runs, portRun{h, int(p.Port), int(p.Port), int(p.HostPort), p.Protocol})
		}
	}
	for _, e := range exposed {
		number, protocol, _ := strings.Cut(e, "/")
		if n, err := strconv.Atoi(number); err == nil && !published[e] {
			runs = addRun(runs, portRun{"", n, n, 0, protocol})
		}
	}
	words := make([]string, len(runs))
	for i, r := range runs {
		words[i] = r.String()
	}
	return strings.Join(words, ", ")
}

// addRun lets r continue an earlier run, or adds it.
func addRun(runs []portRun, r portRun) []portRun {
	for i, e := range runs {
		n := r.first - e.first
		if e.host == r.host && e.protocol == r.protocol && r.first == e.last+1 && (r.host == "" || r.from == e.from+n) {
			runs[i].last = r.last
			return runs
		}
	}
	return append(runs, r)
}
