package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Late holds the arguments of an execve(2) that are settled after the process
// that calls it was forked: memory that this process shares with its children,
// at one address in all of them.
//
//	┌──────────────────┬──────────────────┬─────────────────────────────────┐
//	│ argv, pointers   │ envp, pointers   │ the path, then what they lead to │
//	└──────────────────┴──────────────────┴─────────────────────────────────┘
//
// Set must have been called when the step is performed: until then the path is
// empty, and execve fails with ENOENT.
type Late struct{ mem []byte }

// The layout, in bytes. Pages that nothing is written to take no memory.
const (
	lateVector  = 64 << 10 // room of each vector: 8,191 strings and the end
	lateStrings = 2 * lateVector
	lateSize    = lateStrings + 512<<10
)

// ErrTooMuch tells that a program's path, arguments and environment have no room
// in a Late: more than 512 KiB in all, or 8,191 of either.
var ErrTooMuch = errors.New("too many arguments or variables for a process that exists already")

// NewLate returns memory for one program.
func NewLate() (*Late, error) {
	mem, err := unix.Mmap(-1, 0, lateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &Late{mem}, nil
}

// Args are the arguments of Execve.
func (l *Late) Args() (path, argv, env Arg) {
	at := func(off int, text string) Arg {
		return Arg{kind: argMem, mem: unsafe.Pointer(&l.mem[off]), text: text}
	}
	return at(lateStrings, "$program"), at(0, "$arguments"), at(lateVector, "$environment")
}

// Set says what is executed. Nothing is changed with an error, which wraps
// ErrTooMuch where there is no room.
func (l *Late) Set(path string, args, env []string) error {
	if l.mem == nil {
		return os.ErrClosed
	}
	size := len(path) + 1
	for _, list := range [][]string{args, env} {
		if len(list) >= lateVector/int(unsafe.Sizeof(uintptr(0))) {
			return fmt.Errorf("%w: %d", ErrTooMuch, len(list))
		}
		for _, s := range list {
			size += len(s) + 1
		}
	}
	if size > lateSize-lateStrings {
		return fmt.Errorf("%w: %d bytes", ErrTooMuch, size)
	}
	for _, list := range [][]string{{path}, args, env} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return fmt.Errorf("%q holds a NUL byte", s)
			}
		}
	}
	at := lateStrings
	add := func(s string) uintptr {
		from := &l.mem[at]
		at += copy(l.mem[at:], s)
		l.mem[at] = 0
		at++
		return uintptr(unsafe.Pointer(from)) // does not move: it is not the collector's
	}
	add(path)
	for i, list := range [][]string{args, env} {
		vector := unsafe.Slice((*uintptr)(unsafe.Pointer(&l.mem[i*lateVector])), lateVector/int(unsafe.Sizeof(uintptr(0))))
		for n, s := range list {
			vector[n] = add(s)
		}
		vector[len(list)] = 0
	}
	return nil
}

// Close gives the memory up here. The children keep theirs until they execute
// the program, or end.
func (l *Late) Close() {
	if l.mem != nil {
		_ = unix.Munmap(l.mem) // fails only for what is not mapped
		l.mem = nil
	}
}
