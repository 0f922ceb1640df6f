package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// OOMKilled reports whether the kernel killed any process of the cgroup for
// lack of memory.
func (m *Manager) OOMKilled() (bool, error) {
	n, err := m.OOMKills()
	return n > 0, err
}

// OOMKills counts processes of the cgroup and its children that the kernel
// killed for lack of memory. It is zero where memory is not accounted.
func (m *Manager) OOMKills() (uint64, error) {
	if dir := m.dirOn("memory"); dir != "" {
		// v1 counts a kill only where the victim was.
		var sum uint64
		err := walk(dir, func(at int, dir string) error {
			n, err := readKeyedAt(at, dir, "memory.oom_control", "oom_kill")
			sum += n
			return err
		})
		return sum, err
	}
	if m.v2 == "" {
		return 0, nil
	}
	return readKeyed(m.v2, "memory.events", "oom_kill")
}

// WaitOOM returns the number of OOM kills as soon as it is more than seen. The
// error wraps os.ErrNotExist once the cgroup is removed, is that of ctx when
// it is done, or a *MissingError where memory is not accounted. On v1 a kill
// caused by the limit of a child cgroup is seen only with the next one.
func (m *Manager) WaitOOM(ctx context.Context, seen uint64) (uint64, error) {
	w, dir, err := m.oomEvents()
	if err != nil {
		return 0, fmt.Errorf("watch cgroup %s for OOM kills: %w", m.path, err)
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { w.SetReadDeadline(past) })
	defer stop()
	buf := make([]byte, 4096)
	for delay := firstLook; ; delay *= 2 {
		n, err := m.OOMKills()
		switch {
		case err != nil:
			return 0, err
		case n > seen:
			return n, nil
		case !exists(dir, "."):
			return n, fmt.Errorf("cgroup %s: %w", m.path, os.ErrNotExist)
		}
		// v1 reports that memory ran out, which is before the kill, and v2 at most
		// every 10 ms: so there are a few looks after each report.
		var until time.Time
		if delay < time.Second {
			until = time.Now().Add(delay)
		}
		w.SetReadDeadline(until)
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		if _, err := w.Read(buf); err == nil {
			delay = firstLook
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// oomEvents returns a file that becomes readable when memory runs out, and
// the directory whose memory it is.
func (m *Manager) oomEvents() (*os.File, string, error) {
	if dir := m.dirOn("memory"); dir != "" {
		w, err := oomEventFD(dir)
		return w, dir, err
	}
	if m.v2 == "" || !exists(m.v2, "memory.events") {
		return nil, "", &MissingError{Limit: "OOM report", Controller: "memory"}
	}
	w, err := watch(m.v2, "memory.events")
	return w, m.v2, err
}

// oomEventFD registers an eventfd with a v1 memory cgroup, as
// Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control", has it.
func oomEventFD(dir string) (*os.File, error) {
	control, err := openFile(dir, "memory.oom_control", syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(control)
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	w := os.NewFile(fd, "eventfd")
	err = writeFile(dir, "cgroup.event_control", strconv.Itoa(int(fd))+" "+strconv.Itoa(control))
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}
