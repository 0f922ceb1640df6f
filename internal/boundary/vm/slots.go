package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// slot is a disk of a tenant's machine that images are put into. The guest
// mounts one image for all workloads that run it.
type slot struct {
	serial string
	image  string // what is in it, "" if nothing
	users  int
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
// cleaning up: it is not replaced before the guest says that it is not.
func (m *machine) slotFor(ctx context.Context, image string) (*slot, error) {
	var unused []*slot
	for _, s := range m.slots {
		switch {
		case s.image == image:
			return s, nil
		case s.image == "":
			return s, m.fill(ctx, s, image)
		case s.users == 0:
			unused = append(unused, s)
		}
	}
	if len(unused) == 0 {
		return nil, fmt.Errorf("%w: %w: %d images are in use", workload.ErrUnsupported, errSlots, len(m.slots))
	}
	for range 100 {
		for _, s := range unused {
			busy, err := m.mounted(ctx, s.serial)
			if err != nil {
				return nil, err
			}
			if !busy {
				return s, m.fill(ctx, s, image)
			}
		}
		select {
		case <-time.After(100 * time.Millisecond): // a workload is ending there: nothing tells of it
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("%w: the guest does not let go of images that nobody uses", errSlots)
}

func (m *machine) fill(ctx context.Context, s *slot, image string) error {
	if s.image != "" {
		s.image = ""
		if err := m.vmm.EjectDisk(ctx, s.serial); err != nil {
			return err
		}
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.vmm.InsertDisk(ctx, s.serial, f); err != nil {
		return err
	}
	s.image = image
	return nil
}

// mounted asks the guest whether it has a disk mounted.
func (m *machine) mounted(ctx context.Context, serial string) (bool, error) {
	st, err := clientOf(m).Status(ctx)
	if err != nil {
		return false, err
	}
	for _, i := range st.Images {
		if i == serial {
			return true, nil
		}
	}
	return false, nil
}
