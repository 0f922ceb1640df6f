package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// AddressHook is a system call that names an address, at which a program of the
// type BPF_PROG_TYPE_CGROUP_SOCK_ADDR decides.
type AddressHook uint32

// The hooks, of enum bpf_attach_type. That of sendmsg is for sockets that are not
// connected.
const (
	Connect4 AddressHook = unix.BPF_CGROUP_INET4_CONNECT
	Connect6 AddressHook = unix.BPF_CGROUP_INET6_CONNECT
	Sendmsg4 AddressHook = unix.BPF_CGROUP_UDP4_SENDMSG
	Sendmsg6 AddressHook = unix.BPF_CGROUP_UDP6_SENDMSG
)

// AddCgroupAddressProgram has prog decide, beside those that are attached above,
// about the addresses that processes in the v2 cgroup opened as dir name at a hook.
// The kernel keeps the program for as long as the cgroup exists. It needs CAP_BPF
// and CAP_NET_ADMIN in the initial user namespace.
func AddCgroupAddressProgram(dir int, hook AddressHook, prog []BPFInstruction) error {
	fd, err := loadProgram(unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, uint32(hook), prog)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := struct{ target, prog, kind, flags uint32 }{
		target: uint32(dir), prog: uint32(fd), kind: uint32(hook), flags: unix.BPF_F_ALLOW_MULTI,
	}
	_, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}
