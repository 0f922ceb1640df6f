package protocol

import (
	"io"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxStatPath bounds a name and a link's target in Reply.Path, in bytes.
const maxStatPath = 4096

// ParseStat checks what the other side says of a path.
func ParseStat(r *Reply) (workload.PathStat, error) {
	if r.Path == nil {
		return workload.PathStat{}, violation("a description of a path without one")
	}
	s := *r.Path
	if len(s.Name) > 255 || strings.ContainsRune(s.Name, '/') || len(s.LinkTarget) > maxStatPath || s.Size < 0 {
		return workload.PathStat{}, violation("a description of a path that cannot be")
	}
	if y := s.ModTime.Year(); y < 0 || y > 9999 {
		s.ModTime = time.Time{}
	}
	return s, nil
}

// Data writes a stream of bytes as messages.
type Data struct {
	W *Writer
	T Type // TypeStdin or TypeStdout
	b []byte
}

// Write sends p.
func (d *Data) Write(p []byte) (n int, err error) {
	if d.b == nil {
		d.b = make([]byte, MessageHeader+MaxData)
	}
	for len(p) > 0 {
		k := copy(d.b[MessageHeader:], p)
		if err := d.W.Bytes(d.T, d.b[:MessageHeader+k]); err != nil {
			return n, err
		}
		n, p = n+k, p[k:]
	}
	return n, nil
}

// Input reads the bytes of Stdin messages up to CloseStdin.
type Input struct {
	R    *Reader
	rest []byte
	err  error
}

// Read returns io.EOF after CloseStdin only.
func (in *Input) Read(p []byte) (int, error) {
	for len(in.rest) == 0 && in.err == nil {
		t, payload, err := in.R.Next()
		switch {
		case err == io.EOF: //nolint:errorlint // returned bare
			in.err = violation("the end of a stream without CloseStdin")
		case err != nil:
			in.err = err
		case t == TypeStdin:
			in.rest = payload
		case t == TypeCloseStdin:
			in.err = io.EOF
		default:
			in.err = violation("message of type %d in a stream of files", t)
		}
	}
	if len(in.rest) == 0 {
		return 0, in.err
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}
