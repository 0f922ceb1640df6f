package meter

import (
	"bytes"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func tryOpenat2(*trial) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func tryStatx(*trial) error {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_TYPE, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return wrong("statx")
	}
	return nil
}

func tryCloseRange(*trial) error {
	const high = 400
	if err := unix.Dup3(1, high, unix.O_CLOEXEC); err != nil {
		return at("dup3", err)
	}
	if err := unix.CloseRange(high, high, 0); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(high, unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		return wrong("close_range")
	}
	return nil
}

// memory makes a file in memory that holds text.
func memory(text string, flags int) (int, error) {
	fd, err := unix.MemfdCreate("bulkhead-meter", unix.MFD_CLOEXEC|flags)
	if err != nil {
		return -1, at("memfd_create", err)
	}
	return fd, at("write", second(unix.Write(fd, []byte(text))))
}

func second(_ int, err error) error { return err }

func tryCopyFileRange(*trial) error {
	const text = "copied"
	from, err := memory(text, 0)
	if err != nil {
		return err
	}
	to, err := memory("", 0)
	if err != nil {
		return err
	}
	var start, end int64
	if _, err := unix.CopyFileRange(from, &start, to, &end, len(text), 0); err != nil {
		return err
	}
	return same("copy_file_range", to, text)
}

// same finds fault with a file that does not hold text.
func same(call string, fd int, text string) error {
	b := make([]byte, len(text)+1)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return at("pread64", err)
	}
	if string(b[:n]) != text {
		return wrong(call)
	}
	return nil
}

func tryMemfd(*trial) error {
	fd, err := memory("sealed", unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); !errors.Is(err, unix.EPERM) {
		return wrong("fcntl(F_ADD_SEALS)")
	}
	return nil
}

func tryMemfdSecret(*trial) error {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, 4096); err != nil {
		return at("ftruncate", err)
	}
	b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return at("mmap", err)
	}
	b[0] = 1
	return nil
}

func tryHugePages(*trial) error {
	const size = 2 << 20
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	if err != nil {
		return err
	}
	b[0] = 1
	return nil
}

func tryPidfdOpen(*trial) error {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return err
	}
	return at("pidfd_send_signal", unix.PidfdSendSignal(fd, 0, nil, 0))
}

func tryPidfdGetfd(*trial) error {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return at("pidfd_open", err)
	}
	const text = "fetched"
	file, err := memory(text, 0)
	if err != nil {
		return err
	}
	got, err := unix.PidfdGetfd(fd, file, 0)
	if err != nil {
		return err
	}
	return same("pidfd_getfd", got, text)
}

func tryUnix(*trial) error {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return at("socketpair(AF_UNIX)", err)
	}
	const text = "passed"
	file, err := memory(text, 0)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(ends[0], []byte{0}, unix.UnixRights(file), nil, 0); err != nil {
		return err
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(ends[1], b, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return at("recvmsg(SCM_RIGHTS)", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return wrong("recvmsg(SCM_RIGHTS)")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return wrong("recvmsg(SCM_RIGHTS)")
	}
	return same("recvmsg(SCM_RIGHTS)", fds[0], text)
}

func trySysVShm(*trial) error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	if err != nil {
		return at("shmget", err)
	}
	b, err := unix.SysvShmAttach(id, 0, 0)
	_, removed := unix.SysvShmCtl(id, unix.IPC_RMID, nil) // it goes with its last user
	if err != nil {
		return err
	}
	b[0] = 1
	return at("shmctl(IPC_RMID)", errors.Join(removed, unix.SysvShmDetach(b)))
}

func tryPtrace(t *trial) error {
	pid, err := syscall.ForkExec(t.program, []string{t.program, "exit"}, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return at("ptrace(PTRACE_TRACEME)", err)
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		return at("wait4", err)
	}
	if !ws.Stopped() {
		return wrong("ptrace(PTRACE_TRACEME)")
	}
	return registers(pid)
}

func tryInotify(*trial) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return at("inotify_init1", err)
	}
	if _, err := unix.InotifyAddWatch(fd, "/", unix.IN_OPEN|unix.IN_ONLYDIR); err != nil {
		return err
	}
	return event("inotify_add_watch", fd)
}

// event opens the root and wants to be told of it.
func event(call string, fd int) error {
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return at("open", err)
	}
	unix.Close(root)
	if n, err := unix.Read(fd, make([]byte, 4096)); err != nil || n == 0 {
		return wrong(call)
	}
	return nil
}

func tryFanotify(*trial) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return at("fanotify_init", err)
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR, unix.FAN_OPEN|unix.FAN_ONDIR, unix.AT_FDCWD, "/"); err != nil {
		return err
	}
	return event("fanotify_mark", fd)
}

func tryKeyrings(*trial) error {
	const text = "kept"
	// This process's own keyring, which ends with it.
	id, err := unix.AddKey("user", "bulkhead-meter", []byte(text), unix.KEY_SPEC_PROCESS_KEYRING)
	if err != nil {
		return err
	}
	b := make([]byte, 16)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b, 0)
	if err != nil {
		return at("keyctl(KEYCTL_READ)", err)
	}
	if n != len(text) || !bytes.Equal(b[:n], []byte(text)) {
		return wrong("add_key")
	}
	return nil
}
