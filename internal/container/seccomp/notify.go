package seccomp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Which call was denied? The kernel does not tell (EPERM has many reasons), its
// audit log needs an auditd, and strace changes what it watches. So, when asked
// to, the filter hands each call that it denies to a listener instead of
// answering itself. The listener notes the call and gives the answer that the
// filter would have given:
//
//	process            kernel                   Reporter
//	keyctl(...)  --->  filter: notify  ------>  receive; original filter: errno 1
//	EPERM        <---                  <------  report(keyctl); answer errno 1
//
// The answer is always an error, never SECCOMP_USER_NOTIF_FLAG_CONTINUE: what
// the original filter denied stays denied, even if the Reporter dies (the
// kernel then answers ENOSYS).

// Notifying returns a filter with the verdicts of f, except that it notifies a
// listener where f returns an error number. It works on the program, not on the
// profile: since every other instruction stays as it is, nothing that f denies
// can become allowed.
//
// It fails if f notifies a listener of its own: a process has one at most.
func (f Filter) Notifying() (Filter, error) {
	if f.Listener {
		return Filter{}, errors.New("seccomp: denied calls cannot be reported, the profile has a listener of its own")
	}
	n := Filter{Insns: make([]Insn, len(f.Insns)), Flags: f.Flags}
	copy(n.Insns, f.Insns)
	for i := range n.Insns {
		if n.Insns[i].Code == ret && Verdict(n.Insns[i].K).Action() == Errno {
			n.Insns[i].K = uint32(Notify)
			n.Listener = true
		}
	}
	if n.Listener {
		// Wait killable, Linux 5.19: a signal must not cancel a call that the
		// Reporter already has, or it would be repeated and reported twice.
		n.Flags |= FlagNewListener | FlagWaitKillableRecv
		if n.Flags&FlagTSync != 0 {
			n.Flags |= FlagTSyncESRCH
		}
	}
	return n, nil
}

// Denied is a call that a filter denied.
type Denied struct {
	// PID is the thread that made the call, in the Reporter's PID namespace; 0
	// if it is not visible there.
	PID   int
	Name  string // "" if no table has the number
	Arch  uint32 // AUDIT_ARCH_*
	NR    uint32
	Args  [6]uint64
	Errno syscall.Errno // what the call returned
	// Suppressed counts the calls since the last report that were answered but
	// not reported, because there were too many.
	Suppressed uint64
}

// String returns the call as one line: "keyctl(0x0, 0x1, …) = EPERM".
func (d Denied) String() string {
	name := d.Name
	if name == "" {
		name = fmt.Sprintf("system call %d", int32(d.NR))
	}
	return fmt.Sprintf("%s(%#x, %#x, %#x, %#x, %#x, %#x) = %s",
		name, d.Args[0], d.Args[1], d.Args[2], d.Args[3], d.Args[4], d.Args[5], errnoName(d.Errno))
}

func errnoName(e syscall.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(e))
}

// A Reporter answers the calls that a filter made by Notifying hands over.
type Reporter struct {
	listener *os.File
	original Filter
	report   func(Denied)
	limit    int

	suppressed atomic.Uint64
}

// NewReporter makes a Reporter for a listener descriptor, which it does not
// close, and the filter that Notifying was called on. report is called for at
// most perSecond calls a second; the workload's thread waits meanwhile. All
// other calls are answered alike, and counted. Memory does not grow with the
// number of calls.
func NewReporter(listener *os.File, original Filter, perSecond int, report func(Denied)) *Reporter {
	return &Reporter{listener: listener, original: original, report: report, limit: perSecond}
}

// Suppressed returns how many calls were answered but not reported since the
// last report.
func (r *Reporter) Suppressed() uint64 { return r.suppressed.Load() }

// Run answers calls until no process has the filter any more (nil) or ctx ends
// (its error).
func (r *Reporter) Run(ctx context.Context) error {
	budget := budget{limit: r.limit}
	return serve(ctx, r.listener, func(fd int, n *notification) error { return r.answer(fd, n, &budget) })
}

// A Call is a call that a filter notified of.
type Call struct {
	PID int // of the thread, in the caller's PID namespace; 0 if it is not visible there
	Data
}

