package qemu_test

import (
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
)

func ExamplePrintable() {
	fmt.Println(qemu.Printable([]byte("login:\x1b[2J")))
	// Output: login:\x1b[2J
}

func ExampleFault() {
	f := &qemu.Fault{Who: qemu.Kernel, Text: "Kernel panic - not syncing: VFS: Unable to mount root fs"}
	fmt.Println(f)
	// Output: kernel: Kernel panic - not syncing: VFS: Unable to mount root fs
}

func ExampleCommand() {
	cmd := qemu.Command(qemu.Config{Kernel: "/boot/vmlinux", CPUs: 1, Memory: 128 << 20, Machine: qemu.Q35})
	fmt.Println(cmd[:6])
	// Output: [qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot]
}
