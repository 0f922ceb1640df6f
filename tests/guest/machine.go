package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// machine is the guest: its disks and how it is started.
type machine struct {
	options
	image string // directory made by the script image
	dir   string // of this run: console log, temporary files
	disk  string // what the guest mounts at /guest
}

// args returns QEMU's arguments. Software emulation is meant: the point is the
// guest's kernel, and not every machine that has /dev/kvm can run it there.
func (m *machine) args(console string, output bool) ([]string, error) {
	// Each transport's devices have their own suffix, -pci or -device.
	var board, suffix string
	switch m.machine {
	case "q35":
		board, suffix = "q35", "-pci"
	case "microvm":
		// ACPI tells the guest where the devices are: Debian's kernel does not take
		// that from its command line. Without the legacy timer and interrupt
		// controller it hangs under emulation.
		board, suffix = "microvm,pit=on,pic=on,rtc=on,acpi=on", "-device"
	default:
		return nil, fmt.Errorf("machine %q: want q35 or microvm", m.machine)
	}
	kernelArgs := []string{
		"console=ttyS0", "loglevel=5",
		// Any kernel bug ends the run: QEMU exits instead of restarting.
		"panic=-1", "oops=panic", "reboot=t",
		"lsm=landlock,lockdown,yama,integrity,apparmor,bpf", "apparmor=1",
		"cgroup_no_v1=all", "mitigations=off",
	}
	args := []string{
		"-M", board, "-accel", "tcg,thread=multi", "-cpu", "max",
		"-smp", strconv.Itoa(m.cpus), "-m", m.memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(m.image, "vmlinux"),
		"-initrd", filepath.Join(m.image, "initrd"),
		"-append", strings.Join(kernelArgs, " "),
		// What is written to the root disk lands in a temporary file.
		"-drive", "if=none,id=root,format=raw,snapshot=on,file=" + filepath.Join(m.image, "root.ext4"),
		"-device", "virtio-blk" + suffix + ",drive=root,serial=root",
		"-drive", "if=none,id=jobs,format=raw,cache=unsafe,file=" + m.disk,
		"-device", "virtio-blk" + suffix + ",drive=jobs,serial=jobs",
		"-device", "virtio-rng" + suffix,
		"-serial", console,
	}
	if output {
		args = append(args, "-device", "virtio-serial"+suffix,
			"-chardev", "file,id=output,path=/dev/fd/3",
			"-device", "virtserialport,chardev=output,name=guest.output")
	}
	return args, nil
}

// command returns QEMU as a command whose temporary files lie in the run's
// directory: root.ext4's changes can outgrow /tmp.
func (m *machine) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+m.dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// interact runs the guest with its console on the terminal.
func (m *machine) interact(ctx context.Context) error {
	// With "mon:" Ctrl-C reaches the guest; Ctrl-A X ends QEMU.
	args, err := m.args("mon:stdio", false)
	if err != nil {
		return err
	}
	cmd := m.command(ctx, args)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	return cmd.Run()
}

// follow runs the guest and feeds its output to s. It returns an error when the
// guest ended or fell silent before it had done everything.
func (m *machine) follow(ctx context.Context, s *stream) error {
	args, err := m.args("file:"+filepath.Join(m.dir, "console.log"), true)
	if err != nil {
		return err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := m.command(ctx, args)
	cmd.ExtraFiles = []*os.File{writer}
	err = cmd.Start()
	writer.Close()
	if err != nil {
		return err
	}
	followErr := s.follow(reader, stop)
	if followErr != nil {
		stop(followErr)
	}
	exitErr := cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.Join(followErr, exitErr)
}

// tail prints the last lines of a file.
func tail(out io.Writer, path string, lines int) {
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintf(out, "guest: no console output: %v\n", err)
		return
	}
	all := strings.Split(strings.TrimRight(strings.ReplaceAll(string(text), "\r", ""), "\n"), "\n")
	fmt.Fprintln(out, "guest: the console's last lines:")
	for _, line := range all[max(0, len(all)-lines):] {
		fmt.Fprintln(out, "    "+line)
	}
}
