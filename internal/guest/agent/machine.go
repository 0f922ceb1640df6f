package agent

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/procs"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// volume is a volume of the guest, by name. A stream serves it: from the beginning,
// or when a machine that was saved with it goes on.
//
//	          ┌── served when mounted, by the stream that asked for it
//	mounted ──┤
//	          └── held ── saved with the machine ── served in a clone
type volume struct {
	file    bool
	mounted chan struct{} // closed when v and err are settled
	v       Volume
	err     error

	held   bool          // guarded by Agent.mu: nobody has come to serve it
	served chan struct{} // closed when broken is settled
	broken error         // why it is not served
}

// maxVolumes bounds the volumes of all workloads.
const maxVolumes = 1024

// takeVolume reserves a name, or finds what hold has left for whoever serves it.
func (a *Agent) takeVolume(name string, file, hold bool) (v *volume, found bool, err error) {
	if err := checkName(name); err != nil {
		return nil, false, fmt.Errorf("%w: volume: %w", protocol.ErrProtocol, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v = a.volumes[name]
	switch {
	case v != nil && v.held && v.file == file && !hold:
		v.held = false
		return v, true, nil
	case v != nil || len(a.volumes) >= maxVolumes:
		return nil, false, fmt.Errorf("volume %q: its name is taken, or there are %d already", name, maxVolumes)
	}
	v = &volume{file: file, held: hold, mounted: make(chan struct{}), served: make(chan struct{})}
	a.volumes[name] = v
	return v, false, nil
}

func (a *Agent) dropVolume(name string, v *volume) {
	if v.err == nil {
		if err := v.v.Unmount(); err != nil {
			a.Log(fmt.Sprintf("unmount volume %s: %v", name, err))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.volumes, name)
}

// volume mounts a volume, unless it is held, and keeps it until its stream ends. The
// Reply comes first: from then on the stream carries FUSE messages. Whether it could
// be mounted is told to the workload that wants it.
func (a *Agent) volume(st *stream, name string, file bool) {
	v, found, err := a.takeVolume(name, file, false)
	st.reply(protocol.Reply{}, err)
	if err != nil {
		return
	}
	if !found {
		v.v, v.err = a.Guest.Volume(name, file)
		close(v.mounted)
	}
	v.broken = v.err
	if v.err == nil {
		v.broken = v.v.Serve(st.Stream)
	}
	close(v.served)
	// After an error, until whoever asks has heard of it, or the host has gone on.
	<-st.Done()
	a.dropVolume(name, v)
}

// hold mounts a volume that a later stream serves: in each clone of this machine its
// own.
func (a *Agent) hold(name string, file bool) error {
	v, _, err := a.takeVolume(name, file, true)
	if err != nil {
		return err
	}
	v.v, v.err = a.Guest.Volume(name, file)
	close(v.mounted)
	if v.err != nil {
		a.dropVolume(name, v)
	}
	return v.err
}

// volumePath waits until a volume is mounted, and served unless it is held.
func (a *Agent) volumePath(name string) (string, error) {
	a.mu.Lock()
	v := a.volumes[name]
	held := v != nil && v.held
	a.mu.Unlock()
	if v == nil {
		return "", fmt.Errorf("there is no volume %q", name)
	}
	ready := v.served
	if held {
		ready = v.mounted
	}
	select {
	case <-ready:
	case <-time.After(patience):
		return "", fmt.Errorf("volume %q does not answer", name)
	}
	err := v.err
	if !held {
		err = v.broken
	}
	if err != nil {
		return "", err
	}
	return v.v.Path(), nil
}

// volumeServed waits until somebody serves a volume that was held.
func (a *Agent) volumeServed(name string) error {
	a.mu.Lock()
	v := a.volumes[name]
	held := v != nil && v.held
	a.mu.Unlock()
	if v == nil || held {
		return fmt.Errorf("nobody serves the volume %q", name)
	}
	_, err := a.volumePath(name)
	return err
}

// keepData removes what is left of workloads that are no more.
func (a *Agent) keepData(keep []workload.ID) error {
	for _, id := range keep {
		if _, err := workload.ParseID(string(id)); err != nil {
			return fmt.Errorf("%w: %w", protocol.ErrProtocol, err)
		}
	}
	// A workload that exists here, or did, may be younger than the host's list.
	return a.Guest.KeepData(func(id workload.ID) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.had[id] || a.workloads[id] != nil || slices.Contains(keep, id)
	})
}

// removeData removes what a workload wrote that exists no more.
func (a *Agent) removeData(id workload.ID) error {
	err := a.Guest.RemoveData(id)
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.had, id)
	}
	return err
}

// clock sets or moves the machine's clock where it is asked to, and says what time it
// is.
func (a *Agent) clock(req *protocol.Request) (r protocol.Reply, err error) {
	if !req.Time.IsZero() {
		err = a.Guest.SetClock(req.Time)
	}
	if err == nil && req.Shift != 0 {
		err = a.Guest.ShiftClock(req.Shift)
	}
	r.Time = time.Now()
	return r, err
}

// status tells about the machine.
func (a *Agent) status() (*protocol.Status, error) {
	total, available, err := procs.Memory()
	if err != nil {
		return nil, err
	}
	s := &protocol.Status{Time: time.Now(), MemoryTotal: total, MemoryAvailable: available}
	s.Images, s.Devices = a.Guest.Images(), a.Guest.Devices()
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, e := range a.workloads {
		e.mu.Lock()
		s.Workloads = append(s.Workloads, protocol.Workload{ID: id, Status: e.status})
		e.mu.Unlock()
	}
	sort.Slice(s.Workloads, func(i, j int) bool { return s.Workloads[i].ID < s.Workloads[j].ID })
	return s, nil
}
