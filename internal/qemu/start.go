package qemu

import (
	"errors"
	"fmt"
	"os"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/nofile"
)

// starter collects what a start needs; release closes what nobody took.
type starter struct {
	cfg    Config
	ours   map[int]*os.File // our ends, by QEMU's descriptor
	stderr *os.File
	given  []int      // descriptors that no program owns yet
	boot   []*os.File // copies of the kernel and the initramfs
}

// farFD is where the descriptors lie that QEMU gets: above all numbers that
// they are copied to.
const farFD = 100

func (s *starter) take(n int) *os.File {
	f := s.ours[n]
	delete(s.ours, n)
	return f
}

func (s *starter) takeBoot() []*os.File {
	boot := s.boot
	s.boot = nil
	return boot
}

func (s *starter) takeStderr() *os.File {
	f := s.stderr
	s.stderr = nil
	return f
}

func (s *starter) release() {
	for _, f := range s.ours {
		f.Close()
	}
	s.stderr.Close() // nil is fine
	for _, fd := range s.given {
		unix.Close(fd)
	}
	for _, f := range s.boot {
		f.Close()
	}
}

// far duplicates a descriptor to a number of farFD or more, and closes f.
func (s *starter) far(f *os.File) (int, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, farFD)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	s.given = append(s.given, fd)
	return fd, nil
}

// borrow duplicates a descriptor that stays its owner's.
func (s *starter) borrow(f *os.File) (int, error) {
	if f == nil {
		return -1, errors.New("no descriptor is given for it")
	}
	conn, err := f.SyscallConn() // Fd would change the mode that all duplicates share
	if err != nil {
		return -1, err
	}
	fd, failed := -1, error(nil)
	if err := conn.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, farFD) }); err != nil {
		return -1, err
	}
	if failed != nil {
		return -1, os.NewSyscallError("fcntl", failed)
	}
	s.given = append(s.given, fd)
	return fd, nil
}

// pair makes a socket pair: ours, with deadlines, and QEMU's.
func (s *starter) pair(n int, name string) (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), name)
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		theirs.Close()
		return -1, os.NewSyscallError("fcntl", err)
	}
	s.ours[n] = os.NewFile(uintptr(fds[0]), name)
	return s.far(theirs)
}

// prepare opens everything and makes the program, which owns it then.
func (s *starter) prepare() (*planner, error) {
	s.ours = map[int]*os.File{}
	in, err := facts(s.cfg)
	if err != nil {
		return nil, err
	}
	if err := s.open(&in); err != nil {
		return nil, err
	}
	s.given = nil
	return plan(s.cfg, in)
}

// facts are the inputs of a program that need no descriptor.
func facts(cfg Config) (in inputs, err error) {
	if in.binds, err = findClosure(cfg.Binary); err != nil {
		return in, err
	}
	in.lastCapability = sort.Search(64, func(n int) bool {
		_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		return err != nil
	}) - 1
	in.hardFiles = nofile.Hard
	if in.filter, err = filter(&cfg); err != nil {
		return in, err
	}
	in.about, err = seccomp.Summary(profile(&cfg))
	return in, err
}

func (s *starter) open(in *inputs) (err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if in.statusRead, err = s.far(r); err != nil {
		return errors.Join(err, w.Close())
	}
	if in.statusWrite, err = s.far(w); err != nil {
		return err
	}
	if in.null, err = s.file(os.DevNull, os.O_RDWR); err != nil {
		return err
	}
	if s.stderr, w, err = os.Pipe(); err != nil {
		return err
	}
	if in.stderr, err = s.far(w); err != nil {
		return err
	}
	for _, c := range channels {
		fd, err := s.pair(c.fd, c.name)
		if err != nil {
			return err
		}
		in.fds = append(in.fds, named{c.name, fd, c.why})
	}
	for _, d := range s.cfg.Disks {
		if d.File == "" {
			in.allow(d, d.slotSize())
			continue
		}
		fd, err := s.file(d.File, d.flags())
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.Serial, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("disk %s: %w", d.Serial, os.NewSyscallError("fstat", err))
		}
		in.allow(d, st.Size)
		in.fds = append(in.fds, named{"disk_" + d.Serial, fd, d.File})
	}
	for _, n := range s.cfg.NICs {
		if n.Kind == Slot {
			continue
		}
		fd, err := s.borrow(n.File)
		if err != nil {
			return fmt.Errorf("network device %s: %w", n.MAC, err)
		}
		in.fds = append(in.fds, named{"nic_" + n.name(), fd, n.why()})
	}
	if s.cfg.State != nil {
		fd, err := s.borrow(s.cfg.State)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		in.fds = append(in.fds, named{"state", fd, stateWhy})
	} else if err := s.openBoot(in); err != nil {
		return err
	}
	if s.cfg.RAM != nil {
		if err := s.openGo(in); err != nil {
			return err
		}
	}
	return s.openCgroup(in)
}

// openGo makes the pipe by which the supervisor lets QEMU's process go on.
func (s *starter) openGo(in *inputs) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if in.goRead, err = s.far(r); err != nil {
		return errors.Join(err, w.Close())
	}
	in.goWrite, err = s.far(w)
	return err
}

// channels are the sockets of every machine, in the order of their descriptors.
var channels = []struct {
	fd        int
	name, why string
}{{fdQMP, "qmp", "the control socket"}, {fdAgent, "agent", "the agent's port"}, {fdConsole, "console", "the guest's serial console"}}

// allow takes the size of a disk into the limit of what QEMU may write.
func (in *inputs) allow(d Disk, size int64) {
	if !d.ReadOnly {
		in.largest = max(in.largest, size)
	}
}

// slotSize is the size of an empty slot in bytes.
func (d Disk) slotSize() int64 {
	if d.Size != 0 {
		return d.Size
	}
	return EmptySize
}

func (d Disk) flags() int {
	if d.ReadOnly {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

func (s *starter) file(name string, flags int) (int, error) {
	f, err := os.OpenFile(name, flags|unix.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return -1, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() && name != os.DevNull {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return -1, errors.Join(err, f.Close())
	}
	return s.far(f)
}

func (s *starter) openCgroup(in *inputs) error {
	if s.cfg.Cgroup == nil {
		return nil
	}
	tasks, dir, err := s.cfg.Cgroup.Join()
	if err != nil {
		return err
	}
	var failed error
	for _, t := range tasks {
		name := t.Name()
		fd, err := s.far(t)
		failed = errors.Join(failed, err)
		in.tasks = append(in.tasks, named{name: name, fd: fd})
	}
	if dir != nil {
		name := dir.Name()
		fd, err := s.far(dir)
		failed = errors.Join(failed, err)
		in.cgroup = named{name: name, fd: fd}
	}
	return failed
}
