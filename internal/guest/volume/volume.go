// Package volume mounts a directory or file of the host in a guest. The kernel
// of the guest speaks FUSE; this package carries its messages between
// /dev/fuse and a stream, at whose other end the host's file server answers.
package volume

import (
	"errors"
	"io"
)

// Options of Mount.
type Options struct {
	// File says that the volume is one regular file; it is mounted on a file.
	File bool
}

// Mount mounts the volume that is served at the other end of conn on dir, and
// returns when the file system is ready. unmount takes it away and closes conn.
// When conn ends by itself, whoever uses the volume gets errors
// (ENOTCONN, ECONNABORTED) instead of hanging.
func Mount(dir string, conn io.ReadWriteCloser, o Options) (unmount func() error, err error) {
	return nil, errors.ErrUnsupported
}
