package dns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
)

const (
	recordName    = "dns.json"
	newRecordName = ".dns.json.new" // until it is whole
	logName       = "dns.log"
	maxRecord     = 16 << 10
)

// A record says which processes a name server is. Process IDs are used again;
// together with the boot and the time of its start one means one process.
type record struct {
	Boot     string  `json:"boot"`
	Config   string  `json:"config"` // what it was started with, see Config.fingerprint; "" until it answers
	Resolver process `json:"resolver"`
	Dialer   process `json:"dialer,omitzero"`
}

type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, proc_pid_stat(5)
}

// readRecord returns the zero record where there is none, or none that can be
// understood.
func readRecord(dir string) (r record, err error) {
	b, err := os.ReadFile(filepath.Join(dir, recordName))
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if len(b) > maxRecord || json.Unmarshal(b, &r) != nil {
		return record{}, nil
	}
	boot, err := bootID()
	if err != nil {
		return record{}, err
	}
	if r.Boot != boot {
		return record{}, nil
	}
	return r, nil
}

func (r record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// Whoever was killed at this leaves one file at most: the lock is ours.
	f, err := os.OpenFile(filepath.Join(dir, newRecordName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, recordName))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b)), err
}

// describe takes down a process that cannot have ended unnoticed: a child.
func describe(pid int) (process, error) {
	start, err := startTime(pid)
	return process{pid, start}, err
}

// open returns a pidfd of the process, or nil if it has ended.
func (p process) open() (*os.File, error) {
	if p.PID <= 0 {
		return nil, nil
	}
	f, err := pidfd.Open(p.PID)
	if pidfd.IsGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	// The descriptor keeps meaning whoever has the ID now.
	start, err := startTime(p.PID)
	if err == nil && start == p.Start {
		over := true
		err = descriptor(f, func(fd int) error {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			for err == unix.EINTR { //nolint:errorlint // raw errno; a signal of the Go runtime's, too
				n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			}
			over = n != 0
			return err
		})
		if err == nil && !over {
			return f, nil
		}
	}
	f.Close()
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return nil, err
	}
	return nil, nil
}

// running returns the processes, if all of them run and have answered.
func (r record) running() (Process, error) {
	if r.Config == "" {
		return Process{}, ErrNotRunning
	}
	for _, p := range []process{r.Resolver, r.Dialer} {
		if p.PID == 0 && p == r.Dialer && r.Resolver.PID != 0 {
			continue
		}
		f, err := p.open()
		if err != nil {
			return Process{}, err
		}
		if f == nil {
			return Process{}, ErrNotRunning
		}
		f.Close()
	}
	return Process{r.Resolver.PID, r.Dialer.PID}, nil
}

// end kills both processes and waits until they are gone.
func (r record) end(ctx context.Context) error {
	wait, err := r.kill()
	return errors.Join(err, wait(ctx))
}

// kill kills both processes. wait, which is to be called, returns when they are
// gone.
func (r record) kill() (wait func(context.Context) error, err error) {
	resolver, err := r.Resolver.kill()
	dialer, derr := r.Dialer.kill()
	return func(ctx context.Context) error { return errors.Join(resolver(ctx), dialer(ctx)) }, errors.Join(err, derr)
}

// kill kills the process. wait, which is to be called, returns when it is gone.
func (p process) kill() (wait func(context.Context) error, err error) {
	none := func(context.Context) error { return nil }
	f, err := p.open()
	if f == nil {
		return none, err
	}
	err = descriptor(f, func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		f.Close()
		return none, fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return func(ctx context.Context) error {
		if err := pidfd.Wait(ctx, f); err != nil {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		// If it is a child of this very process nobody else would; else it fails.
		unix.Wait4(p.PID, nil, unix.WNOHANG, nil) //nolint:errcheck // see above
		return nil
	}, nil
}

// descriptor calls do with the number of f, which stays in the poller.
func descriptor(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	return errors.Join(conn.Control(func(fd uintptr) { done = do(int(fd)) }), done)
}

// startTime is field 22 of /proc/<pid>/stat.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses, which may hold some itself.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat holds %.80q", pid, b)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}
