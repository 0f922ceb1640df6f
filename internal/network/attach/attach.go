package attach

import (
	"context"
	"errors"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Config says which program makes networks, and where.
type Config struct {
	// Program is the path of bulkhead-network, DNSProgram that of bulkhead-dns,
	// which may be "".
	Program    string `json:"program"`
	DNSProgram string `json:"dnsProgram,omitempty"`
	// Root and Run are the state directory and the run-time directory.
	Root string `json:"root"`
	Run  string `json:"run"`
}

// Attachment is a workload's place in its networks.
type Attachment struct {
	network.Prepared
	// Taps are the tap devices, in the order of NICs, where they were asked for;
	// Reserved are bound sockets, to be kept open while the workload runs. Both are
	// the caller's to close.
	Taps, Reserved []*os.File
}

// Start starts the program, which prepares what r asks for. Errors wrap those of
// package network. The program runs until Enter or Close, or until ctx ends.
func Start(ctx context.Context, c Config, r network.Request) (*Attachment, error) {
	return nil, errors.ErrUnsupported
}

// Enter has the interfaces made in the workload's network namespace. It is called
// once, and not for taps.
func (a *Attachment) Enter(ctx context.Context, netns *os.File) error { return errors.ErrUnsupported }

// Close ends the program if it still runs. The workload stays attached, Taps and
// Reserved stay open.
func (a *Attachment) Close() error { return nil }

// Release takes back, through the program, all that a workload has in networks. It
// may be called again, and after any crash.
func Release(ctx context.Context, c Config, id workload.ID) error { return errors.ErrUnsupported }
