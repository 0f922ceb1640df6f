package launch

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// rawResult is a Result in shared memory. ended is written last.
type rawResult struct {
	value, errno uintptr
	ended        uintptr
}

const resultSize = unsafe.Sizeof(rawResult{})

func readResult(mem []byte, n int) Result {
	r := (*rawResult)(unsafe.Pointer(&mem[uintptr(n)*resultSize]))
	if atomic.LoadUintptr(&r.ended) == 0 {
		return Result{}
	}
	return Result{Ended: true, Value: r.value, Errno: syscall.Errno(r.errno)}
}

// forkAndRecord performs clone with flags. The child makes the calls and never
// returns; forkAndWalk says what it must not do meanwhile.
//
// Preconditions: the calling goroutine is locked to its thread, and mem has room
// for a result of each trial.
//
//go:norace
//go:nocheckptr
//go:nosplit
//go:noinline
func forkAndRecord(flags uintptr, trials []Trial, mem []byte) (pid uintptr, err syscall.Errno) {
	first := unsafe.Pointer(unsafe.SliceData(trials))
	n := uintptr(len(trials))
	results := unsafe.Pointer(unsafe.SliceData(mem))
	beforeFork()
	pid, _, err = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if err != 0 || pid != 0 {
		afterFork()
		return pid, err
	}
	afterForkInChild()
	for i := uintptr(0); i < n; i++ {
		t := (*Trial)(unsafe.Add(first, i*unsafe.Sizeof(Trial{})))
		r := (*rawResult)(unsafe.Add(results, i*resultSize))
		if t.I386 {
			v := int32(int80(uintptr(t.Call), t.Args[0], t.Args[1], t.Args[2]))
			if v < 0 && v >= -4095 {
				r.errno = uintptr(-v)
			} else {
				r.value = uintptr(v)
			}
		} else {
			v, _, e := syscall.RawSyscall6(uintptr(t.Call), t.Args[0], t.Args[1], t.Args[2], t.Args[3], t.Args[4], t.Args[5])
			if e != 0 {
				r.errno = uintptr(e)
			} else {
				r.value = v
			}
		}
		r.ended = 1
		if t.Must && r.errno != uintptr(t.Errno) {
			break
		}
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
