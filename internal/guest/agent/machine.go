package agent

import (
	"bytes"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
)

// volume gives a stream to the Guest and keeps it until it is closed.
func (a *Agent) volume(st *stream, name string) {
	if err := checkName(name); err != nil {
		st.reply(protocol.Reply{}, fmt.Errorf("%w: volume: %w", protocol.ErrProtocol, err))
		return
	}
	v := &volumeConn{Stream: st.Stream, replied: make(chan struct{}), closed: make(chan struct{})}
	if err := a.Guest.Volume(name, v); err != nil {
		st.reply(protocol.Reply{}, err)
		return
	}
	st.reply(protocol.Reply{}, nil)
	close(v.replied)
	<-v.closed
}

// volumeConn is a stream that carries nothing before the Reply.
type volumeConn struct {
	*protocol.Stream
	replied, closed chan struct{}
	once            sync.Once
}

func (v *volumeConn) Write(p []byte) (int, error) {
	select {
	case <-v.replied:
	case <-v.Done():
	}
	return v.Stream.Write(p)
}

func (v *volumeConn) Close() error {
	v.once.Do(func() { close(v.closed) })
	return v.Stream.Close()
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
