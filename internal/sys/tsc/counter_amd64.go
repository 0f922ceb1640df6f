package tsc

const implemented = true

// counter reads the time stamp counter of the processor that this runs on: RDTSC,
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2B.
func counter() uint64
