package container

import (
	"golang.org/x/sys/unix"
)

// facts are the abilities of the running kernel that are younger than the
// baseline, Linux 6.1.
type facts struct {
	// overlayFDs: overlay takes its lower layers by descriptor, FSCONFIG_SET_FD
	// of lowerdir+ (Linux 6.13). Otherwise the mount is made by mount(2) from
	// layers that are attached first.
	overlayFDs bool
	// procPidns: proc takes its pid namespace by descriptor (Linux 6.17).
	// Otherwise a child inside the namespace makes the mount.
	procPidns bool
}

// readFacts asks the kernel.
func readFacts() facts {
	return facts{
		overlayFDs: takesFD("overlay", "lowerdir+", "/"),
		procPidns:  takesFD("proc", "pidns", "/proc/self/ns/pid"),
	}
}

// takesFD reports whether a file system knows an option and takes it by
// descriptor. Where it could not tell it says no: the older way always works.
func takesFD(fstype, option, path string) bool {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fs)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.FsconfigSetFd(fs, option, fd) == nil
}
