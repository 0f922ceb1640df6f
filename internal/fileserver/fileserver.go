package fileserver

import (
	"context"
	"errors"
	"io"
)

// Config says what a Server shows to a guest.
type Config struct {
	// Program is the path of bulkhead-fileserver, a static binary.
	Program string
	// Source is the directory or regular file on the host.
	Source string
	// ReadOnly refuses every change, on the host.
	ReadOnly bool
	// Recursive shows what is mounted below Source too.
	Recursive bool
	// IDBase is the user ID, in the guest's initial user namespace, of the
	// workload's root. Host IDs u below IDCount are IDBase+u in the guest.
	IDBase, IDCount uint32
	// Cgroups are directories of cgroups that exist, one for each hierarchy,
	// v1 or v2. The helper is in them before it runs any code of its own.
	Cgroups []string
}

// Start starts the helper. It runs until Close, until the stream ends, or
// until ctx ends.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	return nil, errors.ErrUnsupported
}

// Server is one volume, served by a confined helper process.
type Server struct{}

// Conn is the stream of FUSE messages: requests are written to it, replies
// read from it. There is one; closing it ends the helper.
func (s *Server) Conn() io.ReadWriteCloser { return nil }

// File says that the source is a regular file: the guest mounts it on a file.
func (s *Server) File() bool { return false }

// Pid is the helper's process ID.
func (s *Server) Pid() int { return 0 }

// Close ends the helper and waits until it is gone.
func (s *Server) Close() error { return nil }

// Wait waits until the helper is gone. It returns nil after Close and after an
// orderly end of the stream.
func (s *Server) Wait() error { return nil }
