package main

import (
	"cmp"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
)

// inspectMount is one mount that was asked for; the names are Docker's.
type inspectMount struct {
	Type        string
	Name        string `json:",omitempty"` // of a volume
	Source      string // on the host; "" for a tmpfs
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

func newInspectMounts(r *engine.Record) []inspectMount {
	all := []inspectMount{}
	for _, m := range r.Spec.Mounts {
		v := inspectMount{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly}
		if m.ReadOnly {
			v.Mode = "ro"
		}
		switch m.Type {
		case "volume":
			v.Name, v.Source, v.Driver = m.Source, r.Volumes[m.Source], localDriver
		case "bind":
			v.Propagation = cmp.Or(m.Propagation, "rprivate")
		}
		all = append(all, v)
	}
	return all
}
