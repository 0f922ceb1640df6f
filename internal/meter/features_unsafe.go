package meter

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// tryClone3 forks a child that does, and waits for the grandchild, which finds
// nobody to wait for.
func tryClone3(*trial) error {
	args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64 }{exitSignal: uint64(unix.SIGCHLD)}
	rec, err := launch.Record(0, []launch.Trial{
		{Call: unix.SYS_CLONE3, Args: [6]uintptr{uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args)}},
		{Call: unix.SYS_WAIT4, Args: [6]uintptr{^uintptr(0)}},
	})
	if err != nil {
		return at("clone", err)
	}
	results, _, err := rec.Wait()
	runtime.KeepAlive(&args)
	if err != nil {
		return at("wait4", err)
	}
	if !results[0].Ended {
		return wrong("clone3")
	}
	return errno(results[0].Errno)
}

func tryEpollPwait2(*trial) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return at("epoll_create1", err)
	}
	event, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return at("eventfd2", err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return at("epoll_ctl", err)
	}
	var events [1]unix.EpollEvent
	none := unix.Timespec{}
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(ep), uintptr(unsafe.Pointer(&events)), 1, uintptr(unsafe.Pointer(&none)), 0, 0)
	if e == 0 && n != 1 {
		return wrong("epoll_pwait2")
	}
	return errno(e)
}

// tryIoUring has a ring complete one entry that does nothing. The offsets are those
// of linux/io_uring.h.
func tryIoUring(*trial) error {
	const (
		entries                         = 4
		paramsSize                      = 120
		sqOffsets, cqOffsets            = 40, 80 // in the parameters
		ringTail, ringArray, ringCQEs   = 4, 24, 20
		mapSQ, mapCQ, mapSQEs           = 0, 0x8000000, 0x10000000
		sqeSize, sqeUserData, cqeResult = 64, 32, 8
		getEvents                       = 1
		number                          = 77
	)
	params := make([]byte, paramsSize)
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, entries, uintptr(unsafe.Pointer(&params[0])), 0)
	if e != 0 {
		return at("io_uring_setup", e)
	}
	field := func(at int) int { return int(binary.NativeEndian.Uint32(params[at:])) }
	ring := func(offset int64, size int) ([]byte, error) {
		b, err := unix.Mmap(int(fd), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		return b, at("mmap", err)
	}
	sq, err := ring(mapSQ, field(sqOffsets+ringArray)+4*entries)
	if err != nil {
		return err
	}
	cq, err := ring(mapCQ, field(cqOffsets+ringCQEs)+16*2*entries)
	if err != nil {
		return err
	}
	sqes, err := ring(mapSQEs, sqeSize*entries)
	if err != nil {
		return err
	}
	// The first entry is IORING_OP_NOP, 0, like the array that names it.
	binary.NativeEndian.PutUint64(sqes[sqeUserData:], number)
	binary.NativeEndian.PutUint32(sq[field(sqOffsets+ringTail):], 1)
	n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, 1, 1, getEvents, 0, 0)
	if e != 0 {
		return e
	}
	done := cq[field(cqOffsets+ringCQEs):]
	if n != 1 || binary.NativeEndian.Uint64(done) != number || binary.NativeEndian.Uint32(done[cqeResult:]) != 0 {
		return wrong("io_uring_enter(IORING_OP_NOP)")
	}
	return nil
}

func tryUserfaultfd(*trial) error {
	const userModeOnly, api, apiIoctl = 1, 0xaa, 0xc018aa3f // linux/userfaultfd.h
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|userModeOnly, 0, 0)
	if e != 0 {
		return at("userfaultfd", e)
	}
	args := struct{ api, features, ioctls uint64 }{api: api}
	_, _, e = unix.Syscall(unix.SYS_IOCTL, fd, apiIoctl, uintptr(unsafe.Pointer(&args)))
	return errno(e)
}

func tryProcessVMReadv(*trial) error {
	from, to := []byte("read"), make([]byte, 4)
	local := []unix.Iovec{{Base: &to[0]}}
	local[0].SetLen(len(to))
	n, err := unix.ProcessVMReadv(os.Getpid(), local, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&from[0])), Len: len(from)}}, 0)
	runtime.KeepAlive(from)
	if err == nil && (n != len(from) || !slices.Equal(from, to)) {
		return wrong("process_vm_readv")
	}
	return err
}

// registers reads those of a child that is traced and stopped.
func registers(pid int) error {
	var regs [1024]byte
	iov := unix.Iovec{Base: &regs[0]}
	iov.SetLen(len(regs))
	const prStatus = 1 // NT_PRSTATUS
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(pid), prStatus, uintptr(unsafe.Pointer(&iov)), 0, 0)
	return errno(e)
}

// tryMessageQueue makes a queue that loses its name at once.
func tryMessageQueue(*trial) error {
	const text = "sent"
	name, err := unix.BytePtrFromString("bulkhead-meter-" + rand.Text())
	if err != nil {
		return err
	}
	attr := struct{ flags, maxMessages, size, messages, _, _, _, _ int64 }{maxMessages: 1, size: 16}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK,
		0o600, uintptr(unsafe.Pointer(&attr)), 0, 0)
	if e != 0 {
		return at("mq_open", e)
	}
	if _, _, e := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0); e != 0 {
		return at("mq_unlink", e)
	}
	b := []byte(text)
	if _, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0); e != 0 {
		return at("mq_timedsend", e)
	}
	got := make([]byte, attr.size)
	n, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDRECEIVE, fd, uintptr(unsafe.Pointer(&got[0])), uintptr(len(got)), 0, 0, 0)
	if e == 0 && string(got[:n]) != text {
		return wrong("mq_timedreceive")
	}
	return errno(e)
}

// trySeccomp puts a filter in force on this thread that answers getppid(2), of which
// nobody has need here, with an error that it never has.
func trySeccomp(*trial) error {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load},
		{Code: equal, K: unix.SYS_GETPPID, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return at("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); e != unix.EXDEV {
		return wrong("prctl(PR_SET_SECCOMP)")
	}
	return nil
}

// tryLandlock takes reading directories from this thread.
func tryLandlock(*trial) error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_READ_DIR}
	// The first version knew the first field only.
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if e != 0 {
		return at("landlock_create_ruleset", e)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return at("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return e
	}
	if _, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); !errors.Is(err, unix.EACCES) {
		return wrong("landlock_restrict_self")
	}
	return nil
}

func tryBPF(*trial) error {
	const mapCreate, array = 0, 2 // linux/bpf.h
	attr := struct{ kind, keySize, valueSize, maxEntries, flags, inner, node uint32 }{kind: array, keySize: 4, valueSize: 4, maxEntries: 1}
	_, _, e := unix.Syscall(unix.SYS_BPF, mapCreate, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	return errno(e)
}

// tryPerf counts how long this thread runs.
func tryPerf(*trial) error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	b := make([]byte, 8)
	if _, err := unix.Read(fd, b); err != nil {
		return at("read", err)
	}
	if binary.NativeEndian.Uint64(b) == 0 {
		return wrong("perf_event_open")
	}
	return nil
}
