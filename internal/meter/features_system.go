package meter

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// tryUserNamespace has a child in one, which needs no map to look at its parent.
func tryUserNamespace(*trial) error {
	rec, err := launch.Record(unix.CLONE_NEWUSER, []launch.Trial{{Call: unix.SYS_GETPPID}})
	if err != nil {
		return err
	}
	results, _, err := rec.Wait()
	if err == nil && !results[0].Ended {
		return wrong("clone(CLONE_NEWUSER)")
	}
	return at("wait4", err)
}

// chroot goes where the process is already.
func tryChroot(*trial) error { return unix.Chroot("/") }

// trySetuid changes this thread only, which is never another's.
func trySetuid(*trial) error {
	other := uintptr(65534)
	if unix.Geteuid() == int(other) {
		other--
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, other, other, other); e != 0 {
		return e
	}
	if id, _, _ := unix.RawSyscall(unix.SYS_GETEUID, 0, 0, 0); id != other {
		return wrong("setresuid")
	}
	return nil
}

// tryMount mounts in a mount namespace of this thread.
func tryMount(t *trial) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return at("unshare(CLONE_NEWNS)", err)
	}
	// In a chroot whose root is no mount the others cannot be made private: what is
	// mounted there would be mounted for everybody.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); errors.Is(err, unix.EINVAL) {
		return mountDetached()
	}
	return mountTmpfs(t)
}

// mountDetached makes a mount that is nowhere.
func mountDetached() error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return at("fsopen", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return at("fsconfig", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return at("fsmount", err)
	}
	_, err = unix.Openat(root, "file", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	return at("openat", err)
}

// mountTmpfs mounts in a mount namespace that ends with this process.
func mountTmpfs(*trial) error {
	_, err := coverTmpfs()
	return err
}

// coverTmpfs mounts on a directory, and returns it. Nothing is written before it is
// certain that the directory is the new one.
func coverTmpfs() (string, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", at("mount(MS_PRIVATE)", err)
	}
	dir := mountPoint()
	var before, after unix.Stat_t
	if err := unix.Stat(dir, &before); err != nil {
		return "", at("stat", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=0700"); err != nil {
		return "", at("mount(tmpfs)", err)
	}
	if err := unix.Stat(dir, &after); err != nil || before.Dev == after.Dev {
		return "", wrong("mount(tmpfs)")
	}
	return dir, at("open", os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
}

// mountPoint is a directory that can be covered for a moment, where nobody else
// sees it.
func mountPoint() string {
	all := []string{"/tmp", "/mnt", "/proc", "/dev", "/sys", "/etc"}
	n := slices.IndexFunc(all, func(dir string) bool {
		var st unix.Stat_t
		return unix.Stat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	})
	return all[max(n, 0)]
}

func mountOverlay(*trial) error {
	dir, err := coverTmpfs()
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(in(name), 0o700); err != nil {
			return at("mkdir", err)
		}
	}
	options := "lowerdir=" + in("lower") + ",upperdir=" + in("upper") + ",workdir=" + in("work") + ",userxattr"
	if err := unix.Mount("overlay", in("merged"), "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return err
	}
	if err := os.WriteFile(in("merged/file"), []byte("x"), 0o600); err != nil {
		return at("open", err)
	}
	var st unix.Stat_t
	if unix.Stat(in("upper/file"), &st) != nil {
		return wrong("mount(overlay)")
	}
	return nil
}

// mountProc is what a container needs beside a root: a /proc of its own.
func mountProc(*trial) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return at("mount(MS_PRIVATE)", err)
	}
	dir := mountPoint()
	if err := unix.Mount("proc", dir, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if link, err := os.Readlink(filepath.Join(dir, "self")); err != nil || link != "1" || os.Getpid() != 1 {
		return wrong("mount(proc)")
	}
	return nil
}

