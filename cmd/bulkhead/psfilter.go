package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// psFilters are the keys of ps --filter.
var psFilters = filterSet{keys: map[string]filterCheck{
	"name": expression, "id": expression, "label": anyText, "ancestor": anyText, "boundary": anyText, "exited": number(0, 255),
	"restart-policy": anyText, "should-start-on-boot": truth, "volume": anyText,
	"health": oneOf(workload.Starting, workload.Healthy, workload.Unhealthy, "none"),
	"before": anyText, "since": anyText, "network": anyText, "publish": portText, "expose": portText,
	"status": oneOf("created", "running", "paused", "restarting", "exited", "removing", "dead"), // Docker's last two are none's
}}

// portText wants PORT[-PORT][/PROTOCOL].
func portText(s string) string {
	if _, ok := parsePortFilter(s); !ok {
		return "write PORT or FIRST-LAST, with /tcp or /udp or without, such as 8080/tcp"
	}
	return ""
}

// portFilter is a range of ports.
type portFilter struct {
	low, high uint64
	protocol  string
}

func parsePortFilter(s string) (f portFilter, ok bool) {
	ports, protocol, _ := strings.Cut(s, "/")
	f.protocol = cmp.Or(protocol, "tcp")
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	var err, endErr error
	f.low, err = strconv.ParseUint(low, 10, 16)
	f.high, endErr = strconv.ParseUint(high, 10, 16)
	return f, err == nil && endErr == nil && f.low > 0 && f.low <= f.high && (f.protocol == "tcp" || f.protocol == "udp")
}

func parseFilters(all []string) (filters, error) { return psFilters.parse(all) }

// match reports whether a workload passes every filter.
func (f filters) match(r *engine.Record) bool {
	return f.all(func(key, value string) bool { return matches(r, key, value) })
}

// matches reports whether one filter holds.
func matches(r *engine.Record, key, value string) bool {
	s := &r.Spec
	switch key {
	case "name":
		return isMatch(value, s.Name) || isMatch(value, "/"+s.Name) // a container's name begins with a slash in Docker
	case "id":
		return isMatch(value, string(s.ID))
	case "status":
		return string(r.Status) == value
	case "health":
		if r.Health == nil {
			return value == "none"
		}
		return value == r.Health.Status
	case "restart-policy":
		return value == cmp.Or(s.Restart.Policy, workload.RestartNo)
	case "should-start-on-boot":
		return value == strconv.FormatBool(startsOnBoot(r))
	case "boundary":
		return s.Boundary == value
	case "label":
		return hasLabel(s.Labels, value)
	case "before", "since":
		other, err := time.Parse(time.RFC3339Nano, value) // see resolveFilters
		return err == nil && (key == "before" && s.Created.Before(other) || key == "since" && s.Created.After(other))
	case "network":
		return s.Network == value && value != workload.NetworkBridge || slices.ContainsFunc(s.Networks, func(a workload.Attachment) bool { return a.Network == value })
	case "publish", "expose":
		return hasPort(r, key, value)
	case "volume":
		return slices.ContainsFunc(s.Mounts, func(m workload.Mount) bool { return m.Target == value || m.Source == value })
	case "ancestor":
		name := familiar(s.Image.Reference)
		return s.Image.Digest == value || s.Image.Reference == value || name == value || name == value+":latest"
	case "exited":
		return r.Status == workload.Exited && r.Exit != nil && strconv.Itoa(r.Exit.Code) == value
	}
	return false
}

// hasPort reports whether a workload publishes a port of the host ("publish"),
// or publishes or exposes a port of its own ("expose").
func hasPort(r *engine.Record, key, value string) bool {
	f, ok := parsePortFilter(value)
	within := func(port uint16, protocol string) bool {
		return ok && protocol == f.protocol && uint64(port) >= f.low && uint64(port) <= f.high
	}
	if key == "expose" && slices.ContainsFunc(r.Spec.Exposed, func(e string) bool {
		other, ok := parsePortFilter(e)
		return ok && within(uint16(other.low), other.protocol)
	}) {
		return true
	}
	ports := r.Ports
	if len(ports) == 0 {
		ports = r.Spec.Ports
	}
	return slices.ContainsFunc(ports, func(p workload.Port) bool {
		return within(p.Port, p.Protocol) && key == "expose" || within(p.HostPort, p.Protocol) && key == "publish"
	})
}

// resolveFilters replaces names of workloads by the time when they were made, and
// names of images by their digests. A workload that does not exist is an error; an
// image that does not exist may have been removed since.
func (a *app) resolveFilters(ctx context.Context, e *engine.Engine, f filters) error {
	for _, key := range []string{"before", "since"} {
		for i, ref := range f[key] {
			r, err := e.Inspect(ctx, ref)
			if err != nil {
				return err
			}
			f[key][i] = r.Spec.Created.Format(time.RFC3339Nano)
		}
	}
	if !f.has("ancestor") {
		return nil
	}
	store, err := a.images()
	if err != nil {
		return err
	}
	for i, ref := range f["ancestor"] {
		if im, err := store.Resolve(ref); err == nil {
			f["ancestor"][i] = im.Digest.String()
		} else if r, err := reference.Parse(ref); err == nil {
			f["ancestor"][i] = r.String()
		}
	}
	return nil
}
