package meter

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// mapped is how many pages one turn of calls.map has.
const mapped = 64

// callFigures go without Go's poller and scheduler: descriptors block, and both
// ends of a conversation have a thread each.
var callFigures = []figure{
	{id: "calls.getpid", unit: report.Seconds, each: 1, prepare: getpid},
	{id: "calls.file", unit: report.Seconds, each: 1, prepare: openFile},
	{id: "calls.futex", unit: report.Seconds, each: 1, prepare: wakeUp},
	{id: "calls.map", unit: report.Seconds, each: mapped, prepare: mapPages},
	{id: "calls.spawn", unit: report.Seconds, each: 1, prepare: spawn},
	{id: "calls.pipe", unit: report.Seconds, each: 1, prepare: pipe},
	{id: "calls.tcp", unit: report.Seconds, each: 1, prepare: tcp},
}

func getpid(*rig) (func(int) error, error) {
	return func(n int) error {
		for range n {
			unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		}
		return nil
	}, nil
}

// smallFiles are those of which most images have one.
var smallFiles = []string{"/etc/passwd", "/etc/group", "/etc/os-release", "/usr/lib/os-release", "/etc/profile"}

// openFile opens, reads and closes a small file of the image, or one in the
// directory if the image has none.
func openFile(r *rig) (func(int) error, error) {
	n := slices.IndexFunc(smallFiles, func(path string) bool {
		var st unix.Stat_t
		return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 && unix.Access(path, unix.R_OK) == nil
	})
	path := ""
	if n >= 0 {
		path = smallFiles[n]
	} else {
		path = r.name()
		if err := os.WriteFile(path, make([]byte, 1024), 0o600); err != nil {
			return nil, err
		}
		r.later(func() { os.Remove(path) })
	}
	buf := make([]byte, 4096)
	return func(n int) error {
		for range n {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return &os.PathError{Op: "open", Path: path, Err: err}
			}
			_, err = unix.Read(fd, buf)
			unix.Close(fd)
			if err != nil {
				return &os.PathError{Op: "read", Path: path, Err: err}
			}
		}
		return nil
	}, nil
}

// wakeUp has two threads wake each other. Each waits at a word of its own until it
// is not 0; 2 ends the partner.
func wakeUp(r *rig) (func(int) error, error) {
	var here, there uint32
	var failed atomic.Pointer[error]
	wait := func(word *uint32) uint32 {
		for {
			if v := atomic.SwapUint32(word, 0); v != 0 {
				return v
			}
			if err := futexWait(word, 0); err != nil {
				failed.Store(&err)
				return 2
			}
		}
	}
	wake := func(word *uint32, v uint32) {
		atomic.StoreUint32(word, v)
		futexWake(word)
	}
	if err := futexWait(&here, 1); err != nil { // not 1: it returns at once
		return nil, err
	}
	r.partner(func() bool {
		v := wait(&there)
		wake(&here, v)
		return v != 2
	})
	r.later(func() { wake(&there, 2) })
	return func(n int) error {
		for range n {
			wake(&there, 1)
			if wait(&here) != 1 {
				return *failed.Load()
			}
		}
		return nil
	}, nil
}

func mapPages(*rig) (func(int) error, error) {
	return func(n int) error {
		for range n {
			if err := mapAndTouch(mapped); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// spawn has this program started, which ends at once.
func spawn(r *rig) (func(int) error, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	files := []uintptr{0, 1, 2}
	if err == nil {
		r.later(func() { unix.Close(null) })
		files = []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	}
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: files}
	args := []string{r.program, "exit"}
	return func(n int) error {
		for range n {
			pid, err := syscall.ForkExec(r.program, args, attr)
			if err != nil {
				return &os.PathError{Op: "fork and execve", Path: r.program, Err: err}
			}
			var ws unix.WaitStatus
			for {
				if _, err = unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
					break
				}
			}
			if err != nil {
				return os.NewSyscallError("wait4", err)
			}
			if !ws.Exited() || ws.ExitStatus() != 0 {
				return fmt.Errorf("%s exit ends with status %#x", r.program, uint32(ws))
			}
		}
		return nil
	}, nil
}

// pipe sends one byte through a pipe to another thread and gets it through another.
func pipe(r *rig) (func(int) error, error) {
	var to, from [2]int
	if err := unix.Pipe2(to[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	r.later(func() { unix.Close(to[0]) })
	stop := func() { unix.Close(to[1]) }
	if err := unix.Pipe2(from[:], unix.O_CLOEXEC); err != nil {
		stop()
		return nil, os.NewSyscallError("pipe2", err)
	}
	r.later(func() { unix.Close(from[0]); unix.Close(from[1]) })
	r.partner(func() bool { return relay(to[0], from[1]) == nil })
	r.later(stop)
	return conversation(from[0], to[1]), nil
}

// tcp does the same over a connection on the loopback interface.
func tcp(r *rig) (func(int) error, error) {
	socket := func() (int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, os.NewSyscallError("socket", err)
		}
		r.later(func() { unix.Close(fd) })
		return fd, limit(fd)
	}
	l, err := socket()
	if err != nil {
		return nil, err
	}
	address, err := listenLoopback(l)
	if err != nil {
		return nil, err
	}
	ours, err := socket()
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(ours, address); err != nil {
		return nil, os.NewSyscallError("connect 127.0.0.1", err)
	}
	theirs, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("accept4", err)
	}
	r.later(func() { unix.Close(theirs) })
	for _, fd := range []int{ours, theirs} {
		if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), limit(fd)); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	r.partner(func() bool { return relay(theirs, theirs) == nil })
	r.later(func() { _ = unix.Shutdown(ours, unix.SHUT_RDWR) })
	return conversation(ours, ours), nil
}

// listenLoopback has a socket take one connection at a time on 127.0.0.1, and returns
// where. Errors are of bind(2), listen(2) and getsockname(2).
func listenLoopback(fd int) (unix.Sockaddr, error) {
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, os.NewSyscallError("bind 127.0.0.1", err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	address, err := unix.Getsockname(fd)
	return address, os.NewSyscallError("getsockname", err)
}

// limit bounds what one call on a socket may take.
func limit(fd int) error {
	most := unix.Timeval{Sec: 10}
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &most),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &most))
}

// conversation sends one byte and waits for it to come back.
func conversation(from, to int) func(int) error {
	return func(n int) error {
		b := []byte{0}
		for range n {
			if _, err := unix.Write(to, b); err != nil {
				return os.NewSyscallError("write", err)
			}
			if err := readByte(from, b); err != nil {
				return err
			}
		}
		return nil
	}
}

func relay(from, to int) error {
	b := []byte{0}
	if err := readByte(from, b); err != nil {
		return err
	}
	_, err := unix.Write(to, b)
	return err
}

// readByte goes on where Go's runtime interrupted it.
func readByte(fd int, b []byte) error {
	for {
		switch n, err := unix.Read(fd, b[:1]); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return errors.New("read: the other end is gone")
		default:
			return nil
		}
	}
}
