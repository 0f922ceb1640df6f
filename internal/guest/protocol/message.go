package protocol

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Type is the type of a message.
type Type byte

// The types of messages.
const (
	TypeRequest     Type = iota + 1 // JSON of Request
	TypeReply                       // JSON of Reply
	TypeExit                        // JSON of workload.Exit
	TypeStdin                       // bytes
	TypeCloseStdin                  // nothing
	TypeWindow                      // number of bytes: 4 bytes
	TypeResize                      // rows, columns: 2 bytes each
	TypeStdout                      // bytes; also what a terminal shows
	TypeStderr                      // bytes
	TypeCloseOutput                 // 1 or 2, a descriptor: 1 byte
	TypeNotice                      // a line of text
	typeEnd
)

// Limits of messages, in bytes.
const (
	MessageHeader = 4
	// MaxData is the most that Stdin, Stdout and Stderr hold: a message of them
	// fits a frame.
	MaxData    = MaxPayload - MessageHeader
	MaxRequest = 4 << 20 // a Spec may hold a seccomp profile
	MaxReply   = 1 << 20
	MaxNotice  = 4 << 10
	maxExit    = 64 << 10 // its error may be of characters that JSON writes as six
	// StdinWindow is how much of Stdin may be under way.
	StdinWindow = 64 << 10
)

// maxMessage is the most that a message of each type may hold.
var maxMessage = [typeEnd]int{
	TypeRequest: MaxRequest, TypeReply: MaxReply, TypeExit: maxExit,
	TypeStdin: MaxData, TypeStdout: MaxData, TypeStderr: MaxData,
	TypeWindow: 4, TypeResize: 4, TypeCloseOutput: 1, TypeNotice: MaxNotice,
}

// Reader reads messages. It never reads beyond the one that it returns.
type Reader struct {
	r      io.Reader
	header [MessageHeader]byte
	buf    []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// growth is how much memory is given to a long message at a time, as its bytes
// arrive, whatever length it claims.
const growth = 32 << 10

// Next returns the next message. The payload is valid until the next call. The
// error is io.EOF at the end between two messages.
func (r *Reader) Next() (Type, []byte, error) {
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = violation("cut off in a message's header")
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(r.header[:])
	t, length := Type(n>>24), int(n&0xffffff)
	if t == 0 || t >= typeEnd || length > maxMessage[t] {
		return 0, nil, violation("message of type %d with %d bytes", t, length)
	}
	if cap(r.buf) > growth && length <= growth {
		r.buf = nil // do not keep what one long message needed
	}
	r.buf = r.buf[:0]
	for len(r.buf) < length {
		have := len(r.buf)
		want := have + min(length-have, growth)
		if cap(r.buf) < want {
			r.buf = append(make([]byte, 0, max(want, 2*have)), r.buf...)
		}
		r.buf = r.buf[:want]
		if _, err := io.ReadFull(r.r, r.buf[have:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = violation("cut off in a message")
			}
			return 0, nil, err
		}
	}
	return t, r.buf, nil
}

// Request reads a stream's first message.
func (r *Reader) Request() (*Request, error) {
	var req Request
	return &req, r.decode(TypeRequest, &req)
}

// Reply reads the answer to a Request. Its error is returned as such: the
// sentinels of package workload are recognized in it.
func (r *Reader) Reply() (*Reply, error) {
	var reply Reply
	if err := r.decode(TypeReply, &reply); err != nil {
		return nil, err
	}
	return &reply, reply.check()
}

// ParseReply reads the payload of a Reply that comes after other messages.
func ParseReply(payload []byte) (*Reply, error) {
	var reply Reply
	if err := json.Unmarshal(payload, &reply); err != nil {
		return nil, violation("reply: %w", err)
	}
	return &reply, reply.check()
}

func (r *Reply) check() error {
	if e := r.Error; e != nil {
		if len(e.Message) > maxError {
			return violation("error of %d bytes", len(e.Message))
		}
		e.Message = clean(e.Message)
	}
	if err := r.Described.check(); err != nil {
		return err
	}
	if err := r.Phases.check(); err != nil {
		return err
	}
	if err := r.Status.check(); err != nil {
		return err
	}
	return checkUsage(r.Usage)
}

func (r *Reader) decode(t Type, v any) error {
	got, payload, err := r.Next()
	if err != nil {
		return err
	}
	if got != t {
		return violation("message of type %d where %d belongs", got, t)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return violation("message of type %d: %w", t, err)
	}
	return nil
}

// ParseExit reads the payload of Exit.
func ParseExit(payload []byte) (workload.Exit, error) {
	var e workload.Exit
	if err := json.Unmarshal(payload, &e); err != nil {
		return e, violation("exit: %w", err)
	}
	if e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > 64 || len(e.Error) > maxError {
		return e, violation("exit with status %d by signal %d", e.Code, e.Signal)
	}
	e.Error = clean(e.Error)
	return e, nil
}

// ParseNotice reads the payload of Notice.
func ParseNotice(payload []byte) string { return clean(string(payload)) }

// ParseNumber reads the payload of Window.
func ParseNumber(payload []byte) (uint32, error) {
	if len(payload) != 4 {
		return 0, violation("%d bytes where a number belongs", len(payload))
	}
	return binary.BigEndian.Uint32(payload), nil
}

// ParseSize reads the payload of Resize.
func ParseSize(payload []byte) (rows, cols uint16, err error) {
	n, err := ParseNumber(payload)
	return uint16(n >> 16), uint16(n), err
}

// ParseDescriptor reads the payload of CloseOutput: 1 or 2.
func ParseDescriptor(payload []byte) (int, error) {
	if len(payload) != 1 || payload[0] != 1 && payload[0] != 2 {
		return 0, violation("% x where a descriptor belongs", payload)
	}
	return int(payload[0]), nil
}

// Writer writes messages, from any goroutine, each in one Write.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Bytes writes b[MessageHeader:], filling in the header before it, so that
// nothing is copied.
func (w *Writer) Bytes(t Type, b []byte) error {
	n := len(b) - MessageHeader
	if n > maxMessage[t] {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrTooLong, n, maxMessage[t])
	}
	binary.BigEndian.PutUint32(b, uint32(t)<<24|uint32(n))
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(b)
	return err
}

// JSON writes v: a Request or a Reply.
func (w *Writer) JSON(t Type, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.payload(t, p...)
}

// Exit writes an Exit, whose error is cut.
func (w *Writer) Exit(e workload.Exit) error {
	e.Error = cut(e.Error, maxError)
	return w.JSON(TypeExit, e)
}

// CloseStdin writes a CloseStdin.
func (w *Writer) CloseStdin() error { return w.payload(TypeCloseStdin) }

// Window writes a Window of n bytes.
func (w *Writer) Window(n uint32) error {
	return w.payload(TypeWindow, binary.BigEndian.AppendUint32(nil, n)...)
}

// Resize writes a Resize.
func (w *Writer) Resize(rows, cols uint16) error {
	return w.payload(TypeResize, binary.BigEndian.AppendUint32(nil, uint32(rows)<<16|uint32(cols))...)
}

// CloseOutput writes a CloseOutput of descriptor fd.
func (w *Writer) CloseOutput(fd int) error { return w.payload(TypeCloseOutput, byte(fd)) }

// Notice writes a line, cut at MaxNotice.
func (w *Writer) Notice(line string) error {
	return w.payload(TypeNotice, []byte(line[:min(len(line), MaxNotice)])...)
}

func (w *Writer) payload(t Type, p ...byte) error {
	return w.Bytes(t, append(make([]byte, MessageHeader, MessageHeader+len(p)), p...))
}
