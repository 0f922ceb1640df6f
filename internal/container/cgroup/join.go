package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

// Join opens what a process needs to become a member.
//
// tasks are the v1 tasks files, one for each hierarchy, in no special order: a
// child that writes "0" to each moves itself, before it has threads. dir is
// the v2 directory for clone3(CLONE_INTO_CGROUP), nil on pure v1. All are
// close-on-exec and the caller's to close.
//
// A process made into dir of a frozen cgroup does not run: ask Frozen first.
func (m *Manager) Join() (tasks []*os.File, dir *os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(tasks)
			tasks = nil
			err = fmt.Errorf("join cgroup %s: %w", m.path, noAccess(err))
		}
	}()
	for _, d := range m.v1 {
		fd, err := openFile(d.dir, "tasks", syscall.O_WRONLY)
		if err != nil {
			return tasks, nil, err
		}
		tasks = append(tasks, os.NewFile(uintptr(fd), d.dir+"/tasks"))
	}
	if m.v2 != "" {
		fd, err := openFile(m.v2, ".", syscall.O_RDONLY|syscall.O_DIRECTORY)
		if err != nil {
			return tasks, nil, err
		}
		dir = os.NewFile(uintptr(fd), m.v2)
	}
	return tasks, dir, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Inside runs start on a thread that has joined the v1 hierarchies, so that a
// process which start makes is a member from its first instruction, for less
// than a millisecond. The v2 directory is passed as a descriptor, to be used
// as syscall.SysProcAttr's CgroupFD with UseCgroupFD; it is -1 on pure v1.
//
// The thread ends with start: a process made with Pdeathsig would get its
// signal at once.
func (m *Manager) Inside(start func(cgroupFD int) error) error {
	tasks, dir, err := m.Join()
	if err != nil {
		return err
	}
	defer closeAll(tasks)
	fd := -1
	if dir != nil {
		defer dir.Close()
		fd = int(dir.Fd())
	}
	var tid int
	done := make(chan error)
	go onThrowawayThread(done, func() error {
		tid = syscall.Gettid()
		for _, t := range tasks {
			if err := writeFD(int(t.Fd()), "0"); err != nil {
				return &os.PathError{Op: "write 0 to", Path: t.Name(), Err: err}
			}
		}
		return start(fd)
	})
	err = <-done
	if left := waitForThread(tid); err == nil {
		err = left
	}
	return err
}

// threadEnd is how long the Go runtime may take to end a thread.
const threadEnd = 10 * time.Second

// waitForThread waits until a thread of this process is gone: as long as it is a
// member, Kill of the cgroup would freeze it, and kill this process. Nothing
// tells of a thread's end before Linux 6.9 (PIDFD_THREAD), and it takes
// microseconds.
func waitForThread(tid int) error {
	for end := time.Now().Add(threadEnd); ; time.Sleep(50 * time.Microsecond) {
		switch err := syscall.Tgkill(os.Getpid(), tid, 0); {
		case err == syscall.ESRCH:
			return nil
		case err != nil:
			return os.NewSyscallError("tgkill", err)
		case time.Now().After(end):
			return fmt.Errorf("the thread that joined the cgroup has not ended after %v", threadEnd)
		}
	}
}

// onThrowawayThread runs f on a locked thread that is never unlocked, so that
// the Go runtime ends it. The process's first thread would not end, and stay
// a member: it is held back while another takes the work.
func onThrowawayThread(done chan<- error, f func() error) {
	runtime.LockOSThread()
	if syscall.Gettid() == syscall.Getpid() {
		inner := make(chan error)
		go onThrowawayThread(inner, f)
		err := <-inner
		runtime.UnlockOSThread()
		done <- err
		return
	}
	err := errors.New("the start function did not return")
	defer func() { done <- err }()
	err = f()
}