// tryCgroup makes a cgroup below this process's, and removes it. Nobody is ever in
// it.
func tryCgroup(*trial) error {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return at("open(/proc/self/cgroup)", err)
	}
	last := at("mkdir(cgroup)", unix.ENOENT)
	for l := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSuffix(l, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		names := []string{fields[1], strings.TrimPrefix(fields[1], "name=")}
		if fields[1] == "" { // version 2
			names = []string{"", "unified"}
		}
		for _, name := range names {
			dir := filepath.Join("/sys/fs/cgroup", name, fields[2])
			var st unix.Statfs_t
			if unix.Statfs(dir, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC && st.Type != unix.CGROUP_SUPER_MAGIC {
				continue
			}
			child := filepath.Join(dir, "bulkhead-meter-"+rand.Text())
			if err := unix.Mkdir(child, 0o755); err != nil {
				last = at("mkdir(cgroup)", err)
				continue
			}
			return at("rmdir(cgroup)", unix.Rmdir(child))
		}
	}
	return last
}

// tryMknod makes what /dev/null is.
func tryMknod(t *trial) error {
	name := filepath.Join(t.dir, ".bulkhead-meter-"+rand.Text())
	if err := unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		return err
	}
	return at("unlink", unix.Unlink(name))
}

// device opens a device, and does nothing with it.
func device(path string) func(*trial) error {
	return func(*trial) error {
		fd, err := openDevice(path)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func openDevice(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	return fd, at("open("+path+")", err)
}

func tryKVM(*trial) error {
	const getAPIVersion, version = 0xae00, 12 // linux/kvm.h
	fd, err := openDevice("/dev/kvm")
	if err != nil {
		return err
	}
	got, err := unix.IoctlRetInt(fd, getAPIVersion)
	if err == nil && got != version {
		return wrong("ioctl(KVM_GET_API_VERSION)")
	}
	return err
}

// tryTun makes an interface in a network namespace of this thread. Where it may not
// have one, it makes none: the capability tells.
func tryTun(*trial) error {
	fd, err := openDevice("/dev/net/tun")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return capable(unix.CAP_NET_ADMIN)
	}
	// The device belongs to the namespace in which it was opened.
	if fd, err = openDevice("/dev/net/tun"); err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("meter0")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	return errors.Join(err, unix.Close(fd))
}

// capable finds fault with a process that lacks a capability.
func capable(capability uint) error {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return at("capget", err)
	}
	if data[capability/32].Effective&(1<<(capability%32)) == 0 {
		return unix.EPERM
	}
	return nil
}

// tryModule offers a module that is too short to be one. Who may load modules is
// asked first, and nothing else happens.
func tryModule(*trial) error {
	if err := unix.InitModule([]byte{}, ""); !errors.Is(err, unix.ENOEXEC) {
		if err == nil {
			return wrong("init_module")
		}
		return err
	}
	return nil
}

// tryClock sets neither a time nor a time zone. Who may is asked first.
func tryClock(*trial) error {
	if _, _, e := unix.Syscall(unix.SYS_SETTIMEOFDAY, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// tryHostname sets one in a namespace of this thread.
func tryHostname(*trial) error {
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return at("unshare(CLONE_NEWUTS)", err)
	}
	const name = "bulkhead-meter"
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil || unix.ByteSliceToString(u.Nodename[:]) != name {
		return wrong("sethostname")
	}
	return nil
}

// tryIoPriority gives this thread the lowest one.
func tryIoPriority(*trial) error {
	const whoProcess, bestEffort7 = 1, 2<<13 | 7 // linux/ioprio.h
	if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, bestEffort7); e != 0 {
		return e
	}
	got, _, e := unix.RawSyscall(unix.SYS_IOPRIO_GET, whoProcess, 0, 0)
	if e == 0 && got != bestEffort7 {
		return wrong("ioprio_set")
	}
	return at("ioprio_get", errno(e))
}

// tryRealTime lets this thread be scheduled so for a moment.
func tryRealTime(*trial) error {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return at("sched_getattr", err)
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return err
	}
	return at("sched_setattr", unix.SchedSetAttr(0, before, 0))
}

// errno is nil for 0.
func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
