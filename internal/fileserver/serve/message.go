package serve

import (
	"bytes"
	"encoding/binary"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// body reads the fields of a request in order. Reading past the end gives zeros
// and sets short, which a handler checks before it acts on them.
type body struct {
	b     []byte
	short bool
}

func (r *body) take(n int) []byte {
	if len(r.b) < n {
		r.short, r.b = true, nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *body) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *body) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// text returns the bytes before the next NUL.
func (r *body) text() string {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		r.short, r.b = true, nil
		return ""
	}
	s := string(r.b[:i])
	r.b = r.b[i+1:]
	return s
}

// name returns the next text if it is one component of a path, that is one
// that names an entry of a directory and nothing above it.
func (r *body) name() (string, error) {
	s := r.text()
	switch {
	case r.short:
		return "", syscall.EINVAL
	case len(s) > 255: // NAME_MAX
		return "", syscall.ENAMETOOLONG
	case s == "" || s == "." || s == ".." || bytes.IndexByte([]byte(s), '/') >= 0:
		return "", syscall.EINVAL
	}
	return s, nil
}

// request is one message in flight with the buffer for its reply. There are as
// many as workers, made once.
type request struct {
	in  []byte
	out []byte // header and body of the reply
	fuse.InHeader
	body
	silent bool // has no reply
}

func newRequest() *request {
	return &request{in: make([]byte, fuse.MaxRequest), out: make([]byte, 0, fuse.MaxReply)}
}

func (r *request) begin(n int) {
	r.InHeader = fuse.ParseInHeader(r.in)
	r.body = body{b: r.in[fuse.InHeaderSize:n]}
	r.out = append(r.out[:0], make([]byte, fuse.OutHeaderSize)...)
	r.silent = false
}

func (r *request) put32(values ...uint32) {
	for _, v := range values {
		r.out = binary.LittleEndian.AppendUint32(r.out, v)
	}
}

func (r *request) put64(values ...uint64) {
	for _, v := range values {
		r.out = binary.LittleEndian.AppendUint64(r.out, v)
	}
}

// room returns n bytes at the end of the reply's buffer to read into; extend
// makes the first of them part of the reply.
func (r *request) room(n int) []byte {
	n = min(n, cap(r.out)-len(r.out))
	return r.out[len(r.out) : len(r.out)+n]
}

func (r *request) extend(n int) { r.out = r.out[:len(r.out)+n] }

// end fills in the reply's header. An error has no body.
func (r *request) end(e syscall.Errno) []byte {
	if e != 0 {
		r.out = r.out[:fuse.OutHeaderSize]
	}
	le := binary.LittleEndian
	le.PutUint32(r.out, uint32(len(r.out)))
	le.PutUint32(r.out[4:], uint32(-int32(e)))
	le.PutUint64(r.out[8:], r.Unique)
	return r.out
}
