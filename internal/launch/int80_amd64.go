package launch

// HasI386 tells that a Trial may be made as 32-bit programs do. Where the kernel
// does not know them, the child dies of SIGSEGV.
const HasI386 = true

func int80(nr, a, b, c uintptr) uintptr
