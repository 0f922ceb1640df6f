package protocol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Version is the version of the protocol. Both sides must have the same: the
// initramfs that holds the agent is made by the command that starts the guest.
const Version = 2

const (
	magic    = "bulkhead"
	maxHello = 1024
	maxName  = 128 // of a kernel release or an agent's version
)

// Hello is how each side begins.
type Hello struct {
	Magic   string `json:"magic"`
	Version int    `json:"version"`
	Kernel  string `json:"kernel,omitempty"` // the guest kernel's release
	Agent   string `json:"agent,omitempty"`  // the version of the agent
}

func (h Hello) check() error {
	if h.Magic != magic {
		return violation("the other side is no agent and no host")
	}
	if h.Version != Version {
		return fmt.Errorf("%w: it speaks %d, this side %d", ErrVersion, h.Version, Version)
	}
	for _, name := range []string{h.Kernel, h.Agent} {
		if len(name) > maxName || clean(name) != name {
			return violation("a name in Hello is too long or not printable")
		}
	}
	return nil
}

// Host begins a session as the host. It owns conn, and returns when the guest
// has said hello or ctx has ended. Closing conn must end a Read and a Write.
func Host(ctx context.Context, conn io.ReadWriteCloser) (*Session, error) {
	return begin(ctx, conn, true, Hello{})
}

// Guest begins a session as the guest, which says hello first: h holds Kernel
// and Agent. Like Host, it owns conn.
func Guest(ctx context.Context, conn io.ReadWriteCloser, h Hello) (*Session, error) {
	return begin(ctx, conn, false, h)
}

// Resume goes on, as the host, with a session whose guest was saved when it had
// begun and nothing else had been said: theirs is what its Peer was. It owns
// conn.
func Resume(conn io.ReadWriteCloser, theirs Hello) (*Session, error) {
	if err := theirs.check(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("go on with the agent: %w", err)
	}
	return newSession(conn, true, theirs), nil
}

func begin(ctx context.Context, conn io.ReadWriteCloser, host bool, ours Hello) (*Session, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	theirs, err := greet(conn, host, ours)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if host {
			return nil, fmt.Errorf("greet the agent: %w", err)
		}
		return nil, fmt.Errorf("greet the host: %w", err)
	}
	return newSession(conn, host, theirs), nil
}

func greet(conn io.ReadWriter, host bool, ours Hello) (Hello, error) {
	ours.Magic, ours.Version = magic, Version
	if !host {
		if err := sendHello(conn, ours); err != nil {
			return Hello{}, err
		}
	}
	theirs, err := readHello(conn)
	if host && (err == nil || errors.Is(err, ErrVersion)) {
		// A guest of another version is told ours, so that it can say so too.
		err = errors.Join(err, sendHello(conn, ours))
	}
	return theirs, err
}

func sendHello(w io.Writer, h Hello) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(b) > maxHello {
		return fmt.Errorf("hello of %d bytes is longer than %d", len(b), maxHello)
	}
	_, err = w.Write(append(appendHeader(nil, frameHello, 0, len(b)), b...))
	return err
}

func readHello(r io.Reader) (h Hello, err error) {
	var b [headerSize]byte
	if _, err = io.ReadFull(r, b[:]); err != nil {
		return h, ended(err)
	}
	head, err := parseHeader(b)
	if err != nil {
		return h, err
	}
	if head.kind != frameHello {
		return h, violation("frame of type %d where hello belongs", head.kind)
	}
	payload := make([]byte, head.length)
	if _, err = io.ReadFull(r, payload); err != nil {
		return h, ended(err)
	}
	if err = json.Unmarshal(payload, &h); err != nil {
		return h, violation("hello: %w", err)
	}
	return h, h.check()
}

// ended names the end of the byte stream, in the forms that it takes.
func ended(err error) error {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, end) {
			return ErrEnded
		}
	}
	return err
}

// clean replaces what could move a terminal's cursor or worse: a guest chooses
// the text, and a person reads it.
func clean(s string) string {
	out := []rune(s) // what is not UTF-8 becomes U+FFFD
	for i, r := range out {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			out[i] = '?'
		}
	}
	return string(out)
}
