package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of a session.
const (
	// MaxPayload is the most that one frame holds, in bytes.
	MaxPayload = 32 << 10
	// MaxStreams is how many streams there may be at a time.
	MaxStreams = 1024
	// Window is how many bytes of one stream may be under way in one direction.
	Window = 256 << 10

	headerSize = 8
	// giveBack is how much must have been read before credit for it is given.
	giveBack = Window / 4
	// batch is how many bytes of frames are gathered before they are written.
	batch = 64 << 10
)

// frameType is the type of a frame.
type frameType byte

const (
	frameHello  frameType = iota + 1 // JSON of Hello
	frameOpen                        // nothing
	frameData                        // bytes, at least one
	frameCredit                      // number of bytes: 4 bytes
	frameEnd                         // nothing
	frameClose                       // nothing
	frameTypes
)

// limits are the least and the most that each type holds.
var limits = [frameTypes]struct{ min, max int }{
	frameHello: {2, maxHello}, frameData: {1, MaxPayload}, frameCredit: {4, 4},
}

// Errors of sessions and streams.
var (
	// ErrProtocol tells that the other side does not follow the protocol.
	ErrProtocol = errors.New("protocol error")
	// ErrVersion tells that the other side speaks another version.
	ErrVersion = errors.New("other protocol version")
	// ErrTooLong tells that a message was not sent, as the other side would not
	// take it.
	ErrTooLong = errors.New("message is too long")
	// ErrReset tells that the other side closed a stream without ending it.
	ErrReset = errors.New("stream was closed by the other side")
	// ErrClosed tells that this side closed the stream or the session.
	ErrClosed = errors.New("closed")
	// ErrEnded tells that the other side ended the session.
	ErrEnded = errors.New("session was ended by the other side")
)

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}

// header is the head of a frame.
type header struct {
	kind   frameType
	length int
	stream uint32
}

func parseHeader(b [headerSize]byte) (header, error) {
	h := header{frameType(b[0]), int(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint32(b[4:])}
	if h.kind == 0 || h.kind >= frameTypes || b[1] != 0 {
		return h, violation("frame of unknown type % x", b[:2])
	}
	if l := limits[h.kind]; h.length < l.min || h.length > l.max {
		return h, violation("frame of type %d with %d bytes", h.kind, h.length)
	}
	if (h.stream == 0) != (h.kind == frameHello) || h.stream > MaxStreams {
		return h, violation("frame of type %d for stream %d", h.kind, h.stream)
	}
	return h, nil
}

func appendHeader(b []byte, kind frameType, stream uint32, length int) []byte {
	b = append(b, byte(kind), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return binary.BigEndian.AppendUint32(b, stream)
}
