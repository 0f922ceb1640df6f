package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/agent"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/nic"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A Machine is what the guest offers to the server of the protocol: disks,
// clock, random generator, and its own end.
type Machine struct {
	images images
	data   *data
	nics   nic.Devices

	stop sync.Once
	off  chan struct{}

	switched atomic.Bool // PID 1 is a system's init
	over     atomic.Bool // and that has stopped
}

// NewMachine returns the machine that this process runs in.
func NewMachine() *Machine { return &Machine{data: newData(), off: make(chan struct{})} }

// Image returns the directory of the image on the disk with this serial number,
// read-only, and what gives it back. Each disk is mounted once.
func (m *Machine) Image(serial string) (dir string, release func() error, err error) {
	return m.images.acquire(serial)
}

// Data returns the writable directories of a workload's overlay on the data
// disk. They outlive the guest. root is the directory whose attributes the
// overlay's root will have.
func (m *Machine) Data(id workload.ID, root string, idBase, idCount uint32) (upper, work string, err error) {
	return m.data.prepare(id, root, idBase, idCount)
}

// RemoveData deletes what a workload wrote.
func (m *Machine) RemoveData(id workload.ID) error { return m.data.remove(id) }

// KeepData deletes what others wrote than those that keep wants.
func (m *Machine) KeepData(keep func(workload.ID) bool) error { return m.data.keep(keep) }

// Images are the serial numbers of the image disks that are mounted.
func (m *Machine) Images() []string { return m.images.serials() }

// volumeDir holds the mount point of each volume.
const volumeDir = "/run/bulkhead/volumes"

// Volume mounts a volume, a directory or a file, that the host will serve.
func (m *Machine) Volume(name string, file bool) (agent.Volume, error) {
	path := filepath.Join(volumeDir, name)
	err := os.MkdirAll(volumeDir, 0o711)
	if err != nil {
		return nil, err
	}
	if file {
		err = os.WriteFile(path, nil, 0o600)
	} else {
		err = os.Mkdir(path, 0o755)
	}
	if err != nil {
		return nil, err
	}
	v, err := volume.Mount(path, volume.Options{File: file})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("volume %s: %w", name, err), os.Remove(path))
	}
	return &mountedVolume{v, path}, nil
}

// mountedVolume is a volume with its mount point.
type mountedVolume struct {
	*volume.Volume
	path string
}

func (v *mountedVolume) Path() string { return v.path }

func (v *mountedVolume) Unmount() error { return errors.Join(v.Volume.Unmount(), os.Remove(v.path)) }

// Attach gives a workload network devices of the machine's.
func (m *Machine) Attach(nics []protocol.NIC, ns *os.File) error { return m.nics.Attach(nics, ns) }

// Detach takes them back.
func (m *Machine) Detach(nics []protocol.NIC) error { return m.nics.Detach(nics) }

// Devices are the MAC addresses of those that workloads have.
func (m *Machine) Devices() []string { return m.nics.Given() }

// Route gives a workload that runs other default routes.
func (m *Machine) Route(nics []protocol.NIC, ns *os.File) error { return nic.Route(nics, ns) }

// SetClock sets the wall clock.
func (m *Machine) SetClock(now time.Time) error { return setClock(now) }

// ShiftClock moves the wall clock by d, gradually if that is less than slewBelow.
func (m *Machine) ShiftClock(d time.Duration) error { return shiftClock(d) }

// Reseed puts seed into the kernel's random generator.
func (m *Machine) Reseed(seed []byte) error { return reseed(seed) }

// PowerOff lets Run return, after which the machine ends.
func (m *Machine) PowerOff() { m.stop.Do(func() { close(m.off) }) }
