package agent

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// volume is one that a stream serves. path and err are settled when mounted is
// closed.
type volume struct {
	mounted chan struct{}
	path    string
	err     error
}

// volume mounts a volume and keeps it until its stream ends. The Reply comes
// first: from then on the stream carries FUSE messages, which mounting needs.
// Whether it could be mounted is told to the workload that wants it.
func (a *Agent) volume(st *stream, name string, file bool) {
	if err := checkName(name); err != nil {
		st.reply(protocol.Reply{}, fmt.Errorf("%w: volume: %w", protocol.ErrProtocol, err))
		return
	}
	v := &volume{mounted: make(chan struct{})}
	a.mu.Lock()
	taken := a.volumes[name] != nil || len(a.volumes) >= maxVolumes
	if !taken {
		a.volumes[name] = v
	}
	a.mu.Unlock()
	if taken {
		st.reply(protocol.Reply{}, fmt.Errorf("volume %q: its name is taken, or there are %d already", name, maxVolumes))
		return
	}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.volumes, name)
	}()
	st.reply(protocol.Reply{}, nil)
	var unmount func() error
	v.path, unmount, v.err = a.Guest.Volume(name, file, st.Stream)
	close(v.mounted)
	if v.err != nil {
		// Until whoever asks has heard of it, or the host has gone on.
		<-st.Done()
		return
	}
	<-st.Done()
	if err := unmount(); err != nil {
		a.Log(fmt.Sprintf("unmount volume %s: %v", name, err))
	}
}

// maxVolumes bounds the volumes of all workloads.
const maxVolumes = 1024

// volumePath waits until a volume is mounted.
func (a *Agent) volumePath(name string) (string, error) {
	a.mu.Lock()
	v := a.volumes[name]
	a.mu.Unlock()
	if v == nil {
		return "", fmt.Errorf("there is no volume %q", name)
	}
	select {
	case <-v.mounted:
		return v.path, v.err
	case <-time.After(patience):
		return "", fmt.Errorf("volume %q does not answer", name)
	}
}

// keepData removes what is left of workloads that are no more.
func (a *Agent) keepData(keep []workload.ID) error {
	for _, id := range keep {
		if _, err := workload.ParseID(string(id)); err != nil {
			return fmt.Errorf("%w: %w", protocol.ErrProtocol, err)
		}
	}
	// A workload that exists here may be younger than the host's list.
	return a.Guest.KeepData(func(id workload.ID) bool { return slices.Contains(keep, id) || a.find(id) != nil })
}

// status tells about the machine.
func (a *Agent) status() (*protocol.Status, error) {
	s := &protocol.Status{Time: time.Now()}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		var name string
		var kib int64
		if _, err := fmt.Sscanf(string(line), "%s %d kB", &name, &kib); err != nil {
			continue
		}
		switch strings.TrimSuffix(name, ":") {
		case "MemTotal":
			s.MemoryTotal = kib << 10
		case "MemAvailable":
			s.MemoryAvailable = kib << 10
		}
	}
	s.Images = a.Guest.Images()
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
