package launch

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A child may be killed between any two of its steps: by the kernel when the
// cgroup's memory runs out, by the container that it is about to enter, by
// anybody. Mostly the status pipe then ends and the host sees it. It does not
// end while another process holds it: the first process, when the stage dies
// between the fork and the message about it, or the host itself before the
// mounter is forked. So whoever waits long looks whether its children live.

// lostChild is the error number of a record that the host sends to itself.
const lostChild = 1 << 17

// watchEvery is how often the host looks while it waits.
const watchEvery = 250 * time.Millisecond

// record reads a record, and fails with ErrChildDied when none can come.
func (x *execution) record() (value, errno uint64, err error) {
	x.mu.Lock()
	if x.aborted {
		x.mu.Unlock()
		return 0, 0, ErrChildDied
	}
	x.awaiting = true
	x.mu.Unlock()
	quit := make(chan struct{})
	defer close(quit)
	timer := time.AfterFunc(watchEvery, func() { x.watch(quit) })
	defer timer.Stop()
	fd := int(x.m.values[x.p.statusRead])
	waitReadable(fd)
	// Taken and known to be taken in one: on a busy machine a long time can pass
	// between the two, in which the pipe is empty and a child that told has ended.
	x.mu.Lock()
	value, errno, err = readRecord(fd)
	x.awaiting = false
	x.mu.Unlock()
	if err == nil && errno == lostChild {
		err = ErrChildDied
	}
	return value, errno, err
}

// waitReadable returns when a read does not wait: there is a record, or the end.
func waitReadable(fd int) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return // the read tells of any other error
		}
	}
}

// watch ends the program when a child has died without a word, at the second
// look: one that told and then ended has left its message in the pipe.
func (x *execution) watch(quit <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for found := 0; ; {
		if x.childLost() {
			if found++; found >= 2 && x.abortLost() {
				return
			}
		} else {
			found = 0
		}
		select {
		case <-quit:
			return
		case <-tick.C:
		}
	}
}

func (x *execution) childLost() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lost()
}

// lost tells whether a child has ended and left no message. The caller holds mu.
func (x *execution) lost() bool {
	if !x.awaiting || x.sealed {
		return false
	}
	n, err := unix.IoctlGetInt(int(x.m.values[x.p.statusRead]), unix.TIOCINQ) // FIONREAD
	if err != nil || n > 0 {
		return false
	}
	for _, pid := range x.children {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err == nil && info.Signo != 0 {
			return true
		}
	}
	return false
}

// forget is called before a child is reaped.
func (x *execution) forget(pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, c := range x.children {
		if c == pid {
			x.children = append(x.children[:i], x.children[i+1:]...)
			return
		}
	}
}

// seal makes the program's success final. It reports false when the program
// was aborted before.
func (x *execution) seal() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sealed = !x.aborted
	return x.sealed
}

// abort kills the children and wakes the host's thread, which may be waiting
// for a message.
func (x *execution) abort() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.kill()
}

// abortLost is abort if a child is lost still, and reports whether. Nothing
// changes in between.
func (x *execution) abortLost() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	lost := x.lost()
	if lost {
		x.kill()
	}
	return lost
}

// kill is abort for who holds mu.
func (x *execution) kill() {
	if x.sealed {
		return
	}
	x.aborted = true
	for _, pid := range x.children {
		unix.Kill(pid, unix.SIGKILL)
	}
	if !x.awaiting {
		return
	}
	// The pipe may have other writers, and the host's own end may be closed.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(x.m.values[x.p.statusRead])), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return // the end of the pipe wakes it
	}
	defer unix.Close(fd)
	var b [recordSize]byte
	binary.NativeEndian.PutUint64(b[8:], lostChild)
	unix.Write(fd, b[:])
}

// cleanUp ends the children of a failed program and closes its descriptors.
func (x *execution) cleanUp() {
	x.abort()
	x.mu.Lock()
	children := x.children
	x.children, x.sealed = nil, true
	x.mu.Unlock()
	// Closed first: a child that nobody knows of sees the end of its pipe.
	x.closeAll()
	known := map[int]bool{}
	for _, pid := range children {
		known[pid] = true
		reap(pid)
	}
	for _, pid := range x.orphans(known) {
		unix.Kill(pid, unix.SIGKILL)
		reap(pid)
	}
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

func (x *execution) closeAll() {
	for _, s := range x.p.Steps {
		if s.Actor != Host || !s.fd {
			continue
		}
		if s.kind == given && x.m.values[s.Save] == 0 {
			x.m.values[s.Save] = s.value // the program did not come this far
		}
		if fd := x.m.values[s.Save]; fd != closedFD && fd != 0 {
			unix.Close(int(fd))
			x.m.values[s.Save] = closedFD
		}
	}
}

// orphans finds children whose parent died before it could tell of them: those
// that this thread, which nobody else forks from meanwhile, has got since the
// program began.
func (x *execution) orphans(known map[int]bool) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid()))
	if err != nil {
		return nil // a kernel without CONFIG_PROC_CHILDREN: it ends, unreaped
	}
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(f)
		if err == nil && !known[pid] && startTicks(pid) >= x.began {
			out = append(out, pid)
		}
	}
	return out
}

// ticksPerSecond is USER_HZ, the same on every architecture that Go knows.
const ticksPerSecond = 100

// bootTicks is the time since boot in the unit of proc_pid_stat(5).
func bootTicks() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return ^uint64(0)
	}
	return uint64(t.Sec)*ticksPerSecond + uint64(t.Nsec)/(1e9/ticksPerSecond)
}

// startTicks is when a process began, 0 if it is gone: field 22 of
// proc_pid_stat(5).
func startTicks(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}
