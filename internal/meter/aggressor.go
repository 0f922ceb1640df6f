package meter

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// What an aggressor takes at most, whatever limits it: no machine goes down by it.
const (
	maxSpinners  = 64
	readFileSize = 192 // MiB, read again and again: more than AggressorMemory
	touchedSize  = 4   // MiB, touched and given back
	dirtyFile    = 256 // MiB, written again and again
	maxChildren  = 64  // at once
	churned      = 64  // files at once

	// AggressorMemory is the limit, in MiB, that has the kernel take back what the
	// aggressor of memory has read: it reads more than that.
	AggressorMemory = 128
	// MaxAggression is how long an aggressor that nobody ends goes on.
	MaxAggression = 5 * time.Minute
)

// aggressor is a neighbour that takes as much as it gets of one thing.
type aggressor struct {
	kind string
	what string // its work is counted in
	// everywhere: one for each processor, and not one in all.
	everywhere bool
	// prepare returns what one turn of it does: how much was done, and how often it was
	// refused, by a limit.
	prepare func(r *rig) (turn func() (done, refused int, err error), err error)
}

// AggressorIdle is the kind that does nothing: what a victim feels of it is noise.
const AggressorIdle = "idle"

// aggressors are all.
var aggressors = []aggressor{
	{kind: AggressorIdle, what: "naps", prepare: nap},
	{kind: "cpu", what: "blocks of 64 KiB hashed", everywhere: true, prepare: spin},
	{kind: "memory", what: "MiB read and touched", prepare: reclaim},
	{kind: "forks", what: "processes forked", prepare: forks},
	{kind: "dirty", what: "MiB written", prepare: dirty},
	{kind: "inodes", what: "files made and removed", prepare: inodes},
	{kind: "connections", what: "connections", prepare: connections},
}

// AggressorKinds are the kinds of all.
func AggressorKinds() (all []string) {
	for _, a := range aggressors {
		all = append(all, a.kind)
	}
	return all
}

// Work is what an aggressor has done when it ends.
type Work struct {
	Kind string `json:"kind"`
	// Unit is what Done counts, "files made and removed"; Refused is how often a limit
	// was in the way.
	Unit    string  `json:"unit"`
	Done    int64   `json:"done"`
	Refused int64   `json:"refused,omitempty"`
	Seconds float64 `json:"seconds"` // since it had begun
	// Told: it was told to end, and did not end on its own.
	Told bool `json:"told,omitempty"`
	// Error is why it could not do its work, or not go on with it.
	Error string `json:"error,omitempty"`
}

// Encode returns one line of JSON.
func (w *Work) Encode() ([]byte, error) { return line(w) }

// DecodeWork reads a line that Encode wrote. An error wraps report.ErrMalformed.
func DecodeWork(b []byte) (*Work, error) {
	var w Work
	if err := decodeLine(b, &w); err != nil {
		return nil, err
	}
	if !slices.Contains(AggressorKinds(), w.Kind) || w.Done < 0 || w.Refused < 0 || !(w.Seconds >= 0) || math.IsInf(w.Seconds, 0) {
		return nil, fmt.Errorf("%w: an aggressor %.20q did %d, was refused %d in %v seconds", report.ErrMalformed, w.Kind, w.Done, w.Refused, w.Seconds)
	}
	return &w, checkTexts(w.Unit, w.Error)
}

// Aggress is an aggressor of a kind until in ends, or for so long at most. It says
// that it has begun after its first turn, and at the end what it has done; where it
// could not begin, the latter alone.
func Aggress(kind string, in io.Reader, out io.Writer, dir string, most time.Duration) error {
	i := slices.IndexFunc(aggressors, func(a aggressor) bool { return a.kind == kind })
	if i < 0 {
		return fmt.Errorf("%q is none of the aggressors %s", kind, strings.Join(AggressorKinds(), ", "))
	}
	a := &aggressors[i]
	var told atomic.Bool
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // whatever ends it, nobody is there
		told.Store(true)
		close(ended)
	}()
	w := a.work(dir, ended, time.Now().Add(most), func() error {
		_, err := io.WriteString(out, Begun+"\n")
		return err
	})
	w.Told = told.Load()
	b, err := w.Encode()
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

// work has the aggressor at work until the deadline, or until the channel is closed.
func (a *aggressor) work(dir string, ended <-chan struct{}, deadline time.Time, begun func() error) *Work {
	threads := 1
	if a.everywhere {
		threads = min(runtime.NumCPU(), maxSpinners)
	}
	runtime.GOMAXPROCS(threads + 2) // so that its end is heard of
	spareThreads(threads + 6)
	var done, refused atomic.Int64
	var start time.Time
	var once, failing sync.Once
	var failure error
	stop := make(chan struct{})
	fail := func(err error) {
		failing.Do(func() {
			failure = err
			close(stop)
		})
	}
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r := &rig{dir: dir}
			defer r.close()
			turn, err := a.prepare(r)
			for err == nil {
				var n, no int
				n, no, err = turn()
				done.Add(int64(n))
				refused.Add(int64(no))
				if err != nil {
					break
				}
				once.Do(func() {
					start = time.Now()
					err = begun()
				})
				select {
				case <-ended:
					return
				case <-stop:
					return
				default:
					if time.Now().After(deadline) {
						return
					}
				}
			}
			fail(err)
		})
	}
	all.Wait()
	w := &Work{Kind: a.kind, Unit: a.what, Done: done.Load(), Refused: refused.Load()}
	if !start.IsZero() {
		w.Seconds = time.Since(start).Seconds()
	}
	if failure != nil {
		w.Error = clean(failure.Error())
	}
	return w
}

