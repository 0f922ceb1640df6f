package safetext

import (
	"bytes"
	"io"
)

// Writer makes what is written to it safe line by line, as Block does. Close
// writes an unfinished last line; it does not close the writer below.
type Writer struct {
	w    io.Writer
	line []byte
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// maxLine bounds what is kept of a line that does not end.
const maxLine = 1 << 20

// Write writes all whole lines of p and keeps the rest.
func (w *Writer) Write(p []byte) (int, error) {
	w.line = append(w.line, p...)
	end := bytes.LastIndexByte(w.line, '\n') + 1
	if end == 0 && len(w.line) > maxLine {
		end = len(w.line)
	}
	if end > 0 {
		if _, err := io.WriteString(w.w, Block(string(w.line[:end]))); err != nil {
			return 0, err
		}
		w.line = append(w.line[:0], w.line[end:]...)
	}
	return len(p), nil
}

// Close writes what is left.
func (w *Writer) Close() error {
	_, err := io.WriteString(w.w, Block(string(w.line)))
	w.line = nil
	return err
}
