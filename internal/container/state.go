package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// State is what is kept on disk of a container, for other processes.
type State struct {
	ID       string    `json:"id"`
	Pid      int       `json:"pid"`
	PidStart uint64    `json:"pidStart"` // field 22 of /proc/PID/stat: tells a reused process ID
	Bundle   string    `json:"bundle,omitempty"`
	Root     string    `json:"root"`
	Cgroup   string    `json:"cgroup,omitempty"`
	Created  time.Time `json:"created"`
	// Namespaces are the CLONE_NEW… flags of the container's own namespaces.
	Namespaces uint64 `json:"namespaces"`
	// KillAll: there is no pid namespace of its own whose end would take all
	// processes along.
	KillAll bool `json:"killAll,omitempty"`
	// AfterStart describes the steps that Start can see fail.
	AfterStart map[uint64]launch.Described `json:"afterStart,omitempty"`
}

// save writes the state file in one piece.
func (s *State) save(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, stateFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, stateFile))
}

// Open finds the container that some process created with this directory. The
// error wraps fs.ErrNotExist when there is none.
func Open(dir string) (*Container, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	c := &Container{dir: dir, pidfd: -1}
	if err := json.Unmarshal(b, &c.State); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if pidfd.IsGone(err) {
		return c, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if start, err := processStart(c.Pid); err != nil || start != c.PidStart {
		unix.Close(fd) // another process has the ID now
		return c, nil
	}
	c.pidfd = fd
	return c, nil
}

// Status says what the first process does. Paused is the cgroup's to say.
func (c *Container) Status() workload.Status {
	c.mu.RLock()
	over := c.pidfd < 0 || ended(c.pidfd)
	c.mu.RUnlock()
	if over {
		return workload.Exited
	}
	// A start that was killed may have left the FIFO. The first process reads from it
	// until it runs the program, and nobody does then.
	fd, err := openFD(filepath.Join(c.dir, startFIFO), unix.O_WRONLY|unix.O_NONBLOCK)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return workload.Running
	}
	if err == nil {
		unix.Close(fd)
	}
	return workload.Created
}

// ended reports whether the process has ended, reaped or not: its pidfd
// becomes readable (pidfd_open(2)).
func ended(pidfd int) bool { return endedWithin(pidfd, 0) }

// endedWithin waits for the end for so many milliseconds.
func endedWithin(pidfd, wait int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, wait)
	return err == nil && n > 0
}

// processStart is when a process started, in clock ticks since boot: field 22
// of proc_pid_stat(5).
func processStart(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return 0, workload.ErrNotRunning
		}
		return 0, err
	}
	// The name, field 2, may hold anything: count from its closing parenthesis.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fmt.Errorf("/proc/%d/stat has no name", pid)
	}
	fields := bytes.Fields(b[i+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}