// spareThreads has the runtime make threads while it can: one that finds a limit of
// processes in its way when it needs another thread ends the program.
func spareThreads(n int) {
	var ready, ended sync.WaitGroup
	ready.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			ready.Wait()
		})
	}
	ended.Wait()
}

func nap(*rig) (func() (int, int, error), error) {
	return func() (int, int, error) {
		time.Sleep(10 * time.Millisecond)
		return 1, 0, nil
	}, nil
}

func spin(r *rig) (func() (int, int, error), error) {
	turns, err := hash(r)
	return func() (int, int, error) { return 1, 0, turns(1) }, err
}

// reclaim reads a file again and again, and touches memory. Where both are more than
// the limit of memory, the kernel takes back a part of the file each time.
func reclaim(r *rig) (func() (int, int, error), error) {
	fd, size, err := r.file(readFileSize)
	if err != nil {
		return nil, err
	}
	if size < readFileSize {
		return nil, fmt.Errorf("a file may have %d MiB there, of %d that are read: files are memory, or there is no room", size, readFileSize)
	}
	block := content()
	for i := range size {
		if err := writeAll(fd, block, int64(i)*mebibyte); err != nil {
			return nil, err
		}
	}
	if err := unix.Fsync(fd); err != nil { // what is not written cannot be taken back
		return nil, os.NewSyscallError("fsync", err)
	}
	next := 0
	pages := touchedSize * mebibyte / os.Getpagesize()
	return func() (int, int, error) {
		for range touchedSize {
			if err := readAll(fd, block, int64(next)*mebibyte); err != nil {
				return 0, 0, err
			}
			next = (next + 1) % size
		}
		return 2 * touchedSize, 0, mapAndTouch(pages)
	}, nil
}

// forks makes processes up to a limit, ours or one of the environment, and ends them.
func forks(*rig) (func() (int, int, error), error) {
	children := make([]int, 0, maxChildren)
	return func() (n, refused int, err error) {
		children = children[:0]
		defer func() { err = errors.Join(err, endChildren(children)) }()
		for len(children) < maxChildren {
			pid, errno := fork()
			switch {
			case errno == 0:
				children = append(children, pid)
				continue
			case (errno == unix.EAGAIN || errno == unix.ENOMEM) && len(children) > 0:
				refused++
			default:
				return 0, refused, os.NewSyscallError("fork", errno)
			}
			break
		}
		return len(children), refused, nil
	}, nil
}

func endChildren(pids []int) error {
	var errs []error
	// By raw calls: while one of the others waits the runtime may want another thread.
	for _, pid := range pids {
		if _, _, errno := unix.RawSyscall(unix.SYS_KILL, uintptr(pid), uintptr(unix.SIGKILL), 0); errno != 0 {
			errs = append(errs, os.NewSyscallError("kill", errno))
		}
	}
	for _, pid := range pids {
		for {
			_, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(pid), 0, 0, 0, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 {
				errs = append(errs, os.NewSyscallError("wait4", errno))
			}
			break
		}
	}
	return errors.Join(errs...)
}

// fork makes a process that waits to be killed, by its parent or with it. It does not
// execute anything: in the child only this thread is there, and Go's runtime is not
// entered.
//
//go:nosplit
//go:norace
func fork() (pid int, errno unix.Errno) {
	p, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || p != 0 {
		return int(p), errno
	}
	unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	for {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// dirty writes a file again and again, and leaves to the kernel when it is stored.
func dirty(r *rig) (func() (int, int, error), error) {
	fd, size, err := r.file(dirtyFile)
	if err != nil {
		return nil, err
	}
	block, next := content(), 0
	return func() (int, int, error) {
		err := writeAll(fd, block, int64(next)*mebibyte)
		next = (next + 1) % size
		return 1, 0, err
	}, nil
}

// inodes makes empty files and removes them.
func inodes(r *rig) (func() (int, int, error), error) {
	names := make([]string, churned)
	for i := range names {
		names[i] = r.name()
	}
	r.later(func() {
		for _, name := range names {
			_ = unix.Unlink(name) // there are some only after a failure
		}
	})
	return func() (int, int, error) {
		for _, name := range names {
			fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
			if err == nil {
				err = unix.Close(fd)
			}
			if err != nil {
				return 0, 0, &os.PathError{Op: "open", Path: name, Err: err}
			}
		}
		for _, name := range names {
			if err := unix.Unlink(name); err != nil {
				return 0, 0, &os.PathError{Op: "unlink", Path: name, Err: err}
			}
		}
		return churned, 0, nil
	}, nil
}

// connections makes connections of loopback and ends them, by a reset: one that is
// closed politely keeps its port for a minute (tcp(7), TIME-WAIT).
func connections(r *rig) (func() (int, int, error), error) {
	server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	r.later(func() { unix.Close(server) })
	addr, err := listenLoopback(server)
	if err != nil {
		return nil, err
	}
	return func() (int, int, error) { return 1, 0, connectOnce(server, addr) }, nil
}

func connectOnce(server int, addr unix.Sockaddr) (err error) {
	reset := func(fd int) {
		e := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		err = errors.Join(err, os.NewSyscallError("setsockopt", e), os.NewSyscallError("close", unix.Close(fd)))
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer reset(client)
	if err := unix.Connect(client, addr); err != nil {
		return os.NewSyscallError("connect", err)
	}
	peer, _, err := unix.Accept4(server, unix.SOCK_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("accept4", err)
	}
	reset(peer)
	return err
}
