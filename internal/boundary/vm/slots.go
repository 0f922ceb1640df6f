package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// slot is a disk of a tenant's machine that images are put into. The guest
// mounts one image for all workloads that run it.
type slot struct {
	serial string
	image  string // what is in it, "" if nothing
	users  int
	broken bool // the last exchange failed: it is tried again where there is no other
}

// exchanger puts things into a machine's slots, and takes them out: the VMM.
type exchanger interface {
	InsertDisk(ctx context.Context, serial string, file *os.File) error
	EjectDisk(ctx context.Context, serial string) error
	InsertNIC(ctx context.Context, n int, kind qemu.NICKind, file *os.File) error
	EjectNIC(ctx context.Context, n int) error
}

func slotName(n int) string { return "image" + strconv.Itoa(n) }

// errSlots tells that the machine has no disk left.
var errSlots = errors.New("the tenant's machine has no room for another image")

// Insert shows the guest an image as a disk.
func (m *machine) Insert(ctx context.Context, image string) (serial string, release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// One that asks holds up all others that want a disk of this machine.
	var s *slot
	err = within(ctx, answerTimeout, func(ctx context.Context) (err error) {
		s, err = m.slotFor(ctx, image)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	s.users++
	return s.serial, func() {
		m.mu.Lock()
		s.users--
		m.mu.Unlock()
	}, nil
}

// slotFor returns the slot that holds image, or fills one. What was in a slot
// that nobody uses may still be mounted for a moment, by a guest that is
// cleaning up: it is not replaced before the guest says that it is not. A slot
// with which something is wrong is in nobody's way.
func (m *machine) slotFor(ctx context.Context, image string) (*slot, error) {
	for _, s := range m.slots {
		if s.image == image {
			return s, nil
		}
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var failed error
	fill := func(s *slot) bool {
		err := m.fill(ctx, s, f)
		if err != nil {
			failed = err
		}
		return err == nil
	}
	var unused, broken []*slot
	for _, s := range m.slots {
		switch {
		case s.broken:
			broken = append(broken, s)
		case s.image == "":
			if fill(s) {
				return s, nil
			}
		case s.users == 0:
			unused = append(unused, s)
		}
	}
	for range 100 {
		var mounted []string
		if len(unused) > 0 {
			if mounted, err = m.mounted(ctx); err != nil {
				return nil, err
			}
		}
		for _, s := range unused {
			if !slices.Contains(mounted, s.serial) && fill(s) {
				return s, nil
			}
		}
		for _, s := range broken {
			if fill(s) {
				return s, nil
			}
		}
		switch {
		case failed != nil:
			return nil, failed
		case len(unused) == 0:
			return nil, fmt.Errorf("%w: %w: %d images are in use", workload.ErrUnsupported, errSlots, len(m.slots))
		}
		select {
		case <-time.After(100 * time.Millisecond): // a workload is ending there: nothing tells of it
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("%w: the guest does not let go of images that nobody uses", errSlots)
}

// fill puts an image into a slot, in the place of what is there.
func (m *machine) fill(ctx context.Context, s *slot, image *os.File) error {
	s.image, s.broken = "", true
	if err := m.exchange.EjectDisk(ctx, s.serial); err != nil {
		return err
	}
	if err := m.exchange.InsertDisk(ctx, s.serial, image); err != nil {
		return err
	}
	s.image, s.broken = image.Name(), false
	return nil
}

// mounted asks the guest which disks it has mounted, by their serial numbers.
func (m *machine) mounted(ctx context.Context) ([]string, error) {
	st, err := clientOf(m).Status(ctx)
	return st.Images, err
}
