package launch

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// Actor is who performs a step.
type Actor uint8

// The actors, see the package comment.
const (
	Host Actor = iota
	Stage
	Init
	Mounter
	actors
)

// String returns the actor's name as programs print it.
func (a Actor) String() string {
	return [...]string{"host", "stage", "init", "mounter"}[a]
}

// Slot names a place that holds the result of a step. The zero Slot is none.
type Slot uint16

// maxSlots bounds the memory that a fork prepares, not what a kernel can mount.
const maxSlots = 2047

// Step is one system call.
type Step struct {
	Actor Actor
	Call  Call
	Args  []Arg // at most six
	Why   string
	// Save receives the result.
	Save Slot
	// Tolerate lists error numbers that do not end the program; the result is
	// then the negated error number and is not saved.
	Tolerate []syscall.Errno

	phase   string // see Program.Phase
	kind    kind
	fd      bool                       // Save holds a descriptor that Build closes
	keep    []Arg                      // closeOthers: descriptors to leave open
	want    int64                      // result that is required, -1 for any
	run     func(func(Slot) int) error // goFunc
	child   Actor                      // fork: who starts there
	reap    bool                       // await: the value is a child's process ID
	message Message                    // await
	value   uintptr                    // given: the descriptor
}

type kind uint8

const (
	call        kind = iota // an ordinary system call
	fork                    // a clone whose child continues with its own steps
	closeOthers             // close_range over everything but keep
	await                   // host: read a record from the status pipe
	goFunc                  // host: ordinary Go between system calls (hooks)
	given                   // host: a descriptor that was opened before
)

// Tolerating makes the step's failure with one of errs harmless.
func (s *Step) Tolerating(errs ...syscall.Errno) *Step {
	s.Tolerate = append(s.Tolerate, errs...)
	return s
}

// Wanting requires the result n, such as the length of a write.
func (s *Step) Wanting(n int) *Step { s.want = int64(n); return s }

// To saves the result, a plain number, in slot.
func (s *Step) To(slot Slot) *Step { s.Save = slot; return s }

// ToFD saves the result, a descriptor, in slot. For host steps Build adds the
// close after its last use.
func (s *Step) ToFD(slot Slot) *Step { s.Save, s.fd = slot, true; return s }

// Arg is one argument of a step.
type Arg struct {
	kind argKind
	n    uintptr        // argInt
	slot Slot           // argSlot, argSlotAddr, argPath, and patched memory
	mem  unsafe.Pointer // argMem: memory that the kernel reads or writes
	off  uintptr        // patched memory: where the slot's value goes
	text string
}

type argKind uint8

const (
	argInt argKind = iota
	argSlot
	argSlotAddr
	argMem
	argPatched
	argPath
)

// Int is a plain number.
func Int(n int) Arg { return Arg{n: uintptr(n), text: strconv.Itoa(n)} }

// Flag is a number that prints as text, such as "MS_PRIVATE|MS_REC".
func Flag(n uintptr, text string) Arg { return Arg{n: n, text: text} }

// Null is a null pointer.
func Null() Arg { return Arg{text: "NULL"} }

// FD is a descriptor known before the program runs.
func FD(n int) Arg { return Arg{n: uintptr(n), text: strconv.Itoa(n)} }

// AtCWD is AT_FDCWD of openat(2).
func AtCWD() Arg { return Arg{n: ^uintptr(99), text: "AT_FDCWD"} }

// Str is a pointer to a NUL-terminated string. A string that itself holds a
// NUL is refused by Build.
func Str(s string) Arg {
	b := make([]byte, len(s)+1)
	copy(b, s)
	a := Arg{kind: argMem, mem: unsafe.Pointer(&b[0]), text: quote(s)}
	if strings.IndexByte(s, 0) >= 0 {
		a.text = badString
	}
	return a
}

const badString = "\x00"

// Buf is a pointer to b, printed as text. An empty b is a null pointer.
func Buf(b []byte, text string) Arg {
	if len(b) == 0 {
		return Arg{text: text}
	}
	return Arg{kind: argMem, mem: unsafe.Pointer(&b[0]), text: text}
}

// Patched is a pointer to b, into which slot's value is stored as eight bytes
// at offset off before the call.
func Patched(b []byte, off int, slot Slot, text string) Arg {
	if off < 0 || off+8 > len(b) {
		panic("launch: patch outside its buffer") // a planner's mistake, not input
	}
	return Arg{kind: argPatched, mem: unsafe.Pointer(&b[0]), off: uintptr(off), slot: slot, text: text}
}

// Strs is a pointer to a NULL-terminated array of strings, as execve(2) takes.
func Strs(list []string) Arg {
	v := &stringVector{ptrs: make([]unsafe.Pointer, len(list)+1)}
	a := Arg{kind: argMem}
	for i, s := range list {
		p := Str(s)
		if p.text == badString {
			a.text = badString
		}
		v.ptrs[i] = p.mem
	}
	a.mem = unsafe.Pointer(&v.ptrs[0])
	if a.text == "" {
		a.text = "[" + quoteList(list) + "]"
	}
	return a
}

// SockFprog is a pointer to the struct sock_fprog of seccomp(2), whose filter
// is insns: eight bytes an instruction. It prints as text.
func SockFprog(insns []byte, text string) Arg {
	if len(insns) == 0 {
		return Arg{text: text}
	}
	f := &struct {
		n      uint16
		filter unsafe.Pointer
	}{uint16(len(insns) / 8), unsafe.Pointer(&insns[0])}
	return Arg{kind: argMem, mem: unsafe.Pointer(f), text: text}
}

type stringVector struct{ ptrs []unsafe.Pointer }

// Printed returns the argument with another text.
func (a Arg) Printed(text string) Arg {
	if a.text != badString {
		a.text = text
	}
	return a
}

// Use is the value of a slot.
func Use(s Slot) Arg { return Arg{kind: argSlot, slot: s} }

// Addr is the address of a slot's eight bytes, for calls that store there or
// that send a slot's value.
func Addr(s Slot) Arg { return Arg{kind: argSlotAddr, slot: s} }

// Pathf is a path with one slot's decimal value in it, such as
// "/proc/%d/uid_map". Only the host can format it.
func Pathf(format string, s Slot) Arg { return Arg{kind: argPath, slot: s, text: format} }

// U64 encodes fields as the kernel's structures of 64-bit members.
func U64(fields ...uint64) []byte {
	b := make([]byte, 8*len(fields))
	for i, f := range fields {
		binary.NativeEndian.PutUint64(b[8*i:], f)
	}
	return b
}

func quoteList(list []string) string {
	const most = 8
	parts := make([]string, 0, most+1)
	for i, s := range list {
		if i == most {
			parts = append(parts, fmt.Sprintf("… %d more", len(list)-most))
			break
		}
		parts = append(parts, quote(s))
	}
	return strings.Join(parts, ", ")
}

// quote prints a string as strace does, without its tail when it is long.
func quote(s string) string {
	const most = 4096
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
