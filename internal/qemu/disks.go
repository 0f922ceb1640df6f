package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// swapLimit bounds one exchange of a disk. What was begun is ended or undone even
// when its caller has gone: half an exchange would lose the slot.
const swapLimit = 10 * time.Second

// InsertDisk puts a file into the slot with the given serial number. The guest
// sees no event: it must not have the disk mounted or cached, and learns of the
// change from whoever asked for it. The file stays the caller's; its access
// must be that of the slot.
func (m *Machine) InsertDisk(ctx context.Context, serial string, file *os.File) error {
	m.swapping.Lock()
	defer m.swapping.Unlock()
	d, err := m.slot(serial)
	if err != nil {
		return err
	}
	if m.isFilled(serial) {
		return fmt.Errorf("slot %s holds a disk already", serial)
	}
	st, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file.Name())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapLimit)
	defer cancel()
	m.set++
	set := m.set
	if _, err := m.qmp.do(ctx, "add-fd", map[string]any{"fdset-id": set, "opaque": serial}, file); err != nil {
		return err
	}
	// The block node holds a duplicate of its own.
	defer m.qmp.do(ctx, "remove-fd", map[string]any{"fdset-id": set}) //nolint:errcheck // an open file too many
	options := map[string]any{"driver": "file", "filename": fmt.Sprintf("/dev/fdset/%d", set), "locking": "off", "read-only": d.ReadOnly}
	if !d.ReadOnly {
		options["discard"] = "unmap"
	}
	if err := m.swap(ctx, d, options); err != nil {
		return err
	}
	m.setFilled(serial, file.Name())
	return nil
}

// EjectDisk makes a slot empty again and closes QEMU's descriptor of the file.
func (m *Machine) EjectDisk(ctx context.Context, serial string) error {
	m.swapping.Lock()
	defer m.swapping.Unlock()
	d, err := m.slot(serial)
	if err != nil || !m.isFilled(serial) {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapLimit)
	defer cancel()
	size := d.Size
	if size == 0 {
		size = EmptySize
	}
	options := map[string]any{"driver": "null-co", "size": size, "read-zeroes": true, "read-only": d.ReadOnly}
	if err := m.swap(ctx, d, options); err != nil {
		return err
	}
	m.setFilled(serial, "")
	return nil
}

// swaps is what is and may be behind a slot's device.
type swaps struct {
	n      int      // how many names were given to nodes: none is given twice
	behind string   // the node that the device has, as far as QEMU has said
	strays []string // nodes that may be there, too
}

// swap makes a new node, gives it to the device and removes the old one. A QEMU that
// does not answer in time may have done what it was told, or do it yet: of what it
// was not heard the next exchange removes what is there.
func (m *Machine) swap(ctx context.Context, d Disk, options map[string]any) error {
	s := m.swaps[d.Serial]
	if s == nil {
		s = &swaps{behind: nodeName(d.Serial, 0)}
		m.swaps[d.Serial] = s
	}
	s.n++
	node := nodeName(d.Serial, s.n)
	options["node-name"] = node
	if _, err := m.qmp.do(ctx, "blockdev-add", options); err != nil {
		if !refused(err) {
			s.strays = append(s.strays, node)
		}
		return err
	}
	_, err := m.qmp.do(ctx, "qom-set", map[string]any{"path": "/machine/peripheral/" + deviceID(d.Serial), "property": "drive", "value": node})
	if err != nil {
		return errors.Join(err, m.remove(ctx, s, node))
	}
	old := append(s.strays, s.behind)
	s.behind, s.strays = node, nil
	for _, name := range old {
		err = m.remove(ctx, s, name) // that of the last, which was there, is told
	}
	return err
}

// remove removes a node that no device has. One of which QEMU does not say whether
// it is there is a stray.
func (m *Machine) remove(ctx context.Context, s *swaps, node string) error {
	_, err := m.qmp.do(ctx, "blockdev-del", map[string]any{"node-name": node})
	if err != nil && !refused(err) {
		s.strays = append(s.strays, node)
	}
	return err
}

// refused tells that QEMU has answered, and would not.
func refused(err error) bool {
	var said *CommandError
	return errors.As(err, &said)
}

func (m *Machine) slot(serial string) (Disk, error) {
	for _, d := range m.cfg.Disks {
		if d.Serial == serial {
			return d, nil
		}
	}
	return Disk{}, fmt.Errorf("the machine has no disk %q", serial)
}

func (m *Machine) isFilled(serial string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.filled[serial] != ""
}

func (m *Machine) setFilled(serial, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.filled[serial] = name
}
