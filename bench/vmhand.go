package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const qemuProgram = "qemu-system-x86_64"

// confinedQEMU is what it is called in the root that Bulkhead gives it.
const confinedQEMU = "qemu"

// byHand is QEMU as somebody would drive it who has no engine: a guest's kernel
// and an initramfs that holds busybox and one script.
type byHand struct {
	guest
	dir    string
	script string   // what the first program does
	disks  []string // files, as /dev/vda and so on
}

func (h byHand) label() string {
	return "QEMU by hand, " + strings.TrimPrefix(h.guest.label, "bulkhead, ")
}

func (h byHand) initramfs() string {
	name := "by-hand-q35"
	if h.micro {
		name = "by-hand-microvm"
	}
	if len(h.disks) > 0 {
		name += "-disks"
	}
	return filepath.Join(h.dir, name)
}

// makeInitramfs writes it, behind the file before if that is not "": the kernel
// unpacks one after the other. The modules of a Bulkhead guest are loaded if
// they are there.
func (h byHand) makeInitramfs(before string) error {
	tree := h.initramfs() + ".d"
	for _, d := range []string{"bin", "dev", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	init := "#!/bin/busybox sh\n" +
		"if [ -e /modules/order ]; then while read -r m; do /bin/busybox insmod $m; done </modules/order; fi\n" +
		"/bin/busybox mount -t proc none /proc\n/bin/busybox mount -t devtmpfs none /dev\n" + h.script + "\n/bin/busybox reboot -f\n"
	err = errors.Join(
		os.WriteFile(filepath.Join(tree, "bin/busybox"), program, 0o755),
		os.WriteFile(filepath.Join(tree, "init"), []byte(init), 0o755),
		syscall.Mknod(filepath.Join(tree, "dev/console"), syscall.S_IFCHR|0o600, 5<<8|1))
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	out, err := os.Create(h.initramfs())
	if err != nil {
		return err
	}
	defer out.Close()
	if before != "" {
		in, err := os.Open(before)
		if err != nil {
			return err
		}
		defer in.Close()
		n, err := io.Copy(out, in)
		if err != nil {
			return err
		}
		if _, err := out.Write(make([]byte, (4-n%4)%4)); err != nil {
			return err
		}
	}
	list := exec.Command("sh", "-c", "find . | "+busybox+" cpio -o -H newc 2>/dev/null")
	list.Dir, list.Stdout = tree, out
	if err := list.Run(); err != nil {
		return fmt.Errorf("busybox cpio: %w", err)
	}
	return out.Close()
}

// command is QEMU's command line, with as much memory as a workload's machine
// has by default.
func (h byHand) command() []string {
	c := []string{qemuProgram, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", string(h.accel), "-cpu", "max",
		"-m", "608", "-kernel", h.image, "-initrd", h.initramfs(), "-append", "console=ttyS0 quiet reboot=t panic=-1",
		"-serial", "stdio"}
	device := "virtio-blk-pci"
	if h.micro {
		c = append(c, "-machine", "microvm,pit=on,pic=on,rtc=on,acpi=off,x-option-roms=off")
		device = "virtio-blk-device"
	} else {
		c = append(c, "-machine", "q35")
	}
	for i, d := range h.disks {
		c = append(c, "-drive", fmt.Sprintf("if=none,id=d%d,format=raw,file=%s", i, d), "-device", fmt.Sprintf("%s,drive=d%d", device, i))
	}
	return c
}
