package protocol

import (
	"bytes"
	"encoding/json"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// MaxDescribed is how many processes a Reply describes at most.
const MaxDescribed = 4096

// Described are processes of a workload. The number is checked while they are
// read, not after.
type Described []workload.ProcessInfo

// UnmarshalJSON reads a list of at most MaxDescribed.
func (d *Described) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return violation("processes that are no list")
	}
	*d = nil
	for dec.More() {
		if len(*d) >= MaxDescribed {
			return violation("more than %d processes", MaxDescribed)
		}
		var p workload.ProcessInfo
		if err := dec.Decode(&p); err != nil {
			return err
		}
		*d = append(*d, p)
	}
	return nil
}

// Fitting cuts commands, and at last processes, so that the list fits a Reply.
func (d Described) Fitting() Described {
	d = append(Described(nil), d[:min(len(d), MaxDescribed)]...)
	for most := 2048; ; most /= 4 {
		for i := range d {
			d[i].Command = cut(d[i].Command, most)
		}
		b, err := json.Marshal(d)
		if err != nil || len(b) <= MaxReply*3/4 {
			return d
		}
		if most < 16 {
			d = d[:len(d)/2]
		}
	}
}

// check refuses what no honest agent says of processes, and makes the rest fit
// for a terminal.
func (d Described) check() error {
	for i := range d {
		p := &d[i]
		if p.PID < 0 || p.PPID < 0 || p.CPU < 0 || p.RSS < 0 || len(p.State) > 4 || len(p.TTY) > 64 || len(p.Command) > 4096 {
			return violation("process %d of a list makes no sense", i)
		}
		p.State, p.TTY, p.Command = clean(p.State), clean(p.TTY), clean(p.Command)
	}
	return nil
}

// check refuses memory that no guest has.
func (s *Status) check() error {
	if s != nil && (s.MemoryAvailable < 0 || s.MemoryAvailable > s.MemoryTotal) {
		return violation("%d bytes available of %d", s.MemoryAvailable, s.MemoryTotal)
	}
	return nil
}

// checkUsage refuses what no honest agent says.
func checkUsage(u *workload.Usage) error {
	if u == nil {
		return nil
	}
	for _, n := range []int64{
		int64(u.CPU), u.Memory, u.MemoryLimit, u.Pids, u.PidsLimit, u.BlockRead, u.BlockWrite, u.NetReceived, u.NetSent,
	} {
		if n < 0 {
			return violation("a figure of %d", n)
		}
	}
	// The host's figures are not the guest's to give.
	u.HostCPU, u.HostMemory = 0, 0
	return nil
}
