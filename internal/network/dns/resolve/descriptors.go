package resolve

// The descriptors that a resolver starts with. The filter of its system calls
// knows them: it may send to addresses of its choice by the UDP sockets alone,
// and can close none of the first FDOwn, so that nothing else takes their
// numbers. Numbers that are not used hold a copy of another descriptor.
const (
	FDControl = 0 // a byte that says go, a byte that says ready
	FDLog     = 2
	FDDialer  = 3 // not 1: package os ends a program that cannot write to that
	FDUDP     = 4
	FDTCP     = 8
	FDOwn     = 16 // from here on, what it opens itself

	// MaxListen is how many addresses it listens on, a power of two.
	MaxListen = 4
	// MaxFiles is the limit of its descriptors: waiting questions and connections
	// with room to spare. A power of two.
	MaxFiles = 2048
)
