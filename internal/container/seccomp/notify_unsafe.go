package seccomp

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seccompNotif is the kernel's struct seccomp_notif.
type seccompNotif struct {
	id    uint64
	pid   uint32
	flags uint32
	data  Data
}

// seccompNotifResp is the kernel's struct seccomp_notif_resp.
type seccompNotifResp struct {
	id    uint64
	val   int64
	errno int32 // negative
	flags uint32
}

// notifSizes asks the kernel how large its structures are: a later kernel may
// append fields, and writes that many bytes (seccomp_unotify(2)).
func notifSizes() (request, response int, err error) {
	var sizes struct{ notif, resp, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return 0, 0, errno
	}
	return max(int(sizes.notif), int(unsafe.Sizeof(seccompNotif{}))), max(int(sizes.resp), int(unsafe.Sizeof(seccompNotifResp{}))), nil
}

// A notification holds the buffers for one request and its response, as words
// so that they are aligned.
type notification struct {
	request, response []uint64
}

func newNotification(request, response int) *notification {
	return &notification{request: make([]uint64, (request+7)/8), response: make([]uint64, (response+7)/8)}
}

// receive reads the next notification. The buffer must be zero (since Linux
// 5.5).
func (n *notification) receive(fd int) error {
	clear(n.request)
	return notifIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, n.request)
}

// call returns the received call.
func (n *notification) call() (pid int, d Data) {
	req := (*seccompNotif)(unsafe.Pointer(&n.request[0]))
	return int(int32(req.pid)), req.data
}

// deny answers the received call with an error number.
func (n *notification) deny(fd int, errno syscall.Errno) error {
	clear(n.response)
	resp := (*seccompNotifResp)(unsafe.Pointer(&n.response[0]))
	resp.id = (*seccompNotif)(unsafe.Pointer(&n.request[0])).id
	resp.errno = -int32(errno)
	return notifIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, n.response)
}

// addfdSend makes the new descriptor the call's answer, at once: a call that was
// cancelled meanwhile gets none (Linux 5.14).
const addfdSend = 1 << 1 // SECCOMP_ADDFD_FLAG_SEND

// notifAddfd is the kernel's struct seccomp_notif_addfd.
type notifAddfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// give answers the received call with a descriptor of file. No signal may come
// meanwhile, such as those by which Go's runtime preempts a thread: it would take
// the descriptor back while the call counts as answered, and the call would return
// 0, a descriptor of something else (seccomp_notify_addfd in kernel/seccomp.c of
// Linux 6.18).
func (n *notification) give(fd int, file *os.File) error {
	conn, err := file.SyscallConn() // Fd would make it blocking
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return os.NewSyscallError("rt_sigprocmask", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) //nolint:errcheck // it was so before
	var errno syscall.Errno
	err = conn.Control(func(own uintptr) {
		a := notifAddfd{id: (*seccompNotif)(unsafe.Pointer(&n.request[0])).id, flags: addfdSend, srcfd: uint32(own), newfdFlags: unix.O_CLOEXEC}
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&a)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

func notifIoctl(fd int, request uintptr, buffer []uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&buffer[0])))
	runtime.KeepAlive(buffer)
	if errno != 0 {
		return errno
	}
	return nil
}
