package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine makes an environment and executes this program in it.
func confine(how string) {
	runtime.LockOSThread()
	path, err := os.Executable()
	if err == nil {
		err = map[string]func() error{"filter": filter, "bare": bare}[how]()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, how+":", err)
		os.Exit(1)
	}
	os.Setenv(actEnv, "1")
	fmt.Fprintln(os.Stderr, unix.Exec(path, os.Args, os.Environ()))
	os.Exit(1)
}

// filter answers some calls with an error that they never have, and kills for one.
func filter() error {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	program := []unix.SockFilter{{Code: load}}
	for call, action := range map[uint32]uint32{
		unix.SYS_IO_URING_SETUP:          unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTBLK),
		unix.SYS_BPF:                     unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTBLK),
		unix.SYS_LANDLOCK_CREATE_RULESET: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTBLK),
		unix.SYS_STATX:                   unix.SECCOMP_RET_KILL_PROCESS,
	} {
		program = append(program, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: ret, K: action})
	}
	program = append(program, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0)
}

// bare hides /proc and /dev, and makes all mounts read-only.
//
// Preconditions: the process has a mount namespace of its own.
func bare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/dev"} {
		if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
