// Package logfile keeps the output of a workload: both streams in one file, in
// the text format that Kubernetes' container runtimes share, so that it can be
// read without us:
//
//	2026-01-02T03:04:05.678901234Z stdout F a line
//	2026-01-02T03:04:05.700000000Z stderr P the beginning of a line
//
// F says that a newline followed in the output, P that none did: every byte
// that was written can be had back. Times are UTC and those at which the
// supervisor read the output. When a file has reached its size it becomes log.1,
// log.1 becomes log.2, and so on up to a number of files.
package logfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/rotated"
)

// What is kept of a workload's output unless something else was asked, in bytes
// and files: 30 MB in all. A file can be longer than its size by one chunk.
const (
	MaxSize  = 10 << 20
	MaxFiles = 3
)

// MostFiles bounds the number of files that may be asked for, LeastSize their
// size, in bytes.
const (
	MostFiles = 100
	LeastSize = 4 << 10
)

// MaxChunk is the longest piece of output that one entry holds, in bytes.
const MaxChunk = 32 << 10

// Stream is a stream of output.
type Stream byte

// The streams.
const (
	Stdout Stream = iota
	Stderr
)

func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// timeFormat has a fixed length, unlike time.RFC3339Nano.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// Writer appends to a log. A disk that is full must not stop the workload, so
// what cannot be written is dropped, and Err tells.
type Writer struct {
	path  string
	max   int64
	files int
	lose  func(error)

	mu   sync.Mutex
	f    *os.File
	size int64
	buf  []byte
	lost int64
	err  error
}

// Limits say how much is kept. The zero value stands for MaxSize and MaxFiles.
type Limits struct {
	Size  int64 // bytes of one file
	Files int
	// Lose, if not nil, is called from a goroutine of its own when output is lost
	// for the first time.
	Lose func(error)
}

// Open opens the log at path for appending, and makes it if it is missing.
func Open(path string, l Limits) (*Writer, error) {
	w := &Writer{path: path, max: cmp.Or(l.Size, MaxSize), files: cmp.Or(l.Files, MaxFiles), lose: l.Lose}
	if err := w.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.f, w.size = f, fi.Size()
	if w.size > 0 {
		// A supervisor that was killed may have left half an entry.
		var last [1]byte
		if _, err := f.ReadAt(last[:], w.size-1); err == nil && last[0] != '\n' {
			n, _ := f.Write([]byte{'\n'})
			w.size += int64(n)
		}
	}
	return nil
}

// Write appends what was read from a stream at one time. A nil Writer drops it.
// Entries go into the file a chunk at a time, as a newline becomes an entry many
// times its length: the size of the file is looked at before each.
func (w *Writer) Write(s Stream, at time.Time, b []byte) {
	if w == nil || len(b) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	prefix := at.UTC().Format(timeFormat) + " " + s.String()
	w.buf = w.buf[:0]
	written := 0 // bytes of b that are in the file
	for rest := b; len(rest) > 0; {
		chunk, tag, n := rest, " P ", len(rest)
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			chunk, tag, n = rest[:i], " F ", i+1
		}
		if len(chunk) > MaxChunk {
			chunk, tag, n = rest[:MaxChunk], " P ", MaxChunk
		}
		if len(w.buf)+len(prefix)+len(tag)+len(chunk)+1 > maxLine {
			if err := w.append(); err != nil {
				w.lack(len(b)-written, err)
				return
			}
			w.buf, written = w.buf[:0], len(b)-len(rest)
		}
		w.buf = append(w.buf, prefix...)
		w.buf = append(w.buf, tag...)
		w.buf = append(w.buf, chunk...)
		w.buf = append(w.buf, '\n')
		rest = rest[n:]
	}
	if err := w.append(); err != nil {
		w.lack(len(b)-written, err)
	}
}

// lack remembers that n bytes of output are missing from the log.
func (w *Writer) lack(n int, err error) {
	w.lost += int64(n)
	if w.err == nil {
		w.err = err
		if w.lose != nil {
			go w.lose(err)
		}
	}
}

func (w *Writer) append() error {
	if w.f == nil || w.size >= w.max {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(w.buf)
	if err != nil {
		// Take back half an entry. It is ours: nobody else appends.
		if terr := w.f.Truncate(w.size); terr != nil {
			w.size += int64(n)
		}
		return err
	}
	w.size += int64(n)
	return nil
}

func (w *Writer) rotate() error {
	if w.f != nil {
		w.f.Close()
		w.f = nil
		if w.files == 1 {
			// A new file, not a shorter one: whoever follows it notices.
			if err := os.Remove(w.path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		for i := w.files - 1; i > 0; i-- {
			if err := os.Rename(rotated.Name(w.path, i-1), rotated.Name(w.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return w.open()
}

// Err tells how much output is missing and why; nil if none is.
func (w *Writer) Err() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		return nil
	}
	return fmt.Errorf("%d bytes of output are not in the log: %w", w.lost, w.err)
}

// Close closes the log.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// Entry is one entry of a log.
type Entry struct {
	Time   time.Time
	Stream Stream
	Data   []byte // without the newline
	Full   bool   // a newline followed
}

var errMalformed = errors.New("malformed log entry")

// parse reads one line, without its newline. Data points into it.
func parse(line []byte) (Entry, error) {
	const prefix = len(timeFormat) + len(" stdout F ")
	if len(line) < prefix || len(line) > prefix+MaxChunk {
		return Entry{}, errMalformed
	}
	at, err := time.Parse(timeFormat, string(line[:len(timeFormat)]))
	if err != nil {
		return Entry{}, errMalformed
	}
	e := Entry{Time: at, Data: line[prefix:]}
	switch string(line[len(timeFormat):prefix]) {
	case " stdout F ":
		e.Full = true
	case " stdout P ":
	case " stderr F ":
		e.Stream, e.Full = Stderr, true
	case " stderr P ":
		e.Stream = Stderr
	default:
		return Entry{}, errMalformed
	}
	return e, nil
}

// maxLine is the length of the longest line of a log, in bytes.
const maxLine = len(timeFormat) + len(" stdout F ") + MaxChunk + 1

// writeEntry writes what an entry stands for.
func writeEntry(w io.Writer, e Entry, stamp bool) error {
	out := make([]byte, 0, len(timeFormat)+2+len(e.Data))
	if stamp {
		out = append(e.Time.AppendFormat(out, timeFormat), ' ')
	}
	out = append(out, e.Data...)
	if e.Full {
		out = append(out, '\n')
	}
	_, err := w.Write(out)
	return err
}
