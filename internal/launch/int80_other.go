//go:build !amd64

package launch

// HasI386 tells that a Trial may be made as 32-bit programs do.
const HasI386 = false

//go:nosplit
func int80(_, _, _, _ uintptr) uintptr { return 0 }
