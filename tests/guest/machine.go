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
func (m *machine) args(console string, output bool) []string {
	kernelArgs := []string{
		"console=ttyS0", "loglevel=5",
		// Any kernel bug ends the run: QEMU exits instead of restarting.
		"panic=-1", "oops=panic", "reboot=t",
		"lsm=landlock,lockdown,yama,integrity,apparmor,bpf", "apparmor=1",
		"cgroup_no_v1=all", "mitigations=off",
	}
	args := []string{
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
		"-smp", strconv.Itoa(m.cpus), "-m", m.memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(m.image, "vmlinux"),
		"-initrd", filepath.Join(m.image, "initrd"),
		"-append", strings.Join(kernelArgs, " "),
		// What is written to the root disk lands in a temporary file.
		"-drive", "if=none,id=root,format=raw,snapshot=on,file=" + filepath.Join(m.image, "root.ext4"),
		"-device", "virtio-blk-pci,drive=root,serial=root",
		"-drive", "if=none,id=jobs,format=raw,cache=unsafe,file=" + m.disk,
		"-device", "virtio-blk-pci,drive=jobs,serial=jobs",
		"-device", "virtio-rng-pci",
		"-serial", console,
	}
	if output {
		args = append(args, "-device", "virtio-serial-pci",
			"-chardev", "file,id=output,path=/dev/fd/3",
			"-device", "virtserialport,chardev=output,name=guest.output")
	}
	return args
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
	cmd := m.command(ctx, m.args("mon:stdio", false))
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	return cmd.Run()
}

// follow runs the guest and feeds its output to s. It returns an error when the
// guest ended or fell silent before it had done everything.
func (m *machine) follow(ctx context.Context, s *stream) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := m.command(ctx, m.args("file:"+filepath.Join(m.dir, "console.log"), true))
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
