package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Populated reports whether any process, zombies apart, is in the cgroup or
// below it.
func (m *Manager) Populated() (bool, error) {
	if m.v2 != "" {
		text, err := readFile(m.v2, "cgroup.events")
		if err == nil && strings.Contains(text, "populated 1") {
			return true, nil
		}
		if err = ignoreGone(err); err != nil || len(m.v1) == 0 {
			return false, err
		}
	}
	pids, err := m.Pids(true)
	return len(pids) > 0, err
}

// WaitEmpty returns when no process is left in the cgroup or below it, or
// when ctx is done. With a v2 directory it sleeps until the kernel reports a
// change; pure v1 has no such report, there it looks every few milliseconds.
func (m *Manager) WaitEmpty(ctx context.Context) error {
	if m.v2 != "" {
		if err := waitEvent(ctx, m.v2, "populated 0"); err != nil {
			return fmt.Errorf("wait until cgroup %s is empty: %w", m.path, err)
		}
	}
	if len(m.v1) == 0 {
		return nil
	}
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		pids, err := m.Pids(true)
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := sleep(ctx, delay); err != nil {
			return fmt.Errorf("wait until cgroup %s is empty of %d processes: %w", m.path, len(pids), err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// waitEvent returns when cgroup.events of a v2 directory has one of the given lines,
// or when the directory is gone. The kernel reports changes of that file as
// modifications (inotify(7)). A user has 128 inotify instances by default, which
// others may have used up: without one it looks every few milliseconds, as whoever
// holds them is not to keep a workload from being killed.
func waitEvent(ctx context.Context, dir string, lines ...string) error {
	holds := func() (bool, error) {
		text, err := readFile(dir, "cgroup.events")
		if err != nil {
			return gone(err), ignoreGone(err)
		}
		return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(text, line) }), nil
	}
	if ok, err := holds(); ok || err != nil {
		return err
	}
	w, err := watch(dir, "cgroup.events")
	if gone(err) {
		return nil
	}
	if err != nil {
		return look(ctx, holds)
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { w.SetReadDeadline(past) })
	defer stop()
	buf := make([]byte, 4096)
	for delay := firstLook; ; delay *= 2 {
		// The watch is in place before the look, so no change is missed.
		if ok, err := holds(); ok || err != nil {
			return err
		}
		// The kernel reports a change at most every 10 ms (kernel/cgroup/cgroup.c,
		// CGROUP_FILE_NOTIFY_MIN_INTV). For what happens sooner after the last
		// one, there are a few looks before it relies on the report.
		var until time.Time
		if delay < 16*time.Millisecond {
			until = time.Now().Add(delay)
		}
		w.SetReadDeadline(until)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := w.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// look returns when holds does, which it asks at least every 20 ms.
func look(ctx context.Context, holds func() (bool, error)) error {
	for delay := firstLook; ; delay = min(2*delay, 20*time.Millisecond) {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		if err := sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// firstLook is the time to the first look that does not wait for a report.
const firstLook = 500 * time.Microsecond

var past = time.Unix(1, 0)

// watch returns a file that becomes readable when a file of a cgroup is
// modified. It also becomes readable when a directory beside the cgroup, or
// the cgroup, is removed: the files inside are then gone without a word.
func watch(dir, file string) (*os.File, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := os.NewFile(uintptr(fd), "inotify")
	for _, x := range []struct {
		path string
		mask uint32
	}{{path.Dir(dir), syscall.IN_DELETE | syscall.IN_ONLYDIR}, {dir + "/" + file, syscall.IN_MODIFY}} {
		if _, err := syscall.InotifyAddWatch(fd, x.path, x.mask); err != nil {
			w.Close()
			return nil, &os.PathError{Op: "watch", Path: x.path, Err: err}
		}
	}
	return w, nil
}
