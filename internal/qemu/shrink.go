package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

// Loaded gives up the copies of the kernel and the initramfs. To be called when
// the guest runs: it has its own by then. The memory of the host that they took
// is free at once (fallocate(2), FALLOC_FL_PUNCH_HOLE); QEMU's mappings of them
// read as zeros.
func (m *Machine) Loaded() error {
	m.mu.Lock()
	boot := m.boot
	m.boot = nil
	m.mu.Unlock()
	var failed error
	for _, f := range boot {
		st, err := f.Stat()
		if err == nil && st.Size() > 0 {
			err = os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, st.Size()))
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("empty the copy of the %s: %w", f.Name(), err))
		}
		f.Close()
	}
	return failed
}

// Trim asks the kernel to take from QEMU the pages of its program and its
// libraries, most of which only the start needed. They are clean, and those that
// are used again come back from the host's cache of files, which is told to read
// them anew. Where there is swap, what the loader relocated may go there. The
// guest's memory is not touched, nor what QEMU has allocated.
//
// Pages that another QEMU has mapped as well stay: they are shared. What fails
// costs memory only.
func (m *Machine) Trim() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", m.Pid()))
	if err != nil {
		return m.unlessGone(err)
	}
	defer f.Close()
	ranges, err := programRanges(f, m.binds)
	if err != nil {
		return m.unlessGone(fmt.Errorf("read QEMU's memory map: %w", err))
	}
	// The pidfd makes sure that it is QEMU still, whatever the map was of.
	conn, err := m.pidfd.SyscallConn()
	if err != nil {
		return m.unlessGone(err)
	}
	var advised error
	err = conn.Control(func(fd uintptr) { _, advised = sys.PageOut(int(fd), ranges) })
	if advised != nil {
		err = fmt.Errorf("take unused memory from QEMU: %w", os.NewSyscallError("process_madvise", advised))
	}
	readAhead(m.binds)
	return m.unlessGone(err)
}

// unlessGone is err, or nil if QEMU has ended, which explains any.
func (m *Machine) unlessGone(err error) error {
	if err == nil {
		return nil
	}
	fds := []unix.PollFd{{Events: unix.POLLIN}}
	if conn, e := m.pidfd.SyscallConn(); e != nil || conn.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		unix.Poll(fds, 0) //nolint:errcheck // then it is not known to be gone
	}) != nil || fds[0].Revents != 0 { // pidfd_open(2): readable when the process ends
		return nil
	}
	return err
}

// maxProgramRanges bounds what is made of a memory map: QEMU may be in anybody's
// hands.
const maxProgramRanges = 4 * maxLibraries

// programRanges finds the read-only mappings of files in QEMU's root in a
// memory map, proc_pid_maps(5).
func programRanges(r io.Reader, binds []bind) ([]sys.Range, error) {
	ours := map[string]bool{}
	for _, b := range binds {
		ours[b.to] = true
	}
	var ranges []sys.Range
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(ranges) < maxProgramRanges {
		// 5581e0400000-5581e0800000 r-xp 00321000 08:01 1234   /qemu
		f := strings.Fields(lines.Text())
		if len(f) != 6 || strings.Contains(f[1], "w") || !ours[f[5]] {
			continue
		}
		lo, hi, _ := strings.Cut(f[0], "-")
		from, err1 := strconv.ParseUint(lo, 16, strconv.IntSize)
		to, err2 := strconv.ParseUint(hi, 16, strconv.IntSize)
		if err := errors.Join(err1, err2); err != nil || from >= to {
			return nil, fmt.Errorf("%q is not understood: %w", lines.Text(), errors.Join(err, strconv.ErrRange))
		}
		ranges = append(ranges, sys.Range{From: uintptr(from), Length: uintptr(to - from)})
	}
	return ranges, lines.Err()
}

// readAhead has the kernel read files into its cache, where they are not there
// already, and does not wait for it (posix_fadvise(2), POSIX_FADV_WILLNEED): the
// next machine starts from there.
func readAhead(binds []bind) {
	for _, b := range binds {
		f, err := os.OpenFile(b.from, os.O_RDONLY|unix.O_NONBLOCK, 0) // what is a FIFO by now must not hold us
		if err != nil {
			continue
		}
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_WILLNEED) //nolint:errcheck // advice
		f.Close()
	}
}
