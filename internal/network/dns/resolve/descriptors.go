package resolve

// The descriptors that a resolver starts with. The filter of its system calls
// knows them: it may send to addresses of its choice by the UDP sockets alone,
// and can close none of the first FDOwn, so that nothing else takes their
// numbers. Numbers that are not used hold a copy of another descriptor.
const (
	FDControl = 0 // a byte that says go, a byte that says ready
	FDLog     = 2
	FDDialer  = 3 // not 1: package os ends a program that cannot write to that
	FDTCP     = 4
	FDUDP     = 16 // those of one address after the other
	FDOwn     = 32 // from here on, what it opens itself

	// MaxListen is how many addresses it listens on.
	MaxListen = 4
	// Queues is how many sockets for UDP each address has. By its own address a
	// workload fills one of them only: while that overflows, the others are read.
	Queues = 4
	MaxUDP = MaxListen * Queues // a power of two
	// MaxFiles is the limit of its descriptors: waiting questions and connections
	// with room to spare. A power of two.
	MaxFiles = 2048
)
