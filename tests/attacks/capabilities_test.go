package attacks

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Every capability inside. With a user namespace of its own, a workload that
// was given all capabilities (--cap-add ALL) and no seccomp filter is still
// nobody outside: what protects it and the host from it must not depend on
// the capabilities that it lacks.
//
// What prevents it here: the mount tree was made in a mount namespace of the
// initial user namespace, and the container's is a copy of it for its own user
// namespace. The kernel locks such copies: flags stay, nothing is uncovered.
// Devices: every mount is nodev, but /dev, whose nodes the host made; the
// device cgroup allows no others.
//
// Kernel facts: mount_namespaces(7), "Restrictions on mount namespaces"; a new
// proc or sysfs is refused where the existing one is partly covered
// (mount_too_revealing()); modules, raw I/O and the clock want capabilities in
// the initial user namespace; setns(2) into the host's namespaces wants
// CAP_SYS_ADMIN in the user namespaces that own them.

// useCapabilities tries what capabilities are for on the host's resources.
func useCapabilities([]string) error {
	if err := os.MkdirAll("/tmp/at", 0o755); err != nil {
		return err
	}
	covered := []string{"/proc/sys", "/proc/bus", "/proc/irq", "/proc/keys", "/proc/timer_list", "/proc/kcore", "/sys/firmware", "/sys", "/sys/fs/cgroup", "/proc", "/dev/pts"}
	for _, at := range covered {
		if _, err := os.Lstat(at); err != nil {
			continue
		}
		try("umount "+at, unix.Unmount(at, unix.MNT_DETACH))
		if !strings.HasPrefix(at, "/dev") && at != "/proc" {
			try("remount "+at, unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
			try("setattr "+at, unix.MountSetattr(unix.AT_FDCWD, at, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}))
		}
		try("nodev "+at, unix.MountSetattr(unix.AT_FDCWD, at, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}))
		try("move "+at, unix.Mount(at, "/tmp/at", "", unix.MS_MOVE, ""))
		// A copy without what covers it.
		if fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE); err == nil {
			unix.Close(fd)
			if at == "/proc" || at == "/sys" {
				try("copy "+at, nil)
			}
		} else if at == "/proc" || at == "/sys" {
			try("copy "+at, err)
		}
	}
	for _, fs := range []string{"proc", "sysfs"} {
		try("mount "+fs, unix.Mount(fs, "/tmp/at", fs, 0, ""))
	}
	try("remount /", unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NODEV}))
	tryDevices()
	tryHost()
	return nil
}

// tryDevices makes nodes of the host's devices wherever that may work, and
// opens them.
func tryDevices() {
	unix.Mount("tmpfs", "/tmp/at", "tmpfs", 0, "")
	for _, dir := range []string{"/tmp", "/tmp/at", "/dev", "/dev/shm"} {
		for name, dev := range map[string]uint64{"mem": unix.Mkdev(1, 1), "kmsg": unix.Mkdev(1, 11), "disk": unix.Mkdev(254, 0), "loop": unix.Mkdev(7, 0)} {
			mode := uint32(unix.S_IFCHR)
			if name == "disk" || name == "loop" {
				mode = unix.S_IFBLK
			}
			path := dir + "/" + name
			err := unix.Mknod(path, mode|0o666, int(dev))
			if err == nil {
				var fd int
				if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
					unix.Close(fd)
				}
			}
			try("device "+path, err)
		}
	}
	unix.Unmount("/tmp/at", unix.MNT_DETACH)
}

// tryHost reaches for what is not divided by namespaces.
func tryHost() {
	try("module", unix.InitModule([]byte("\x7fELF"), ""))
	try("syslog", func() error { _, err := unix.Klogctl(3, make([]byte, 64)); return err }())
	try("hostname-of-kernel", unix.Acct("/tmp/acct"))
	try("clock", unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Sec: 1}))
	try("reboot", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
	try("swapoff", func() error {
		name, _ := unix.BytePtrFromString("/tmp/none")
		return swapoff(name)
	}())
	try("iopl", func() error { return iopl(3) }())
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"} {
		self, _ := os.Readlink("/proc/self/ns/" + ns)
		first, err := os.Readlink("/proc/1/ns/" + ns)
		if err == nil && first != self {
			err = fmt.Errorf("another namespace: %s", first)
		} else if err == nil {
			err = unix.EACCES // pid 1 is the container's own, and no way out
		}
		try("ns "+ns, err)
	}
	for _, name := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent"} {
		fd, err := unix.Open(name, unix.O_WRONLY, 0)
		if err == nil {
			unix.Close(fd)
		}
		try("write "+name, err)
	}
	fd, err := unix.Open("/", unix.O_RDONLY, 0)
	if err == nil {
		// CVE of 2014, "shocker": files of the host by handle. Inode 2 is the
		// root directory of ext4.
		_, err = unix.OpenByHandleAt(fd, unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}), unix.O_RDONLY)
		unix.Close(fd)
	}
	try("handle", err)
}

func TestAllCapabilities(t *testing.T) {
	guardLeaks(t)
	for _, seccomp := range []string{"unconfined", ""} {
		tg := newTarget(t, "inside", "capabilities")
		tg.all()
		tg.spec.Security.Seccomp = seccomp
		out := tg.run(t)
		n := 0
		for line := range strings.Lines(out) {
			n++
			if strings.HasSuffix(line, " DONE\n") || strings.Contains(line, "another namespace") {
				t.Errorf("seccomp %q: %s", seccomp, line)
			}
		}
		if n < 60 {
			t.Errorf("seccomp %q: only %d attempts: %s", seccomp, n, out)
		}
	}
}

// TestAllCapabilitiesWithoutUserNamespace is the control: what the attempts
// above are denied, the same capabilities do where they count. It takes only
// such attempts as harm nothing outside the container.
func TestAllCapabilitiesWithoutUserNamespace(t *testing.T) {
	guardLeaks(t)
	tg := newTarget(t, "sh", "-c", "umount /proc/keys && echo umount; mount -o remount,rw,bind /proc/bus && echo remount; mkdir /tmp/p; mount -t proc proc /tmp/p && echo proc")
	tg.hostUser()
	tg.spec.Security.CapAdd = []string{"SYS_ADMIN"}
	tg.spec.Security.Seccomp, tg.spec.Security.AppArmor = "unconfined", "unconfined"
	if out := tg.run(t); out != "umount\nremount\nproc\n" {
		t.Errorf("got %q", out)
	}
}

// TestHostPIDs: with a user namespace and all capabilities no process of the
// host is in sight, or can be signalled.
func TestHostPIDs(t *testing.T) {
	guardLeaks(t)
	tg := newTarget(t, "sh", "-c", fmt.Sprintf("ls -d /proc/[0-9]* | wc -l; kill -0 %d && echo BAD; ls /proc/%d && echo BAD; echo tried", os.Getpid(), os.Getpid()))
	tg.all()
	out := tg.run(t)
	var n int
	if _, err := fmt.Sscan(out, &n); err != nil || n > 3 || strings.Contains(out, "BAD") || !strings.HasSuffix(out, "tried\n") {
		t.Errorf("got %q", out)
	}
}
