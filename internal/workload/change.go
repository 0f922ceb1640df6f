package workload

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Bounds of a list of changes: of its length, and of its paths together in
// bytes.
const (
	MaxChanges     = 1 << 20
	MaxChangeBytes = 64 << 20
	maxChangePath  = 64 << 10
)

var errChange = errors.New("malformed list of changes")

// WriteChanges writes changes in the form that ReadChanges reads: for each the
// kind, the path and a zero byte.
func WriteChanges(w io.Writer, changes []Change) error {
	b := bufio.NewWriterSize(w, 32<<10)
	for _, c := range changes {
		b.WriteString(c.Kind)
		b.WriteString(c.Path)
		b.WriteByte(0) // an error stays with b
	}
	return b.Flush()
}

// ReadChanges reads what WriteChanges wrote, maybe on the other side of a
// boundary.
func ReadChanges(r io.Reader) (changes []Change, err error) {
	b := bufio.NewReaderSize(r, 32<<10)
	size := 0
	var record []byte
	for {
		part, err := b.ReadSlice(0)
		record = append(record, part...)
		if size += len(part); size > MaxChangeBytes+2*MaxChanges || len(record) > maxChangePath {
			return nil, fmt.Errorf("%w: it is too long", errChange)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(record) == 0: //nolint:errorlint // returned bare
			return changes, nil
		case err == io.EOF: //nolint:errorlint // a wrapped one says that something broke
			return nil, fmt.Errorf("%w: it ends in the middle", errChange)
		case err != nil:
			return nil, err
		}
		kind, path := string(record[:1]), string(record[min(1, len(record)-1):len(record)-1])
		if kind != "A" && kind != "C" && kind != "D" || len(path) == 0 || path[0] != '/' || len(changes) == MaxChanges {
			return nil, errChange
		}
		changes = append(changes, Change{kind, path})
		record = record[:0]
	}
}
