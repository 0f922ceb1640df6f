package agent

import (
	"io"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Guest is the machine that the agent runs on: its disks, volumes, clock and
// power. Package pid1 implements it. Its methods are called from any goroutine,
// with names that were checked: a serial or a volume is 1 to 64 of the
// characters a-z, 0-9 and "-".
type Guest interface {
	// Image returns the directory where the EROFS image on the disk of that
	// serial is mounted. It stays until as many calls of release as of Image.
	Image(serial string) (dir string, release func() error, err error)
	// Data returns the writable directories of a workload's overlay, made at
	// the first call and found again after a reboot of the guest. root is the
	// image's root directory, whose owner and mode upper takes; both are owned by
	// the workload's range of IDs, unless idCount is 0.
	Data(id workload.ID, root string, idBase, idCount uint32) (upper, work string, err error)
	// RemoveData removes what Data made; nothing to remove is no error.
	RemoveData(id workload.ID) error
	// KeepData removes what Data made for others than those that keep wants. It
	// asks keep about what it has found, so that a workload which is made
	// meanwhile is not among what it removes.
	KeepData(keep func(workload.ID) bool) error
	// Images are the serials of the images that are mounted.
	Images() []string
	// Volume mounts a volume that nobody serves yet. file says that it is a single
	// file.
	Volume(name string, file bool) (Volume, error)
	// Attach puts network devices of the machine into a workload's network
	// namespace, as the interfaces that nics describe; a nil ns is the guest's own.
	Attach(nics []protocol.NIC, ns *os.File) error
	// Detach takes devices back from wherever a workload has put them: they are free
	// for the next, as new. One that nobody has is no error.
	Detach(nics []protocol.NIC) error
	// Devices are those that workloads have, by their own MAC addresses.
	Devices() []string
	// Route makes the gateways of nics the default routes in ns.
	Route(nics []protocol.NIC, ns *os.File) error
	// SetClock sets the wall clock, ShiftClock moves it by d.
	SetClock(t time.Time) error
	ShiftClock(d time.Duration) error
	// Reseed feeds the kernel's random generator.
	Reseed(seed []byte) error
	// PowerOff begins to end the machine, and may return before it has ended.
	PowerOff()
}

// Volume is a volume that is mounted in the guest.
type Volume interface {
	// Path is where it is mounted.
	Path() string
	// Serve has its files served over conn by FUSE messages. It is called at most
	// once. After an error, and when conn ends, whoever uses the volume gets errors.
	Serve(conn io.ReadWriteCloser) error
	// Unmount takes it away and closes conn.
	Unmount() error
}
