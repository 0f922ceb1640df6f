package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
)

// Cgroups finds the container's cgroups, nil when it has none of its own or
// they are gone.
func (c *Container) Cgroups() (*cgroup.Manager, error) {
	if c.Cgroup == "" {
		return nil, nil
	}
	m, err := cgroup.Load(c.Cgroup, cgroup.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return m, err
}

// Kill ends every process of the container: all of its cgroup, or, where it
// has none, the first process and with it its pid namespace. It returns when
// the first process has ended.
func (c *Container) Kill(ctx context.Context) error {
	m, err := c.Cgroups()
	if err != nil {
		return err
	}
	if m != nil {
		if err := m.Kill(ctx); err != nil {
			return err
		}
	}
	if c.pidfd < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	if err := waitReadable(ctx, c.pidfd); err != nil {
		return fmt.Errorf("wait for the end of the container: %w", err)
	}
	return nil
}

// waitReadable waits until there is something to read, or, of a pidfd, until the
// process has ended.
func waitReadable(ctx context.Context, fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		const slice = 100 * time.Millisecond // so that ctx is noticed
		n, err := unix.Poll(fds, int(slice/time.Millisecond))
		switch {
		case err != nil && err != unix.EINTR:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// Delete kills the container if need be and removes what Create made: cgroups,
// FIFOs, the state file. It may be called again. Config.Dir itself stays.
func (c *Container) Delete(ctx context.Context) error {
	if err := c.Kill(ctx); err != nil {
		return err
	}
	if m, err := c.Cgroups(); err != nil {
		return err
	} else if m != nil {
		if err := m.Destroy(ctx); err != nil {
			return err
		}
	}
	for _, name := range []string{startFIFO, statusFIFO, rootDirectory, layersDirectory, stateFile} {
		if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	c.Close()
	return nil
}
