package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// Requests and structures of linux/kvm.h, as x86-64 has them.
const (
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmRun                 = 0xae80

	kvmAPIVersion = 12
	kvmExitIO     = 2

	kvmRunSize = 2 * 4096 // struct kvm_run, and the page with the data of port accesses
)

// tinyPort and tinyValue are what the tiny machine sends where, having added
// 0x21 to itself: so something did compute.
const (
	tinyPort  = 0x80
	tinyValue = 0x42
)

// runLimit is how long the tiny machine may take. Real hardware needs
// milliseconds, emulated hardware a good part of a second, and more than three
// on a busy host, where a workload would lose its boundary for it; an
// implementation that interprets may never end.
const runLimit = 10 * time.Second

// runTinyMachine makes a virtual machine of one page below the top of the
// first 4 GiB, where an x86 processor begins (Intel SDM, volume 3, 10.1.4), and
// looks how it exits. It does so in a child that is killed when it takes too
// long, by a launch program like every other.
func runTinyMachine(ctx context.Context, device string) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(page)
	copy(page[0xff0:], []byte{
		0xb0, 0x21, // mov al, 0x21
		0x00, 0xc0, // add al, al
		0xe6, tinyPort, // out 0x80, al
		0xf4, // hlt
	})
	result, err := runInChild(ctx, device, page)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s opens, but a machine of one page did not come to its end in %v", device, runLimit)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	return judgeTiny(device, result)
}

// judgeTiny looks at struct kvm_run after the exit.
func judgeTiny(device string, run []byte) error {
	if len(run) != kvmRunSize {
		return fmt.Errorf("%s: a test machine was killed", device)
	}
	if reason := binary.NativeEndian.Uint32(run[8:]); reason != kvmExitIO {
		return fmt.Errorf("%s opens, but a machine of one page ended with exit %d instead of %d", device, reason, kvmExitIO)
	}
	const directionOut = 1
	direction, size, at := run[32], run[33], binary.NativeEndian.Uint16(run[34:])
	offset := binary.NativeEndian.Uint64(run[40:])
	if direction != directionOut || size != 1 || at != tinyPort || offset >= kvmRunSize || run[offset] != tinyValue {
		return fmt.Errorf("%s opens, but a machine of one page computed something else", device)
	}
	return nil
}

// runInChild returns struct kvm_run as the child saw it after the exit; it is
// short when the child was killed.
func runInChild(ctx context.Context, device string, page []byte) ([]byte, error) {
	var status, out [2]int
	if err := unix.Pipe2(status[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		unix.Close(status[0])
		unix.Close(status[1])
		return nil, os.NewSyscallError("pipe2", err)
	}
	result := os.NewFile(uintptr(out[0]), "result")
	defer result.Close()
	g, child := tinyProgram(device, page, status, out[1])
	if err := g.Build(); err != nil {
		g.Close()
		return nil, err
	}
	if _, err := g.Run(ctx, launch.Options{Child: child, Detached: true}); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(result, kvmRunSize)) // it is all in the pipe: the child is reaped
}

// tinyProgram is the child's part as data.
func tinyProgram(device string, page []byte, status [2]int, out int) (*launch.Program, launch.Slot) {
	g := launch.New("kvm test")
	read, tell := g.Given("status", status[0], "how the child fares"), g.Given("tell", status[1], "its end of it")
	g.Status(read, tell)
	result := g.Given("result", out, "what the machine came to")
	child := g.Slot("child")
	kvm, vm, vcpu, run := g.Slot("kvm"), g.Slot("vm"), g.Slot("vcpu"), g.Slot("run")
	g.Fork(launch.Host, launch.Stage, 0, "0", child, 0, "a child that can be killed")
	g.CloseOthers(launch.Stage, "", launch.Use(tell), launch.Use(result))
	ioctl := func(on launch.Slot, request int, name string, arg launch.Arg) *launch.Step {
		return g.Do(launch.Stage, launch.Ioctl, "", launch.Use(on), launch.Flag(uintptr(request), name), arg)
	}
	g.Do(launch.Stage, launch.Openat, "", launch.AtCWD(), launch.Str(device), launch.Flag(unix.O_RDWR|unix.O_CLOEXEC, "O_RDWR|O_CLOEXEC"), launch.Int(0)).To(kvm)
	ioctl(kvm, kvmGetAPIVersion, "KVM_GET_API_VERSION", launch.Int(0)).Wanting(kvmAPIVersion)
	ioctl(kvm, kvmCreateVM, "KVM_CREATE_VM", launch.Int(0)).To(vm)
	const at = 1<<32 - 4096
	region := launch.U64(0, at, uint64(len(page)), uint64(uintptr(unsafe.Pointer(unsafe.SliceData(page)))))
	ioctl(vm, kvmSetUserMemoryRegion, "KVM_SET_USER_MEMORY_REGION", launch.Buf(region, "{one page at the reset vector}"))
	ioctl(vm, kvmCreateVCPU, "KVM_CREATE_VCPU", launch.Int(0)).To(vcpu)
	g.Do(launch.Stage, launch.Mmap, "", launch.Null(), launch.Int(kvmRunSize), launch.Flag(unix.PROT_READ|unix.PROT_WRITE, "PROT_READ|PROT_WRITE"),
		launch.Flag(unix.MAP_SHARED, "MAP_SHARED"), launch.Use(vcpu), launch.Int(0)).To(run)
	ioctl(vcpu, kvmRun, "KVM_RUN", launch.Int(0))
	g.Do(launch.Stage, launch.Write, "", launch.Use(result), launch.Use(run), launch.Int(kvmRunSize)).Wanting(kvmRunSize)
	done := g.Tell(launch.Stage, 0, "it came to an end")
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
	g.Await(done, 0, "it came to an end")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(child), launch.Null(), launch.Int(0), launch.Null())
	return g, child
}
