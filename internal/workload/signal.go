package workload

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// signals are the numbers that x86-64 and arm64 share; see signal(7).
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8,
	"KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16,
	"CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23,
	"XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30,
	"SYS": 31,
}

// The real-time signals that the C library leaves to programs.
const sigRTMin, sigRTMax = 34, 64

// ParseSignal reads a signal in the forms that Docker takes: a number from 1 to
// 64, or a name in any case with or without SIG, such as "SIGTERM", "hup" or
// "RTMIN+3".
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("signal %d: want 1 to %d", n, sigRTMax)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig, ok := signals[name]; ok {
		return sig, nil
	}
	for prefix, base := range map[string]int{"RTMIN": sigRTMin, "RTMAX": sigRTMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil || rest[0] != '+' && rest[0] != '-' {
				continue
			}
		}
		if n < -sigRTMax || n > sigRTMax || base+n < sigRTMin || base+n > sigRTMax {
			continue
		}
		return syscall.Signal(base + n), nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
