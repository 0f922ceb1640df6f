package user

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A guest may send a frame for 127.0.0.1. No kernel does, but its root can, and a
// container's who may use packet sockets; older releases of passt and pasta
// connect to that address like to any other, on the host. So the kernel is told
// to refuse it, by a program of the process's cgroup: at connect(2) and sendmsg(2),
// in the host's network namespace, for every loopback address but that of a name
// server of the host. In the container's namespace, loopback is the container's.
//
// It refuses what the process itself is in the user network, too: a host may have a
// route to 10.0.2.2, and to 10.0.2.3, where the programs of Debian 12 would ask a
// stranger for names, as they forward what comes by UDP only.

// keepFromLoopback attaches the program.
func keepFromLoopback(m *cgroup.Manager) error {
	fail := func(err error) error {
		return fmt.Errorf("keep the user network from the host's loopback: %w", err)
	}
	tasks, dir, err := m.Join()
	for _, t := range tasks {
		t.Close()
	}
	if err != nil {
		return fail(err)
	}
	if dir == nil {
		return fail(fmt.Errorf("%w: it takes a cgroup v2 hierarchy, which this host has not mounted", workload.ErrUnsupported))
	}
	defer dir.Close()
	host, err := namespaceCookie()
	if err != nil {
		return fail(err)
	}
	names := hostNameservers()
	for hook, prog := range map[sys.AddressHook][]sys.BPFInstruction{
		sys.Connect4: refuseLoopback4(host, names), sys.Sendmsg4: refuseLoopback4(host, names),
		sys.Connect6: refuseLoopback6(host, names), sys.Sendmsg6: refuseLoopback6(host, names),
	} {
		err := sys.AddCgroupAddressProgram(int(dir.Fd()), hook, prog)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = fmt.Errorf("%w: the kernel takes no program for it (CONFIG_CGROUP_BPF): %w", workload.ErrUnsupported, err)
		}
		if err != nil {
			return fail(os.NewSyscallError("bpf", err))
		}
	}
	return nil
}

// namespaceCookie is the number of this thread's network namespace (Linux 5.14).
func namespaceCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		err = fmt.Errorf("%w: the kernel is older than 5.14: %w", workload.ErrUnsupported, err)
	}
	return n, err
}

// Opcodes, linux/bpf_common.h and linux/bpf.h.
const (
	bpfLoadWord = 0x61 // BPF_LDX | BPF_MEM | BPF_W
	bpfLoadImm  = 0x18 // BPF_LD | BPF_IMM | BPF_DW, of two instructions
	bpfMov      = 0xbf // BPF_ALU64 | BPF_MOV | BPF_X
	bpfMov32    = 0xbc // BPF_ALU | BPF_MOV | BPF_X
	bpfMovImm   = 0xb7 // BPF_ALU64 | BPF_MOV | BPF_K
	bpfAndImm   = 0x54 // BPF_ALU | BPF_AND | BPF_K
	bpfXorImm   = 0xa4 // BPF_ALU | BPF_XOR | BPF_K
	bpfJneImm   = 0x55 // BPF_JMP | BPF_JNE | BPF_K
	bpfJeqImm   = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	bpfJeq      = 0x1d // BPF_JMP | BPF_JEQ | BPF_X
	bpfCall     = 0x85
	bpfExit     = 0x95

	netnsCookie = 122 // bpf_get_netns_cookie
)

// The fields of struct bpf_sock_addr, in the order of the network.
const userIP4, userIP6, userPort = 4, 8, 24

// Registers: the context is kept in r6, and the address from r2 on.
const (
	r0 = iota
	r1
	r2
	r3
	r4
	r5
	r6
	r7
)

func verdict(allow int32) []sys.BPFInstruction {
	return []sys.BPFInstruction{{Code: bpfMovImm, Dst: r0, Imm: allow}, {Code: bpfExit}}
}

// unlessHost begins a program: what is not in the host's namespace is allowed.
func unlessHost(cookie uint64) []sys.BPFInstruction {
	p := []sys.BPFInstruction{
		{Code: bpfMov, Dst: r6, Src: r1},
		{Code: bpfCall, Imm: netnsCookie},
		{Code: bpfLoadImm, Dst: r7, Imm: int32(uint32(cookie))}, {Imm: int32(uint32(cookie >> 32))},
		{Code: bpfJeq, Dst: r0, Src: r7, Offset: 2},
	}
	return append(p, verdict(1)...)
}

