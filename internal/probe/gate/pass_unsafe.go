package gate

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// names are those of the calls of install, and of the one that secondPass adds.
var names = []string{"prctl(PR_SET_NO_NEW_PRIVS)", "seccomp", "write"}

// tracedNames are those of thirdPass.
var tracedNames = []string{"read", "prctl(PR_SET_NO_NEW_PRIVS)", "seccomp"}

// install are the calls that put a filter in force in a child. What they point to
// is the caller's to pin.
func install(f *unix.SockFprog, flags uintptr) []launch.Trial {
	return []launch.Trial{
		{Call: unix.SYS_PRCTL, Args: [6]uintptr{unix.PR_SET_NO_NEW_PRIVS, 1}},
		{Call: unix.SYS_SECCOMP, Args: [6]uintptr{unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(f))}},
	}
}

// attempt is what a child points to: its filter, and the letter that it sends.
type attempt struct {
	program []unix.SockFilter
	filter  unix.SockFprog
	letter  [1]byte
}

// newAttempt makes one that neither moves nor goes until pin is released.
func newAttempt(pin *runtime.Pinner, verdict uint32, fd int) *attempt {
	a := &attempt{program: program(verdict, fd), letter: [1]byte{'i'}}
	a.filter = unix.SockFprog{Len: uint16(len(a.program)), Filter: &a.program[0]}
	pin.Pin(a)
	pin.Pin(&a.program[0])
	return a
}

// firstPass tries calls behind a filter that lets none pass: ENOSYS.
func firstPass(calls []Call) ([]launch.Result, unix.WaitStatus, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	a := newAttempt(&pin, unix.SECCOMP_RET_TRACE, -1)
	r, err := launch.Record(0, trials(install(&a.filter, 0), unix.ENOSYS, calls))
	if err != nil {
		return nil, 0, err
	}
	got, ws, err := r.Wait()
	if err != nil {
		return nil, 0, err
	}
	got, err = installed(names[:2], unix.ENOSYS, got)
	return got, ws, err
}

// secondPass tries calls behind a filter that asks this process, which answers
// with ours. The child writes a letter to a pipe when the filter is in force; the
// listener is then this process's descriptor, too: they share the table.
func secondPass(calls []Call) ([]launch.Result, unix.WaitStatus, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	var pin runtime.Pinner
	defer pin.Unpin()
	a := newAttempt(&pin, unix.SECCOMP_RET_USER_NOTIF, pipe[1])
	r, err := launch.Record(unix.CLONE_FILES, trials(append(install(&a.filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER),
		launch.Trial{Call: unix.SYS_WRITE, Args: [6]uintptr{uintptr(pipe[1]), uintptr(unsafe.Pointer(&a.letter[0])), 1}}), ours, calls))
	if err != nil {
		return nil, 0, err
	}
	type end struct {
		got []launch.Result
		ws  unix.WaitStatus
		err error
	}
	ended := make(chan end, 1)
	go func() {
		var e end
		e.got, e.ws, e.err = r.Wait()
		ended <- e
		_, _ = unix.Write(pipe[1], []byte{'e'}) // it cannot fail: both ends are ours
	}()
	if _, err = unix.Read(pipe[0], make([]byte, 1)); err == nil {
		if l := r.Result(1); l.Ended && l.Errno == 0 {
			err = answer(int(l.Value), pipe[0])
			unix.Close(int(l.Value)) // calls that nobody answers fail with ENOSYS
		}
	}
	e := <-ended
	if err != nil {
		return nil, 0, err
	}
	if e.err != nil {
		return nil, 0, e.err
	}
	e.got, e.err = installed(names, ours, e.got)
	return e.got, e.ws, e.err
}

// thirdPass tries calls behind a filter that asks a tracer, this thread, which makes
// no call of each, with ours for its error. The child waits to be traced.
func thirdPass(calls []Call) ([]launch.Result, unix.WaitStatus, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	var pin runtime.Pinner
	defer pin.Unpin()
	a := newAttempt(&pin, unix.SECCOMP_RET_TRACE, -1)
	wait := launch.Trial{Call: unix.SYS_READ, Args: [6]uintptr{uintptr(pipe[0]), uintptr(unsafe.Pointer(&a.letter[0])), 1}}
	runtime.LockOSThread() // a tracer is a thread (ptrace(2))
	defer runtime.UnlockOSThread()
	r, err := launch.Record(0, trials(append([]launch.Trial{wait}, install(&a.filter, 0)...), ours, calls))
	if err != nil {
		return nil, 0, err
	}
	if err = seize(r.PID()); err != nil {
		_ = r.Kill() // it exists until it is waited for
	} else {
		_, err = unix.Write(pipe[1], a.letter[:])
	}
	got, ws, waited := r.WaitTraced(func(ws unix.WaitStatus) error {
		if ws.StopSignal() == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP {
			if err := takeAway(r.PID()); err != nil {
				return err
			}
			return os.NewSyscallError("ptrace(PTRACE_CONT)", unix.PtraceCont(r.PID(), 0))
		}
		return os.NewSyscallError("ptrace(PTRACE_CONT)", unix.PtraceCont(r.PID(), int(ws.StopSignal())))
	})
	if err := errors.Join(err, waited); err != nil {
		return nil, 0, err
	}
	got, err = installed(tracedNames, ours, got)
	return got, ws, err
}

// seize has this thread trace a process, which stops where a filter says so and is
// killed when this thread ends.
func seize(pid int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, unix.PTRACE_O_TRACESECCOMP|unix.PTRACE_O_EXITKILL, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("ptrace(PTRACE_SEIZE)", errno)
	}
	return nil
}

// answer answers every call with ours until something can be read from end.
func answer(listener, end int) error {
	sizes, err := notifSizes()
	if err != nil {
		return err
	}
	request, response := make([]uint64, (sizes.request+7)/8), make([]uint64, (sizes.response+7)/8)
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(end), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR { //nolint:errorlint // a bare error number
				continue
			}
			return os.NewSyscallError("poll", err)
		}
		if fds[1].Revents != 0 {
			return nil
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			if fds[0].Revents&unix.POLLHUP != 0 { // nobody is left to ask: wait for the end alone
				listener = -1
			}
			continue // else it is POLLERR, which says that a signal came
		}
		clear(request)
		clear(response)
		if err := notifIoctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, request); err != nil {
			if err == unix.ENOENT || err == unix.EINTR { //nolint:errorlint // bare error numbers; the asker is gone
				continue
			}
			return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", err)
		}
		// struct seccomp_notif begins with the number of the request; struct
		// seccomp_notif_resp has it, a value, and the error with flags behind it.
		response[0] = request[0]
		*(*int32)(unsafe.Pointer(&response[2])) = -int32(ours)
		if err := notifIoctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, response); err != nil && err != unix.ENOENT { //nolint:errorlint // a bare error number
			return os.NewSyscallError("ioctl(SECCOMP_IOCTL_NOTIF_SEND)", err)
		}
	}
}

// notifSize are the lengths of the kernel's structures in bytes: a later kernel
// may append fields, and writes that many (seccomp_unotify(2)).
type notifSize struct{ request, response int }

func notifSizes() (notifSize, error) {
	var sizes struct{ notif, resp, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return notifSize{}, os.NewSyscallError("seccomp(SECCOMP_GET_NOTIF_SIZES)", errno)
	}
	return notifSize{max(int(sizes.notif), 80), max(int(sizes.resp), 24)}, nil
}

func notifIoctl(fd int, request uintptr, buffer []uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&buffer[0])))
	runtime.KeepAlive(buffer)
	if errno != 0 {
		return errno
	}
	return nil
}
