// Package signame translates between signal numbers and their names, for
// flags such as --signal and --stop-signal and for images' STOPSIGNAL. The
// numbers are those of Linux on x86 and arm (signal(7)).
package signame

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// The range of real-time signals as glibc counts it: the kernel's begin at 32,
// and glibc keeps two for itself.
const (
	rtMin = 34
	rtMax = 64
)

// numbers maps names without "SIG" to numbers, synonyms included.
var numbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8,
	"KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16,
	"CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23,
	"XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30,
	"SYS": 31, "UNUSED": 31,
}

// names maps numbers to the name that is shown.
var names = [...]string{
	1: "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
	"ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
	"VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// Parse returns the signal that s names: "TERM", "SIGTERM", "15", "RTMIN+3",
// in any case.
func Parse(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := numbers[name]; ok {
		return syscall.Signal(n), nil
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 1 && n <= rtMax {
		return syscall.Signal(n), nil
	}
	if n, ok := realTime(name); ok {
		return syscall.Signal(n), nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

// realTime parses RTMIN, RTMIN+n, RTMAX and RTMAX-n.
func realTime(name string) (int, bool) {
	base, sign := rtMin, 1
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		base, sign = rtMax, -1
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, false
		}
	}
	if rest == "" {
		return base, true
	}
	if (rest[0] != '+' || sign < 0) && (rest[0] != '-' || sign > 0) {
		return 0, false
	}
	off, err := strconv.ParseUint(rest[1:], 10, 8)
	n := base + sign*int(off)
	return n, err == nil && n >= rtMin && n <= rtMax
}

// Name returns the name of sig with "SIG", such as "SIGTERM" or "SIGRTMIN+3",
// and the number in decimal when it has none.
func Name(sig syscall.Signal) string {
	n := int(sig)
	switch {
	case n >= 1 && n < len(names):
		return "SIG" + names[n]
	case n == rtMin:
		return "SIGRTMIN"
	case n > rtMin && n <= rtMax:
		return fmt.Sprintf("SIGRTMIN+%d", n-rtMin)
	}
	return strconv.Itoa(n)
}
