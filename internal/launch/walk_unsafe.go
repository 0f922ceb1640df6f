package launch

import (
	"syscall"
	"unsafe"
)

// The runtime's own hooks around fork. The Go runtime keeps them reachable for
// gVisor; TestForkHooks notices a Go release that stops doing so.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// badResult stands in a failure record for a call that succeeded with another
// result than the one wanted.
const badResult = 1 << 16

// forkAndWalk performs one clone system call. In the parent it returns the
// child's process ID. The child walks list and never returns.
//
// The child is a copy of this process with one thread. Until it executes
// another program it must not allocate, grow its stack, take a lock or call
// anything that might: the rest of the Go runtime's threads do not exist
// there. So: no calls but raw system calls and walk, both nosplit, and none
// that a race or checkptr build adds.
//
// Preconditions: the calling goroutine is locked to its thread, and list with
// all it points to is reachable by the caller.
//
//go:norace
//go:nocheckptr
//go:nosplit
//go:noinline
func forkAndWalk(nr uintptr, args *[6]uintptr, list *rawList, m *memory, status uintptr) (pid uintptr, err syscall.Errno) {
	beforeFork()
	pid, _, err = syscall.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
	if err != 0 || pid != 0 {
		afterFork()
		return pid, err
	}
	afterForkInChild()
	for list != nil {
		list = walk(list, m, status)
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// walk performs the steps of one child. It returns the list of the child that
// a branch step made when it finds itself to be that child, nil at the end.
//
//go:norace
//go:nocheckptr
//go:nosplit
func walk(list *rawList, m *memory, status uintptr) *rawList {
	first := unsafe.Pointer(unsafe.SliceData(list.steps))
	n := uintptr(len(list.steps))
	for i := uintptr(0); i < n; i++ {
		s := (*rawStep)(unsafe.Add(first, i*unsafe.Sizeof(rawStep{})))
		if s.patch != nil {
			*s.patch = uint64(m.values[s.patchSlot])
		}
		for j := 0; j < 6; j++ {
			if s.from[j] != 0 {
				s.args[j] = m.values[s.from[j]]
			}
		}
		r, _, e := syscall.RawSyscall6(s.nr, s.args[0], s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
		if e != 0 {
			if tolerated(s, e) {
				continue
			}
			report(s.index, uint64(e), m, status)
		}
		if s.want >= 0 && uintptr(s.want) != r {
			report(s.index, badResult, m, status)
		}
		if s.branch != nil && r == 0 {
			return s.branch
		}
		m.values[s.save] = r // values[0] is nobody's
	}
	return nil
}

//go:norace
//go:nocheckptr
//go:nosplit
func tolerated(s *rawStep, e syscall.Errno) bool {
	for j := 0; j < len(s.tolerate); j++ {
		if s.tolerate[j] == uint32(e) {
			return true
		}
	}
	return false
}

// report sends the failure record and ends the child. A full or closed pipe
// changes nothing: the host sees the end of file.
//
//go:norace
//go:nocheckptr
//go:nosplit
func report(index, errno uint64, m *memory, status uintptr) {
	m.record[0] = index
	m.record[1] = errno
	syscall.RawSyscall(syscall.SYS_WRITE, status, uintptr(unsafe.Pointer(&m.record)), recordSize)
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 1, 0, 0)
	}
}
