package pid1

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
)

// slewBelow is the difference up to which the clock is adjusted gradually, so
// that it never goes backwards for a running program: at most 0.5 ms in a
// second, adjtime(3).
const slewBelow = 100 * time.Millisecond

// setClock sets the wall clock.
func setClock(now time.Time) error {
	if off := time.Until(now.Round(0)); off.Abs() < slewBelow {
		return slew(off)
	}
	ts, err := unix.TimeToTimespec(now)
	if err != nil {
		return fmt.Errorf("set the clock to %v: %w", now, err)
	}
	return os.NewSyscallError("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
}

// shiftClock moves the wall clock.
func shiftClock(d time.Duration) error {
	if d.Abs() < slewBelow {
		return slew(d)
	}
	by := unix.Timeval{Sec: int64(d / time.Second), Usec: int64(d % time.Second)} // nanoseconds, by ADJ_NANO
	if by.Usec < 0 {
		by.Sec, by.Usec = by.Sec-1, by.Usec+int64(time.Second)
	}
	_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: by})
	return os.NewSyscallError("adjtimex", err)
}

// slew moves the wall clock gradually, instead of what is left of the last time.
func slew(d time.Duration) error {
	// The old way of adjtimex(2) needs no state that somebody keeps up.
	_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: d.Round(time.Microsecond).Microseconds()})
	return os.NewSyscallError("adjtimex", err)
}

// reseed mixes seed into the kernel's random generator, counts it as random,
// and makes the generator use it at once: random(4). Two clones of one memory
// would otherwise go on with the same numbers.
func reseed(seed []byte) error {
	if len(seed) < protocol.MinSeed || len(seed) > protocol.MaxSeed {
		return fmt.Errorf("seed of %d bytes: want %d to %d", len(seed), protocol.MinSeed, protocol.MaxSeed)
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct rand_pool_info: the entropy in bits, the size in bytes, the bytes,
	// for which it has room in whole words.
	info := make([]uint32, 2+(len(seed)+3)/4)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&info[0])), 4*len(info))
	binary.NativeEndian.PutUint32(b, uint32(8*len(seed)))
	binary.NativeEndian.PutUint32(b[4:], uint32(len(seed)))
	copy(b[8:], seed)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	clear(info)
	if errno != 0 {
		return os.NewSyscallError("ioctl RNDADDENTROPY", errno)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), rndReseedCRNG, 0); err != nil {
		return os.NewSyscallError("ioctl RNDRESEEDCRNG", err)
	}
	return nil
}

// rndReseedCRNG is RNDRESEEDCRNG of linux/random.h, _IO('R', 7).
const rndReseedCRNG = 0x5207