// An Answer is what a call returns: the number of a new descriptor of File,
// closed on execve, or, where File is nil, Errno.
type Answer struct {
	File  *os.File
	Errno syscall.Errno
}

// Serve gives calls that a filter notifies of the answers of f, one after the
// other, until no process has the filter any more (nil) or ctx ends (its
// error). What a call's pointers lead to may change while it is looked at: an
// answer must be right for whatever the process could have asked for. listener
// stays the caller's. Once it is closed, such calls fail with ENOSYS.
//
// A descriptor as an answer needs Linux 5.14.
func Serve(ctx context.Context, listener *os.File, f func(Call) Answer) error {
	return serve(ctx, listener, func(fd int, n *notification) error {
		pid, data := n.call()
		a := f(Call{pid, data})
		var err error
		if a.File == nil {
			err = n.deny(fd, a.Errno)
		} else {
			err = n.give(fd, a.File)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("seccomp: answer a notification: %w", err)
		}
		return nil
	})
}

// serve receives notifications and calls answer for each.
func serve(ctx context.Context, listener *os.File, answer func(fd int, n *notification) error) error {
	defer runtime.KeepAlive(listener)
	requests, responses, err := notifSizes()
	if err != nil {
		return fmt.Errorf("seccomp: ask for the size of notifications: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("seccomp: make an eventfd: %w", err)
	}
	defer unix.Close(wake)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken // before wake is closed
		}
	}()

	n := newNotification(requests, responses)
	fds := []unix.PollFd{
		{Fd: int32(listener.Fd()), Events: unix.POLLIN},
		{Fd: int32(wake), Events: unix.POLLIN},
	}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("seccomp: wait for a notification: %w", err)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case fds[0].Revents&unix.POLLIN != 0:
			switch err := n.receive(int(fds[0].Fd)); {
			case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR):
				continue // the thread was killed meanwhile
			case err != nil:
				return fmt.Errorf("seccomp: receive a notification: %w", err)
			}
			if err := answer(int(fds[0].Fd), n); err != nil {
				return err
			}
		case fds[0].Revents&unix.POLLHUP != 0:
			return nil
		case fds[0].Revents&unix.POLLNVAL != 0:
			return errors.New("seccomp: wait for a notification: the listener is closed")
		}
		// POLLERR is no end: a signal came, such as those by which Go's runtime
		// preempts a thread, while another process held the filter's lock
		// (seccomp_notify_poll in kernel/seccomp.c of Linux 6.18).
	}
}

// answer handles one notification.
func (r *Reporter) answer(fd int, n *notification, b *budget) error {
	pid, data := n.call()
	errno := syscall.EPERM
	if v, err := r.original.Run(data); err == nil && v.Action() == Errno {
		errno = v.Errno()
	}
	if b.take(time.Now()) {
		r.report(Denied{
			PID: pid, Name: SyscallName(data.Arch, data.NR), Arch: data.Arch, NR: data.NR, Args: data.Args,
			Errno: errno, Suppressed: r.suppressed.Swap(0),
		})
	} else {
		r.suppressed.Add(1)
	}
	if err := n.deny(fd, errno); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("seccomp: answer a notification: %w", err)
	}
	return nil
}

// A budget allows a number of reports in each second.
type budget struct {
	limit int
	start time.Time
	used  int
}

func (b *budget) take(now time.Time) bool {
	if now.Sub(b.start) >= time.Second {
		b.start, b.used = now, 0
	}
	b.used++
	return b.used <= b.limit
}

// CheckListener refuses a profile that would stop the container's own start:
// between the installation of the filter and the moment when the listener has
// been handed over, the first process must write to a pipe, and nobody could
// answer if that notified. Such profiles have NOTIFY as the default action, or
// for write. runc draws the same line.
func CheckListener(s *specs.LinuxSeccomp) error {
	if s.DefaultAction == specs.ActNotify {
		return errors.New("seccomp: SCMP_ACT_NOTIFY cannot be the default action: nobody could answer before the listener is handed over")
	}
	for _, sc := range s.Syscalls {
		if sc.Action == specs.ActNotify && slices.Contains(sc.Names, "write") {
			return errors.New("seccomp: SCMP_ACT_NOTIFY cannot be used for write: nobody could answer before the listener is handed over")
		}
	}
	return nil
}
