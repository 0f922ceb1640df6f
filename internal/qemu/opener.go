package qemu

import (
	"bytes"
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

// opener opens files in QEMU's place. QEMU 7.2 opens the file with the guest's
// memory by name and for writing, even where it then maps it privately; with
// such a descriptor, one clone could change what all others begin with. So
// QEMU's filter holds back every openat(2) that would write, and the supervisor
// answers it with a descriptor of its choice (seccomp_unotify(2)):
//
//	QEMU      openat("/ram", O_RDWR) ──▶ filter: notify
//	opener                                  a descriptor of the template, O_RDONLY
//	QEMU      mmap(PROT_READ|PROT_WRITE, MAP_PRIVATE)
//
// Whatever QEMU asks for, and however it changes the name meanwhile, it gets one
// of the files below, which it may have anyway, or EPERM. When QEMU has started,
// nobody answers any more, and such calls fail with ENOSYS.
type opener map[string]*os.File

// maxOpenedName bounds the names, with their zero at the end.
const maxOpenedName = 16

// pathKVM is opened for writing, too.
const pathKVM = "/dev/kvm"

// opens answers QEMU's calls until stop is called. It owns listener.
func (m *Machine) opens(listener *os.File) (stop func()) {
	files := opener{pathMemory: m.cfg.RAM.File}
	var device *os.File
	if m.cfg.Accel == KVM {
		var err error
		if device, err = os.OpenFile(pathKVM, os.O_RDWR, 0); err == nil { // else QEMU says that it cannot
			files[pathKVM] = device
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Without answers QEMU cannot start, and says so: its calls fail, rather than
		// wait, once the listener is closed.
		_ = seccomp.Serve(ctx, listener, files.answer)
		listener.Close()
	}()
	return func() {
		cancel()
		<-ended
		device.Close() // nil is fine
	}
}

// answer is the file that a call names.
func (o opener) answer(c seccomp.Call) seccomp.Answer {
	name := make([]byte, maxOpenedName)
	n, err := unix.ProcessVMReadv(c.PID, []unix.Iovec{iovec(name)}, []unix.RemoteIovec{{Base: uintptr(c.Args[1]), Len: len(name)}}, 0)
	if err != nil {
		return seccomp.Answer{Errno: unix.EPERM}
	}
	text, _, ended := bytes.Cut(name[:n], []byte{0})
	if f := o[string(text)]; ended && f != nil {
		return seccomp.Answer{File: f}
	}
	return seccomp.Answer{Errno: unix.EPERM}
}

func iovec(b []byte) (v unix.Iovec) {
	v.Base = &b[0]
	v.SetLen(len(b))
	return v
}