// word is four bytes of an address as the program loads them.
func word(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }

// unlessWord jumps over skip instructions unless a register has a value. It
// compares all 32 bits, where a jump would extend the sign.
func unlessWord(register uint8, value int32, skip int16) []sys.BPFInstruction {
	return []sys.BPFInstruction{
		{Code: bpfMov32, Dst: r7, Src: register}, {Code: bpfXorImm, Dst: r7, Imm: value}, {Code: bpfJneImm, Dst: r7, Offset: skip},
	}
}

// unlessAddress6 jumps over skip instructions unless the registers from r2 on have an
// IPv6 address.
func unlessAddress6(a netip.Addr, skip int16) (p []sys.BPFInstruction) {
	b := a.AsSlice()
	for i := range 4 {
		p = append(p, unlessWord(r2+uint8(i), word(b[4*i:]), skip+int16(9-3*i))...)
	}
	return p
}

// dnsPort is port 53 as the program loads it.
func dnsPort() int32 { return word([]byte{0, 53, 0, 0}) }

// refuseFirst refuses an IPv4 address in a register that begins with 127, or with
// 0, which the kernel takes for the same.
func refuseFirst(register uint8) []sys.BPFInstruction {
	p := []sys.BPFInstruction{
		{Code: bpfMov32, Dst: r7, Src: register}, {Code: bpfAndImm, Dst: r7, Imm: word([]byte{0xff, 0, 0, 0})},
		{Code: bpfJeqImm, Dst: r7, Imm: word([]byte{127, 0, 0, 0}), Offset: 3},
		{Code: bpfJeqImm, Dst: r7, Offset: 2},
	}
	return append(append(p, verdict(1)...), verdict(0)...)
}

func refuseLoopback4(host uint64, names []netip.Addr) []sys.BPFInstruction {
	p := append(unlessHost(host),
		sys.BPFInstruction{Code: bpfLoadWord, Dst: r2, Src: r6, Offset: userIP4},
		sys.BPFInstruction{Code: bpfLoadWord, Dst: r3, Src: r6, Offset: userPort})
	for _, a := range names {
		if a.Is4() {
			p = append(append(append(p, unlessWord(r2, word(a.AsSlice()), 5)...), unlessWord(r3, dnsPort(), 2)...), verdict(1)...)
		}
	}
	for _, a := range []netip.Addr{gateway4, names4} {
		p = append(append(p, unlessWord(r2, word(a.AsSlice()), 2)...), verdict(0)...)
	}
	return append(p, refuseFirst(r2)...)
}

func refuseLoopback6(host uint64, names []netip.Addr) []sys.BPFInstruction {
	p := unlessHost(host)
	for i := range uint8(4) {
		p = append(p, sys.BPFInstruction{Code: bpfLoadWord, Dst: r2 + i, Src: r6, Offset: userIP6 + 4*int16(i)})
	}
	p = append(p, sys.BPFInstruction{Code: bpfLoadWord, Dst: r0, Src: r6, Offset: userPort})
	for _, a := range names {
		if !a.Is6() {
			continue
		}
		p = append(p, unlessAddress6(a, 5)...)
		p = append(append(p, unlessWord(r0, dnsPort(), 2)...), verdict(1)...)
	}
	for _, a := range []netip.Addr{gateway6, names6} {
		p = append(append(p, unlessAddress6(a, 2)...), verdict(0)...)
	}
	// Only what begins with 64 zero bits is looked at further.
	for i := range 2 {
		p = append(p, sys.BPFInstruction{Code: bpfJeqImm, Dst: r2 + uint8(i), Offset: 2})
		p = append(p, verdict(1)...)
	}
	// An IPv4 address as one of IPv6, or one of ::/96, among them :: and ::1.
	p = append(p, unlessWord(r4, word([]byte{0, 0, 0xff, 0xff}), 8)...)
	p = append(p, refuseFirst(r5)...)
	p = append(p, sys.BPFInstruction{Code: bpfJeqImm, Dst: r4, Offset: 2})
	return append(append(p, verdict(1)...), verdict(0)...)
}
