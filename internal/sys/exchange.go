package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Exchange swaps two files of one file system in one step, see RENAME_EXCHANGE in
// rename(2). The error wraps os.ErrNotExist if one of them is missing.
func Exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}
