package seccomp

//go:generate go run gen_tables.go

const (
	noSyscall = -1
	// privateMark is where ARM's private calls start in the tables, and
	// armPrivate where they start in the kernel (__ARM_NR_BASE).
	privateMark = 0x7f00
	armPrivate  = 0x0f0000
)

// syscallName returns the name with this index.
func syscallName(i int) string {
	start := 0
	if i > 0 {
		start = int(syscallEnds[i-1])
	}
	return syscallNames[start:syscallEnds[i]]
}

// syscallIndex finds a name in the tables by binary search. The tables are
// constant data: a program that never compiles a filter pays nothing for them.
func syscallIndex(name string) (int, bool) {
	lo, hi := 0, len(syscallEnds)
	for lo < hi {
		mid := (lo + hi) / 2
		switch n := syscallName(mid); {
		case n == name:
			return mid, true
		case n < name:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}
