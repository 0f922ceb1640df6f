package pid1

import (
	"io"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A Machine is what the guest offers to the server of the protocol: disks,
// clock, random generator, and its own end.
type Machine struct {
	images  images
	data    *data
	volumes volumes

	stop sync.Once
	off  chan struct{}
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

// Volume mounts a volume that the host serves over conn, and takes conn over.
// It ends when conn does.
func (m *Machine) Volume(name string, conn io.ReadWriteCloser) error {
	return m.volumes.attach(name, conn)
}

// VolumeDir returns where a volume is mounted.
func (m *Machine) VolumeDir(name string) (string, error) { return m.volumes.dir(name) }

// SetClock sets the wall clock.
func (m *Machine) SetClock(now time.Time) error { return setClock(now) }

// Reseed puts seed into the kernel's random generator.
func (m *Machine) Reseed(seed []byte) error { return reseed(seed) }

// PowerOff lets Run return, after which the machine ends.
func (m *Machine) PowerOff() { m.stop.Do(func() { close(m.off) }) }
