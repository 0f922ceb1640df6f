//go:build !amd64

package attacks

import "golang.org/x/sys/unix"

// iopl does not exist here.
func iopl(int) error { return unix.ENOSYS }
