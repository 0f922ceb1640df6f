// Package selfexec executes a program of ours in a way that leaves nobody a
// writable name of its file.
//
// A process that a container can look at shows its program at
// /proc/PID/exe. Between fork and execve a future container process is a copy
// of the program that forked it, so that link leads to our binary on the host
// (CVE-2019-5736). In a user namespace of its own the container's root may
// neither open the link nor write a file of the host's root. Without one, a
// workload with CAP_SYS_PTRACE may open it, and the file's mode does not stop
// host root from writing.
//
// So the program that forks such containers runs from a mount of its own:
//
//	/usr/bin/bulkhead-oci ──open_tree(OPEN_TREE_CLONE)──▶ detached mount of that one file
//	                        mount_setattr(MOUNT_ATTR_RDONLY)
//	                        execve through the descriptor, which closes it
//
// /proc/PID/exe then leads through a read-only mount: opening it for writing
// is EROFS for everybody. The descriptor was the mount's only handle by which
// its attributes could change; once it is closed the mount belongs to no mount
// namespace any more, and mount_setattr(2) refuses such mounts with EINVAL. It
// lives until the last process that runs from it ends. Nothing is copied.
package selfexec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// own names the running program, also when its file was replaced meanwhile.
const own = "/proc/self/exe"

// leastDescriptor keeps the descriptor of Open out of the way of those that
// os/exec puts at low numbers of the child.
const leastDescriptor = 200

// Open opens the file program for being executed and never written: by
// descriptor, through a read-only mount of that one file. The descriptor is
// close-on-exec; execute Path of it and close it. It needs CAP_SYS_ADMIN in
// the user namespace that owns the mount namespace.
func Open(program string) (*os.File, error) {
	low, err := unix.OpenTree(unix.AT_FDCWD, program, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: program, Err: err}
	}
	defer unix.Close(low)
	fd, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, leastDescriptor)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), program)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "mount_setattr", Path: program, Err: err}
	}
	// What Sealed will say of the new program is known now, so a program that
	// executes itself because it is not sealed cannot do so for ever.
	ok, err := sealed(fd, "", unix.AT_EMPTY_PATH)
	if err == nil && !ok {
		err = errors.New("the mount is not read-only although it was made so")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("seal %s: %w", program, err)
	}
	return f, nil
}

// Path is the name by which the calling process, or a child that it forks,
// executes f.
func Path(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// Sealed reports whether this process runs from a file that cannot be written
// through its /proc/PID/exe. It asks the kernel, not the environment.
func Sealed() (bool, error) { return sealed(unix.AT_FDCWD, own, 0) }

// sealed wants a read-only mount whose root is the very file: a mount of this
// file alone. That the file system as a whole is read-only today is not
// enough, its mount can be made writable again while somebody holds the file.
func sealed(dir int, name string, flags int) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, name, flags, unix.STATX_TYPE, &st); err != nil {
		return false, os.NewSyscallError("statx", err)
	}
	var fs unix.Statfs_t
	var err error
	if name == "" {
		err = unix.Fstatfs(dir, &fs)
	} else {
		err = unix.Statfs(name, &fs)
	}
	if err != nil {
		return false, os.NewSyscallError("statfs", err)
	}
	root := st.Attributes_mask&st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	return root && fs.Flags&unix.ST_RDONLY != 0, nil
}

// Seal returns at once when the program runs sealed, and otherwise executes it
// again, sealed: with the same arguments, environment, working directory and
// every descriptor that is not close-on-exec. It returns in the first case and
// on error only. Call it before anything is read from a descriptor that the
// second run must read too, and before anything is made.
func Seal() error {
	ok, err := Sealed()
	if err != nil || ok {
		return err
	}
	f, err := Open(own)
	if err != nil {
		return err
	}
	// syscall.Exec gives back the limit on descriptors that Go raised.
	err = syscall.Exec(Path(f), os.Args, os.Environ())
	f.Close()
	runtime.KeepAlive(f)
	return &os.PathError{Op: "execve", Path: own, Err: err}
}

// Name gives the process the name of its program. Executed by descriptor it
// has the descriptor's number for a name (comm in proc(5)), before Linux 6.14.
func Name() {
	name := filepath.Base(os.Args[0])
	if len(name) > 15 { // TASK_COMM_LEN
		name = name[:15]
	}
	// For the eyes of ps: an error changes nothing.
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}
