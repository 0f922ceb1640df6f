package guesttest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootLimit is how long a guest may take to its first word, endLimit to its
// end: it is emulated, and the host may be busy.
const (
	bootLimit = 2 * time.Minute
	endLimit  = time.Minute
)

// Config says what to boot.
type Config struct {
	Type   string // "q35" or "microvm"
	Init   string // the program that is /init
	Files  map[string][]byte
	Memory int               // MiB, 0 for 256
	CPUs   int               // 0 for 1
	Disks  map[string]string // serial number to file; all but "data" are read-only
	NICs   []string          // MAC addresses of network devices, which lead nowhere
	Append string            // to the kernel's command line
}

// Machine is a running guest.
type Machine struct {
	t       testing.TB
	cmd     *exec.Cmd
	socket  string
	console string
	ended   chan struct{}
	err     error // of QEMU, valid when ended is closed
}

// Start boots a guest, and ends it with the test. It skips the test where that
// is not possible.
func Start(t testing.TB, c Config) *Machine {
	t.Helper()
	need(t)
	k := kernelFor(t, c.Type)
	dir := t.TempDir()
	m := &Machine{t: t, socket: filepath.Join(dir, "port"), console: filepath.Join(dir, "console"), ended: make(chan struct{})}
	args := c.args(k, initramfs(t, k, c.Init, c.Files), m)
	m.cmd = exec.Command("qemu-system-x86_64", args...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.cmd.Stderr = os.Stderr
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.err = m.cmd.Wait()
		close(m.ended)
	}()
	t.Cleanup(func() {
		m.cmd.Process.Kill()
		<-m.ended
		if t.Failed() {
			t.Logf("console:\n%s", m.Console())
		}
	})
	return m
}

// need skips the test where no guest can be booted.
func need(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest under software emulation, which takes seconds; make test-full runs it")
	}
	if os.Getenv("BULKHEAD_GUEST") != "" {
		t.Skip("boots a guest; not in another one")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs qemu-system-x86_64: ", err)
	}
}

// args is the least that boots: internal/qemu has the real ones.
func (c Config) args(k kernel, initrd string, m *Machine) []string {
	bus, memory, cpus := "pci", c.Memory, max(c.CPUs, 1)
	if memory == 0 {
		memory = 256
	}
	machine := "q35,accel=tcg"
	if c.Type == "microvm" {
		bus, machine = "device", "microvm,accel=tcg,pit=on,pic=on,rtc=on,acpi=off,x-option-roms=off"
	}
	args := []string{
		"-M", machine, "-cpu", "max", "-m", fmt.Sprint(memory), "-smp", fmt.Sprint(cpus),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", k.vmlinux, "-initrd", initrd,
		"-append", // No AppArmor: nothing in the guest could compile a profile.
		"console=ttyS0 quiet reboot=t panic=-1 cgroup_no_v1=all apparmor=0 " + c.Append,
		"-serial", "file:" + m.console,
		"-device", "virtio-serial-" + bus,
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + m.socket,
		"-device", "virtserialport,chardev=agent,name=bulkhead.agent",
		"-device", "virtio-rng-" + bus,
	}
	for serial, file := range c.Disks {
		options := ",read-only=on"
		if serial == "data" {
			options = ",cache=unsafe"
		}
		args = append(args, "-drive", "if=none,format=raw,id="+serial+",file="+file+options,
			"-device", "virtio-blk-"+bus+",drive="+serial+",serial="+serial)
	}
	for n, mac := range c.NICs {
		args = append(args, "-netdev", fmt.Sprintf("hubport,id=net%d,hubid=%d", n, n),
			"-device", fmt.Sprintf("virtio-net-%s,netdev=net%d,mac=%s", bus, n, mac))
	}
	return args
}

// Dial connects to the port; what the guest writes comes when it is up.
func (m *Machine) Dial() net.Conn {
	m.t.Helper()
	for deadline := time.Now().Add(bootLimit); ; time.Sleep(20 * time.Millisecond) { // until QEMU listens
		conn, err := net.Dial("unix", m.socket)
		if err == nil {
			_ = conn.SetReadDeadline(deadline)
			return conn
		}
		select {
		case <-m.ended:
			m.t.Fatalf("QEMU ended: %v", m.err)
		default:
		}
		if time.Now().After(deadline) {
			m.t.Fatal(err)
		}
	}
}

// AwaitEnd waits until QEMU has ended by itself.
func (m *Machine) AwaitEnd() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	select {
	case <-m.ended:
		if m.err != nil {
			m.t.Errorf("QEMU ended with %v", m.err)
		}
	case <-ctx.Done():
		m.t.Fatalf("QEMU did not end within %v", endLimit)
	}
}

// PID is QEMU's process ID.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Console is what the guest has printed.
func (m *Machine) Console() string {
	b, _ := os.ReadFile(m.console) // not there yet: nothing was printed
	return strings.ReplaceAll(string(b), "\r", "")
}

// Erofs makes an EROFS image of a tree.
func Erofs(t testing.TB, tree string) string {
	t.Helper()
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		t.Skip("needs mkfs.erofs of erofs-utils: ", err)
	}
	name := filepath.Join(t.TempDir(), "image.erofs")
	if _, err := output(exec.Command("mkfs.erofs", "--quiet", name, tree)); err != nil {
		t.Fatal(err)
	}
	return name
}

// Ext4 makes an empty data disk.
func Ext4(t testing.TB, mib int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "data.ext4")
	if _, err := output(exec.Command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,root_owner=0:0", name, fmt.Sprintf("%dM", mib))); err != nil {
		t.Fatal(err)
	}
	return name
}
