package comparing

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// thread is an operating system's thread of this program with a mount namespace of
// its own, whose root is an image's. What it starts is in that namespace too. It
// ends with the program, however that ends, and the mounts with it: nobody who
// removes the image's directory can reach what is mounted there. A chroot would do,
// but from there the kernel allows no user namespace, clone(2).
type thread struct {
	ask  chan func()
	done chan struct{}
}

// newThread makes a thread whose root directory is root, with the host's /proc,
// /sys and /dev.
func newThread(root string) (*thread, error) {
	t := &thread{ask: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go t.serve(root, ready)
	return t, <-ready
}

// serve is the thread. The process's first one cannot be it: that one does not end,
// and its root directory is the process's to all who look in /proc. It is held back
// while another takes the work.
func (t *thread) serve(root string, ready chan<- error) {
	runtime.LockOSThread()
	if syscall.Gettid() == syscall.Getpid() {
		go t.serve(root, ready)
		<-t.done
		runtime.UnlockOSThread()
		return
	}
	defer close(t.done)
	// It is never unlocked: the thread is thrown away.
	err := mountHost(root)
	ready <- err
	if err != nil {
		return
	}
	for f := range t.ask {
		f()
	}
}

func mountHost(root string) error {
	// CLONE_FS: threads of a process share it, and one that does has no namespace of
	// its own, mount_namespaces(7).
	if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := syscall.Mount(root, root, "", syscall.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	inside, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, dir := range []string{"proc", "sys", "dev"} {
		// In an image it may be missing; a link there leads nowhere outside.
		if err := inside.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if info, err := inside.Lstat(dir); err != nil || !info.IsDir() {
			return errors.Join(err, errors.New("the image's /"+dir+" is no directory"))
		}
		if err := syscall.Mount("/"+dir, filepath.Join(root, dir), "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
	}
	// The old root lies on top of the new one until it is let go: pivot_root(2).
	if err := syscall.Chdir(root); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := syscall.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	return os.NewSyscallError("umount", syscall.Unmount(".", syscall.MNT_DETACH))
}

// start starts a command from the thread.
func (t *thread) start(cmd *exec.Cmd) error {
	failed := make(chan error)
	t.ask <- func() { failed <- cmd.Start() }
	return <-failed
}

// end ends the thread. Nothing that it started may be left.
func (t *thread) end() {
	close(t.ask)
	<-t.done
}
